"""Compares the framework with controller-runtime and kopf: the same small programs on one real API server, in turn.

`peers` runs them (`peer_ours`, `peer_kopf`, `controller_runtime/`); each benchmark is a module with a `benchmark`
function that returns reports, and its docstring defines what is measured and what is not.
"""
