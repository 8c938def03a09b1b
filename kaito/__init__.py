"""Kaito: AI model inference and fine-tuning on Kubernetes, and the controller framework it is built on."""

__version__ = "0.1.0"
