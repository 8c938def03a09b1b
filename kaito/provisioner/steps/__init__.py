"""The steps of reconciling a claim, one module each; `kaito.provisioner.reconcile` calls them in order."""
