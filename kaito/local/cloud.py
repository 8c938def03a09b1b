"""Settings of the simulated cloud for the gpu-provisioner."""

CLOUD_ENVIRONMENT = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
    "ARM_RESOURCE_GROUP": "kaito",
    "AZURE_CLUSTER_NAME": "kaito",
    "LOCATION": "eastus",
}
"""The only cluster of the simulator's subscription, as the gpu-provisioner's environment variables."""
