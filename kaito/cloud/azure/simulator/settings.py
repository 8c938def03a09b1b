"""Settings of the simulator: names, durations, clock speed, and variants of AKS's behavior."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SMALL_POOL_SECONDS = 225.0
LARGE_POOL_SECONDS = 1554.0
LARGE_POOL_GPUS = 8


class SimulatorSettings(BaseModel):
    """Settings of the simulated subscription. Durations are simulated seconds, divided by `speed` in real time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscription_id: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "kaito"
    cluster: str = "kaito"
    location: str = "eastus"
    kubernetes_version: str = "1.33.2"
    speed: float = Field(default=1.0, gt=0)
    """Simulated seconds per real second."""
    provision_seconds: float | None = None
    """From PUT to Succeeded; None: by VM size, see `creation_seconds`."""
    delete_seconds: float = 32.0
    """Measured on AKS: 32 s for a pool of one node."""
    retry_after_seconds: float | None = None
    """`Retry-After` of operations: simulated seconds, sent as at least 1 real second, or as 0 if it is 0. None sends no
    header, as recorded."""
    operation_header: bool = True
    """Whether responses to PUT have `Azure-AsyncOperation`; without it, the SDK polls the resource."""
    signed_operations: bool = True
    """Whether status URLs have a signed query of 3,000 to 4,000 characters (recorded since 2023-09)."""
    empty_last_page: bool = True
    """Whether the list of pools ends with a `nextLink` to an empty page (recorded in 2025)."""
    request_limits: bool = True
    """Whether the rate limits of AKS are enforced (`limits`)."""
    delete_gone_status: int = 204
    """Status of DELETE for a pool that does not exist: 204 as documented, or 404 as in older API versions."""
    delete_while_creating: bool = True
    """Whether a pool can be deleted while it is being created; otherwise DELETE returns 409."""
    max_operations: int | None = None
    """Running operations of the cluster above which further ones get 409; None: no limit."""
    quota_refusal: Literal["aks", "compute", "pool"] = "aks"
    """How a pool beyond the quota is rejected: by AKS (400 `ErrCode_InsufficientVCPUQuota`), by Compute (409
    `OperationNotAllowed`), or by a pool that is accepted and fails."""
    mig_strategy: Literal["single", "mixed"] = "single"
    """How the device plugin advertises slices of GPUs: as `nvidia.com/gpu`, or as a resource of each profile."""
    family_quota: int = 10_000
    """Quota in vCPUs of each family."""
    regional_quota: int = 100_000
    """Quota in vCPUs of the region, and of spot instances."""

    @property
    def node_resource_group(self) -> str:
        """Resource group that AKS creates for the nodes."""
        return f"MC_{self.resource_group}_{self.cluster}_{self.location}"

    @property
    def cluster_id(self) -> str:
        """ARM id of the managed cluster."""
        return (
            f"/subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.cluster}"
        )

    def seconds(self, simulated: float) -> float:
        """Converts simulated seconds to real seconds."""
        return simulated / self.speed

    def creation_seconds(self, gpus: int) -> float:
        """Simulated seconds from PUT to Succeeded, by the number of GPUs per node.

        Measured on AKS: 3 to 4 minutes for small sizes, 25 min 54 s for an ND96asr_v4 pool.
        """
        if self.provision_seconds is not None:
            return self.provision_seconds
        return LARGE_POOL_SECONDS if gpus >= LARGE_POOL_GPUS else SMALL_POOL_SECONDS

    @property
    def retry_after(self) -> dict[str, str]:
        """The header `Retry-After` in whole seconds, as ARM sends it; empty if there is none."""
        if self.retry_after_seconds is None:
            return {}
        if self.retry_after_seconds == 0:
            return {"Retry-After": "0"}
        return {"Retry-After": str(max(1, math.ceil(self.seconds(self.retry_after_seconds))))}
