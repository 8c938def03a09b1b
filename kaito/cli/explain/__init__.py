"""`kaito explain`: prints why a Workspace is not ready, what happens next, and what the user can do.

`command` runs it: `reader` reads the objects of the Workspace, `kaito.diagnosis` finds the cause, and `output` prints
the result.
"""
