"""Reads the facts of models outside the catalog from Hugging Face, or from a mirror with the same HTTP API.

client    one model: description, config.json, index and headers of the weights, with limits of time and size
reads     reads in the background, with retries; a reconcile only queries the result
record    facts in a ConfigMap: kept by the controller, or given by the user
"""
