"""The steps of a claim's life, one module each; `kaito.provisioner.reconcile` is their table of contents."""
