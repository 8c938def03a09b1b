"""The controller framework."""
