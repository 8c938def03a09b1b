"""Deletion: graceful deletion and finalizers, garbage collection of dependents, and namespace cleanup."""
