"""Cloud providers: the protocol that the gpu-provisioner uses, its errors and metrics, and the provider for Azure."""
