"""`kaito plan`: prints what the workspace controller would do about a Workspace, before anything is created.

`command` runs it, with the parts of `kaito.planning`.
"""
