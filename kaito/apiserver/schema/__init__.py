"""Structural schemas: pruning, defaulting, validation, formats, and the value types of Kubernetes."""
