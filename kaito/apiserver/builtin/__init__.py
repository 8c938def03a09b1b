"""Defaulting and validation of the built-in kinds, as far as the server implements them."""
