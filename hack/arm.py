"""The environment with which gpu-provisioner uses the simulated Azure."""

from typing import Final

from kaito.local.cloud import CLOUD_ENVIRONMENT

ARM_ENVIRONMENT: Final = CLOUD_ENVIRONMENT | {
    "AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000001",
    "AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000002",
}
"""Names of the simulator's subscription and cluster, and an identity that it does not check."""
