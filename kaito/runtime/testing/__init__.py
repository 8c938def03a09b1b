"""Testing operators: an in-memory cluster in virtual time. For your tests as well as ours.

`World` is the cluster: put objects, run a manager in it, `settle()`, look. The pytest plugin
(`pytest_plugins = ["kaito.runtime.testing.pytest"]`) gives it as the `world` fixture. `VirtualTimeLoop` alone serves
tests that only need time. Production code never imports this package.
"""
