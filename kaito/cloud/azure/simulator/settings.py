"""What the simulated subscription looks like and how fast its time runs."""

import math

from pydantic import BaseModel, ConfigDict, Field


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
    provision_seconds: float = 300.0
    """From PUT to Succeeded: an AKS GPU pool commonly takes 4 to 8 minutes."""
    delete_seconds: float = 120.0
    retry_after_seconds: float = 10.0
    """The `Retry-After` of operation answers: simulated seconds, sent as at least one real second; 0 sends 0."""
    operation_header: bool = True
    """Whether PUT answers carry `Azure-AsyncOperation`; without it clients poll the resource."""
    delete_gone_status: int = 404
    """DELETE of an absent pool: 404 or 204, depending on the service's version."""
    delete_while_creating: bool = True
    """Whether DELETE of a pool in creation is accepted; otherwise 409."""
    max_operations: int | None = None
    """Pool operations in flight on the cluster before further ones are refused with 409."""
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

    @property
    def retry_after(self) -> str:
        """The header's value: whole seconds, as ARM sends it."""
        if not self.retry_after_seconds:
            return "0"
        return str(max(1, math.ceil(self.seconds(self.retry_after_seconds))))
