"""Protocol between the gpu-provisioner and a cloud: instances by name, and operations that callers poll.

Providers implement `CloudProvider`. No method waits for an instance: `create` and `delete` start an operation and
return, `operation_status` and `get` return its progress. Every method may raise a `CloudError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from kaito.cloud.errors import CloudError

InstanceState = Literal["creating", "updating", "ready", "deleting", "failed", "canceled"]
ImageFamily = Literal["ubuntu", "azurelinux"]


@dataclass(frozen=True, slots=True)
class InstanceOwner:
    """The claim and installation that an instance belongs to, stored with it at creation."""

    claim_uid: str
    claim_kind: str
    """`Machine` or `NodeClaim`."""
    claim_name: str
    installation: str
    """Installation that created it: two clusters may use one subscription."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as read from the cloud. For AKS: an agent pool of one node."""

    name: str
    state: InstanceState
    instance_type: str
    owner: InstanceOwner | None = None
    """None: not created by this provisioner, and never changed or deleted by it."""
    count: int = 1
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created: datetime | None = None
    """Time of the request to create it."""
    error: CloudError | None = None
    """Why it failed, if the cloud reports that."""
    spot: bool = False
    """Whether the cloud may evict it."""
    zones: tuple[str, ...] = ()
    """Zones that it was restricted to; empty: none."""
    subnet: str = ""
    """Subnet of its nodes, if one was chosen."""
    is_system: bool = False
    """Whether it runs the cluster's system workloads."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """An instance to create."""

    name: str
    instance_type: str
    owner: InstanceOwner
    disk_gib: int
    """Size of the operating system disk."""
    image_family: ImageFamily = "ubuntu"
    gpu_profile: str = ""
    """Profile by which every GPU is divided; empty for whole GPUs."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: tuple[str, ...] = ()
    """`key=value:effect`."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """For administrators and cost reports; the provider adds those of the owner."""
    zones: tuple[str, ...] = ()
    """Empty: the cloud chooses, which succeeds more often for scarce GPUs."""
    spot: bool = False
    created: datetime | None = None
    """Time of the request."""


@dataclass(frozen=True, slots=True)
class StartedOperation:
    """An operation that the cloud accepted."""

    status_url: str
    """Argument for `operation_status`; empty if the cloud returned none."""
    retry_after: float | None = None
    """Seconds until the first poll."""


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """Status of an operation. `lost`: the cloud has no such operation; read the instance instead."""

    state: Literal["running", "succeeded", "failed", "canceled", "lost"]
    error: CloudError | None = None
    retry_after: float | None = None
    """Seconds until the next poll."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """Resources of an instance type, and where the subscription can use it."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int
    family: str = ""
    """Quota family."""
    architecture: str = "x64"
    zones: tuple[str, ...] | None = None
    """Zones in which the subscription can use it, for example `1`; None if not known."""
    spot: bool = True
    """Whether it is offered as spot capacity."""
    location: str = ""
    """The region; empty if not known."""


class CloudProvider(Protocol):
    """Manages instances of one node each."""

    @property
    def name(self) -> str:
        """Name in metrics and logs, for example `azure`."""
        ...

    def name_error(self, name: str) -> str | None:
        """Why an instance cannot have this name; None if it can."""
        ...

    def instance_name(self, provider_id: str) -> str | None:
        """The instance of a node, from its `spec.providerID`; None for an ID of another cloud."""
        ...

    async def get(self, name: str) -> Instance | None:
        """Reads an instance; None if it does not exist."""
        ...

    async def list(self) -> list[Instance]:
        """Lists all instances of the cluster, including those of other owners."""
        ...

    async def create(self, spec: InstanceSpec) -> StartedOperation:
        """Starts the creation of an instance; never changes an existing one.

        Raises:
            AlreadyExists: an instance of this name exists.
            CloudUnavailable: the request may have been accepted; read the instance.
        """
        ...

    async def delete(self, name: str) -> StartedOperation | None:
        """Starts the deletion of an instance; None if it does not exist."""
        ...

    async def operation_status(self, status_url: str) -> OperationStatus:
        """Reads the status of an operation."""
        ...

    async def watch(self, on_change: Callable[[str], None]) -> None:
        """Calls `on_change` with the name of each instance whose state changes, until cancelled.

        Covers instances with a running operation: those that this process created or deleted, or that `get` returned in
        such a state. While it runs, `get` may return these instances from the last list.
        """
        ...

    async def check_availability(self, spec: InstanceSpec) -> None:
        """Checks that the instance type is offered and that the quota is sufficient, as last read.

        Raises:
            InstanceTypeUnavailable: not offered in the region or the zones, as spot capacity, or to the subscription.
            QuotaExceeded: fewer vCPUs remain than the instance has.
        """
        ...

    async def instance_type(self, name: str) -> InstanceType | None:
        """Reads an instance type; None if it is not known."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...
