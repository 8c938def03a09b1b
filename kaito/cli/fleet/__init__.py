"""`kaito cost` and `kaito top`: tables of the Workspaces of a cluster.

`reader` reads the Workspaces, `load` what their servers do, `cost` and `top` print the tables.
"""
