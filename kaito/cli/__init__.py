"""The `kaito` command."""
