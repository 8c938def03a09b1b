"""Discovery documents and OpenAPI of the served resources."""
