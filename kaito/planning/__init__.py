"""What the workspace controller would do about a Workspace, before anything is created.

`kaito plan` and the console use it: `documents` reads manifests, `planner` computes the plan with
`kaito.workspace.preview`, `comparison` compares it with a cluster, `installed` reads the settings of the controller,
`report` collects the result, and `text` formats it for people, in a `style`.
"""
