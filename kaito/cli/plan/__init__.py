"""`kaito plan`: prints what the workspace controller would do about a Workspace, before anything is created.

`command` runs it: `documents` reads the files, `kaito.workspace.preview` computes the plan, `comparison` compares it
with a cluster, `report` collects the result, and `text` prints it for people.
"""
