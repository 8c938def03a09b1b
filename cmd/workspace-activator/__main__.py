"""`python cmd/workspace-activator`: the activator from a source checkout."""

from kaito.workspace.activator.program import main

main()
