"""Decodes request bodies: JSON, YAML and protobuf, with the duplicate-field check."""
