"""The steps of a reconcile, one module each, in the order in which `controller` runs them.

A step is a coroutine function that takes the `ReconcileContext` and what earlier steps returned, and returns what it
observed or created. It also stores that in `ctx.state`, so that the status includes what was observed before a failure.
A step that does not concern the Workspace returns None.
"""
