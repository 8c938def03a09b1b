"""CustomResourceDefinitions: their validation, the resources they serve, and conversion between versions."""
