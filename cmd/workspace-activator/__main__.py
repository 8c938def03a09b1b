"""`python cmd/workspace-activator`: the activator from a source checkout."""

from kaito.workspace.activator.main import main

main()
