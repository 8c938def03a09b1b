"""The workload controllers of a small cluster: what kube-controller-manager does for stateful sets and jobs."""
