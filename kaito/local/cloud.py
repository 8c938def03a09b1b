"""How the gpu-provisioner finds the simulated cloud."""

CLOUD_ENVIRONMENT = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
    "ARM_RESOURCE_GROUP": "kaito",
    "AZURE_CLUSTER_NAME": "kaito",
    "LOCATION": "eastus",
}
"""The one cluster of the simulator's subscription, under the gpu-provisioner's environment names."""
