"""What the simulated subscription looks like and how fast its time runs."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SMALL_POOL_SECONDS = 225.0
LARGE_POOL_SECONDS = 1554.0
LARGE_POOL_GPUS = 8


class SimulatorSettings(BaseModel):
    """Names of the one managed cluster, and durations in seconds of its real counterpart, divided by `speed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscription_id: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "kaito"
    cluster: str = "kaito"
    location: str = "eastus"
    kubernetes_version: str = "1.33.2"
    speed: float = Field(default=1.0, gt=0)
    """How many simulated seconds pass in one real second."""
    provision_seconds: float | None = None
    """From PUT to Succeeded; None: by size, see `creation_seconds`."""
    delete_seconds: float = 32.0
    """Recorded: 32 s for a pool of one machine."""
    retry_after_seconds: float | None = None
    """The `Retry-After` of operation answers: simulated seconds, sent as at least one real second; 0 sends 0. None, as
    recorded, sends none."""
    operation_header: bool = True
    """Whether PUT answers carry `Azure-AsyncOperation`; without it clients poll the resource."""
    signed_operations: bool = True
    """Whether operation addresses carry a signed query of 3 to 4 thousand characters (recorded since 2023-09)."""
    empty_last_page: bool = True
    """Whether the list of pools ends with a `nextLink` to an empty page (recorded in 2025)."""
    request_limits: bool = True
    """Whether the request limits of AKS hold (`limits`). They refill on the simulated clock, as everything else."""
    delete_gone_status: int = 204
    """DELETE of an absent pool: 204 as documented, or the 404 of older versions."""
    delete_while_creating: bool = True
    """Whether DELETE of a pool in creation is accepted; otherwise 409."""
    max_operations: int | None = None
    """Pool operations in flight on the cluster before further ones are refused with 409."""
    quota_refusal: Literal["aks", "compute", "pool"] = "aks"
    """How a pool beyond the quota is refused: by AKS (400 `ErrCode_InsufficientVCPUQuota`), by Compute's answer (409
    `OperationNotAllowed`), or by a pool that is accepted and fails."""
    family_quota: int = 10_000
    """vCPUs of each family, unless the ledger says otherwise."""
    regional_quota: int = 100_000

    @property
    def node_resource_group(self) -> str:
        """The group AKS makes for the nodes."""
        return f"MC_{self.resource_group}_{self.cluster}_{self.location}"

    @property
    def cluster_id(self) -> str:
        """ARM id of the managed cluster."""
        return (
            f"/subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.cluster}"
        )

    def seconds(self, simulated: float) -> float:
        """Real seconds for a simulated duration."""
        return simulated / self.speed

    def creation_seconds(self, gpus: int) -> float:
        """Simulated seconds from PUT to Succeeded of a pool whose machines have that many GPUs.

        Recorded: 3 to 4 minutes for small sizes, 25 min 54 s for an ND96asr_v4 pool.
        """
        if self.provision_seconds is not None:
            return self.provision_seconds
        return LARGE_POOL_SECONDS if gpus >= LARGE_POOL_GPUS else SMALL_POOL_SECONDS

    @property
    def retry_after(self) -> dict[str, str]:
        """The header of operation answers, in whole seconds, as ARM sends it; empty when there is none."""
        if self.retry_after_seconds is None:
            return {}
        if self.retry_after_seconds == 0:
            return {"Retry-After": "0"}
        return {"Retry-After": str(max(1, math.ceil(self.seconds(self.retry_after_seconds))))}
