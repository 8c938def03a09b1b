"""The environment with which gpu-provisioner uses the simulated Azure."""

from typing import Final

ARM_ENVIRONMENT: Final = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
    "ARM_RESOURCE_GROUP": "kaito",
    "AZURE_CLUSTER_NAME": "kaito",
    "LOCATION": "eastus",
    "AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000001",
    "AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000002",
}
"""Names of the simulator's subscription and cluster (`SimulatorSettings`), and an identity that it does not check."""
