"""`python cmd/workspace-controller`: the workspace controller from a source checkout."""

from kaito.workspace.program import main

main()
