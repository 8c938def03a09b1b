"""The CronJob operator of the kubebuilder book, written with kaito.runtime."""
