"""What the provisioner asks of a cloud: instances by name, started and watched without waiting.

Adapters implement `Provider`; the provisioner knows nothing else of clouds. No method waits for a machine: `create`
and `delete` submit and return, `progress` and `get` say how far things are. Every method may raise a `CloudError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from kaito.cloud.errors import CloudError

InstanceState = Literal["creating", "updating", "ready", "deleting", "failed", "canceled"]
ImageFamily = Literal["ubuntu", "azurelinux"]


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose an instance is. Written at creation, never changed; an instance without it is not ours to touch."""

    claim_uid: str
    claim_kind: str
    """`Machine` or `NodeClaim`."""
    claim_name: str
    installation: str
    """Which provisioner installation made it: two clusters may share one subscription."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the cloud describes it. For AKS: an agent pool of one machine."""

    name: str
    state: InstanceState
    instance_type: str
    marker: Marker | None = None
    """None: somebody else's."""
    count: int = 1
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created: datetime | None = None
    """When it was asked for."""
    error: CloudError | None = None
    """Why it is failed, when the cloud tells."""
    spot: bool = False
    """Whether the cloud may take the machine back."""
    zones: tuple[str, ...] = ()
    """Zones it was restricted to; empty: the cloud chose."""
    subnet: str = ""
    """Where its machines are, when that was chosen."""
    system: bool = False
    """Whether it runs the cluster's own workloads."""


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """What to create."""

    name: str
    instance_type: str
    marker: Marker
    disk_gib: int
    """Size of the operating system disk."""
    image_family: ImageFamily = "ubuntu"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: tuple[str, ...] = ()
    """`key=value:effect`."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """For people and bills; the marker is added by the adapter."""
    zones: tuple[str, ...] = ()
    """Empty leaves the choice to the cloud, which for scarce GPUs is the better chance."""
    spot: bool = False
    created: datetime | None = None
    """When it is asked for."""


@dataclass(frozen=True, slots=True)
class Started:
    """An operation was accepted."""

    operation: str
    """Its status address, to be stored and given to `progress`; empty when the cloud gave none."""
    retry_after: float | None = None
    """Seconds after which it makes sense to look."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is. `lost`: the cloud does not know it (any more); look at the instance instead."""

    state: Literal["running", "succeeded", "failed", "canceled", "lost"]
    error: CloudError | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What one machine of a size holds."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int
    family: str = ""
    """Quota family."""
    architecture: str = "x64"
    zones: tuple[str, ...] | None = None
    """Zones in which the subscription can have it, for example `1`; None when unknown."""
    spot: bool = True
    """Whether it is sold as spot capacity."""
    location: str = ""
    """The region that this is about; empty when unknown."""


class Provider(Protocol):
    """A cloud, seen as a keeper of single-machine instances."""

    @property
    def name(self) -> str:
        """For metrics and logs, for example `azure`."""
        ...

    def name_problem(self, name: str) -> str | None:
        """Why an instance cannot have that name, in words for the user; None when it can."""
        ...

    def instance_name(self, provider_id: str) -> str | None:
        """The instance that a node's `spec.providerID` belongs to; None for an id that is not of this cloud."""
        ...

    async def get(self, name: str) -> Instance | None:
        """The instance, or None when there is none of that name."""
        ...

    async def list(self) -> list[Instance]:
        """Every instance in the cluster, ours or not."""
        ...

    async def create(self, plan: InstancePlan) -> Started:
        """Start creating. Never touches an existing instance.

        Raises:
            AlreadyExists: there is one of that name.
            CloudUnavailable: it may have been accepted; look with `get`.
        """
        ...

    async def delete(self, name: str) -> Started | None:
        """Start deleting; None when it is gone already."""
        ...

    async def progress(self, operation: str) -> Progress:
        """How far an operation is."""
        ...

    async def follow(self, changed: Callable[[str], None]) -> None:
        """Report instances whose state has changed, by name, until cancelled.

        Only those that are under way are followed: that this process created or deleted, or that `get` saw so. While
        this runs, `get` of such an instance may answer with what was last seen.
        """
        ...

    async def check(self, plan: InstancePlan) -> None:
        """Whether the plan has a chance: the size is offered here and the quota is enough, as last seen.

        Raises:
            InstanceTypeUnavailable: not offered here, not in these zones, not as spot, or not for the subscription.
            QuotaExceeded: fewer vCPUs left than one machine has.
        """
        ...

    async def instance_type(self, name: str) -> InstanceType | None:
        """What the size holds; None when unknown."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
