"""An operator that copies ConfigMaps and Secrets to other clusters: an example of kaito.runtime."""
