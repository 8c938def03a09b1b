"""State of the simulated cluster: agent pools, long-running operations, quota and capacity.

`api` changes it; background tasks complete operations. Listeners, such as the node simulator, are called when a pool is
created, provisioned, being deleted, and deleted.
"""

import asyncio
import hashlib
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from kaito.cloud.azure.simulator.catalog import MIG_SLICES, Catalog, VirtualMachineSize
from kaito.cloud.azure.simulator.faults import OperationFault
from kaito.cloud.azure.simulator.http import ArmError, in_progress
from kaito.cloud.azure.simulator.settings import SimulatorSettings
from kaito.runtime.clock import Clock
from kaito.runtime.tasks import TaskScope

PoolState = Literal[
    "Creating",
    "Updating",
    "Scaling",
    "Starting",
    "Stopping",
    "Canceling",
    "Deleting",
    "Succeeded",
    "Failed",
    "Canceled",
]
OperationStatus = Literal["InProgress", "Succeeded", "Failed", "Canceled"]
OperationKind = Literal["create", "update", "delete", "abort"]
PoolEvent = Literal["creating", "provisioned", "deleting", "deleted"]

NAME = re.compile(r"^[a-z][a-z0-9]{0,11}$")
"""Names that AKS accepts for Linux pools."""

IN_PROGRESS = frozenset({"Creating", "Updating", "Scaling", "Starting", "Stopping", "Canceling", "Deleting"})
"""States in which AKS rejects another operation on the pool."""

REGIONAL_QUOTA = "cores"
SPOT_QUOTA = "lowPriorityCores"
"""The quota of all spot instances, which count for no other quota."""

SPOT_KEY = "kubernetes.azure.com/scalesetpriority"
SPOT_VALUE = "spot"
RESERVED_LABELS = ("kubernetes.azure.com/", "kubernetes.io/")
"""Prefixes of node labels that AKS reserves."""

ABORT_SECONDS = 10.0

IMMUTABLE = ("vmSize", "osType", "osDiskSizeGB", "type", "availabilityZones", "gpuInstanceProfile")
"""Properties of an existing pool that AKS does not change."""


@dataclass(slots=True)
class Operation:
    """A long-running operation."""

    id: str
    pool: str
    kind: OperationKind
    started: datetime
    status: OperationStatus = "InProgress"
    error: dict[str, Any] | None = None
    ended: datetime | None = None
    lost: bool = False
    """Whether its status URL returns 404."""
    stuck: bool = False
    """Whether its status URL always returns InProgress."""
    query: str = ""
    """Signed query of its status URL."""


@dataclass(slots=True)
class Pool:
    """An agent pool."""

    name: str
    size: VirtualMachineSize
    properties: dict[str, Any]
    uid: str
    state: PoolState = "Creating"
    operation: Operation | None = None
    error: dict[str, Any] | None = None
    will_fail: bool = False
    """Whether its creation will fail, so that no node boots."""
    allocated: int = 0
    """Instances that it took from a limited capacity, and that its deletion returns."""
    etag: str = ""
    """Changes with each operation on the pool."""

    @property
    def count(self) -> int:
        """Number of nodes."""
        return int(self.properties.get("count", 1))

    @property
    def spot(self) -> bool:
        """Whether its nodes can be evicted."""
        return str(self.properties.get("scaleSetPriority", "")).lower() == SPOT_VALUE

    @property
    def gpu_profile(self) -> str:
        """Profile by which its GPUs are divided; empty for whole GPUs."""
        return str(self.properties.get("gpuInstanceProfile") or "")

    @property
    def devices(self) -> int:
        """GPUs of a node, or slices of them."""
        return self.size.gpus * MIG_SLICES.get(self.gpu_profile, 1)

    @property
    def scale_set(self) -> str:
        """Name of its scale set; the eight digits are derived from the UID."""
        digits = int(hashlib.sha256(self.uid.encode()).hexdigest(), 16) % 10**8
        return f"aks-{self.name}-{digits:08d}-vmss"


Listener = Callable[[PoolEvent, Pool], None]


class Cluster:
    """The AKS cluster. Used inside `async with`, which runs the operations as tasks."""

    def __init__(self, settings: SimulatorSettings, *, clock: Clock, rng: random.Random) -> None:
        self.settings = settings
        self.catalog = Catalog.default()
        self.pools: dict[str, Pool] = {}
        self.operations: dict[str, Operation] = {}
        self.quota: dict[str, int] = {}
        """Limits in vCPUs by family in lower case; `cores` is that of the region."""
        self.capacity: dict[str, int] = {}
        """Remaining instances by VM size in lower case; other sizes are not limited."""
        self._clock = clock
        self._rng = rng
        self._scope = TaskScope("arm-simulator")
        self._completions: dict[str, asyncio.Task[None]] = {}
        self._listeners: list[Listener] = []

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._scope.__aexit__(exc_type, exc, traceback)

    def add_listener(self, listener: Listener) -> None:
        """Adds a function that is called at each event of a pool."""
        self._listeners.append(listener)

    def put(self, name: str, body: dict[str, Any], fault: OperationFault | None = None) -> tuple[Pool, bool]:
        """Creates or updates a pool; returns it and whether it is new.

        Raises:
            ArmError: invalid name or size, exceeded quota, running operation, or change of an immutable property.
        """
        properties: dict[str, Any] = dict(body.get("properties") or {})
        if not NAME.match(name):
            message = f"The agent pool name '{name}' is invalid: it must match {NAME.pattern}"
            raise ArmError(400, "InvalidParameter", message, target="agentPool.name")
        pool = self.pools.get(name)
        if pool is not None and pool.state in IN_PROGRESS:
            raise in_progress(name, pool.state)
        _check_labels(properties)
        self._check_parallel()
        if pool is None:
            size = self._size_for(str(properties.get("vmSize", "")))
            _check_zones(name, size, properties)
            _check_gpu_profile(size, properties)
            pool = Pool(name, size, _with_spot_properties(properties), self.new_id().replace("-", ""))
            fault = self._check_quota(pool) or fault
            self.pools[name] = pool
            self._begin(pool, "create", "Creating", self.settings.creation_seconds(size.gpus), fault)
            self._notify("creating", pool)
            return pool, True
        for key in IMMUTABLE:
            if key in properties and properties[key] != pool.properties.get(key, properties[key]):
                raise ArmError(400, "PropertyChangeNotAllowed", f"Changing property 'properties.{key}' is not allowed.")
        scales = properties.get("count", pool.count) != pool.count
        pool.properties = _with_spot_properties(pool.properties | properties)
        seconds = self.settings.creation_seconds(pool.size.gpus)
        self._begin(pool, "update", "Scaling" if scales else "Updating", seconds, fault)
        return pool, False

    def delete(self, name: str, fault: OperationFault | None = None) -> Pool | None:
        """Starts the deletion of a pool; None if it does not exist.

        Raises:
            ArmError: 409 if the pool is being created, unless `delete_while_creating` is set.
        """
        pool = self.pools.get(name)
        if pool is None:
            return None
        if pool.state == "Deleting":
            return pool
        if pool.state in IN_PROGRESS and not self.settings.delete_while_creating:
            raise in_progress(name, pool.state)
        self._override(pool)
        self._begin(pool, "delete", "Deleting", self.settings.delete_seconds, fault)
        self._notify("deleting", pool)
        return pool

    def abort(self, pool: Pool) -> bool:
        """Cancels the running operation; the pool becomes Canceled. False if no operation is running."""
        if pool.operation is None or pool.operation.status != "InProgress" or pool.operation.kind == "abort":
            return False
        pool.will_fail = pool.will_fail or pool.operation.kind == "create"
        self._override(pool)
        self._begin(pool, "abort", "Canceling", ABORT_SECONDS, None)
        return True

    def new_id(self) -> str:
        """A new UUID."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def usages(self) -> dict[str, tuple[int, int]]:
        """Used vCPUs and limit by quota: `cores`, `lowPriorityCores`, and the families."""
        families = sorted({size.family for size in self.catalog.sizes.values()})
        return {quota: (self._used(quota), self._limit(quota)) for quota in (REGIONAL_QUOTA, SPOT_QUOTA, *families)}

    def reset(self) -> None:
        """Removes all pools and operations."""
        for task in self._completions.values():
            task.cancel()
        for pool in list(self.pools.values()):
            self._remove(pool)
        self.operations.clear()

    def _check_parallel(self) -> None:
        limit = self.settings.max_operations
        busy = [operation for operation in self.operations.values() if operation.status == "InProgress"]
        if limit is not None and len(busy) >= limit:
            raise in_progress(busy[0].pool, "Creating")

    def _size_for(self, name: str) -> VirtualMachineSize:
        size = self.catalog.find(name)
        if size is not None and size.restricted == "QuotaId":
            message = (
                f"Virtual Machine size: '{name}' is not supported for subscription {self.settings.subscription_id} in "
                f"location '{self.settings.location}'. Please refer to aka.ms/aks/vm-size-selector to find supported "
                f"VM sizes in location '{self.settings.location}'."
            )
            raise ArmError(400, "VMSizeNotSupported", message, flat=True)
        if size is None or size.restricted:
            message = (
                f"The VM size of {name} is not allowed in your subscription in location '{self.settings.location}'. "
                "The available VM sizes are listed at https://aka.ms/aks/vm-sizes"
            )
            raise ArmError(400, "BadRequest", message, flat=True, target="agentPoolProfile.vmSize")
        return size

    def _check_quota(self, pool: Pool) -> OperationFault | None:
        """Rejects a pool beyond the quota, or returns the fault that fails it, depending on `quota_refusal`."""
        needed = pool.size.vcpus * pool.count
        for quota in (SPOT_QUOTA,) if pool.spot else (pool.size.family, REGIONAL_QUOTA):
            used, limit = self._used(quota), self._limit(quota)
            if used + needed <= limit:
                continue
            compute = (
                f"Operation could not be completed as it results in exceeding approved {_compute_name(quota)} Cores "
                f"quota. Additional details - Deployment Model: Resource Manager, Location: {self.settings.location}, "
                f"Current Limit: {limit}, Current Usage: {used}, Additional Required: {needed}, (Minimum) New Limit "
                f"Required: {used + needed}."
            )
            match self.settings.quota_refusal:
                case "compute":
                    raise ArmError(409, "OperationNotAllowed", compute)
                case "pool":
                    inner = f'Code="OperationNotAllowed" Message="{compute}"'
                    message = (
                        f"VMSSAgentPoolReconciler retry failed: autorest/azure: Service returned an error. {inner}"
                    )
                    return OperationFault(end="failed", code="CreateVMSSAgentPoolFailed", message=message)
                case "aks":
                    message = (
                        f"Insufficient vcpu quota requested {needed}, remaining {max(limit - used, 0)} for family "
                        f"{quota} for region {self.settings.location}."
                    )
                    code = "ErrCode_InsufficientVCPUQuota"
                    raise ArmError(400, code, message, flat=True, target="agentPoolProfile.vmSize")
        return None

    def _used(self, quota: str) -> int:
        """vCPUs in use that count for a quota."""
        return sum(
            pool.size.vcpus * pool.count
            for pool in self.pools.values()
            if (quota == SPOT_QUOTA) == pool.spot and quota in {SPOT_QUOTA, REGIONAL_QUOTA, pool.size.family}
        )

    def _limit(self, quota: str) -> int:
        default = self.settings.regional_quota if quota in {REGIONAL_QUOTA, SPOT_QUOTA} else self.settings.family_quota
        return self.quota.get(quota.lower(), default)

    def _begin(
        self,
        pool: Pool,
        kind: OperationKind,
        state: PoolState,
        seconds: float,
        fault: OperationFault | None,
    ) -> None:
        operation = Operation(id=self.new_id(), pool=pool.name, kind=kind, started=self._clock.now())
        operation.lost = fault is not None and fault.end == "status-lost"
        operation.stuck = fault is not None and fault.end in {"status-stuck", "status-stuck-failed"}
        self.operations[operation.id] = operation
        pool.state, pool.operation, pool.error, pool.etag = state, operation, None, self.new_id()
        running = self._completions.pop(pool.name, None)
        if running is not None:
            running.cancel()
        if fault is None and kind == "create":
            fault = self._capacity_fault(pool)
        if kind == "create":
            pool.will_fail = fault is not None and fault.end not in {"succeeded", "status-lost", "status-stuck"}
        wait = self.settings.seconds(seconds) * (fault.slower if fault else 1.0)
        self._completions[pool.name] = self._scope.spawn(
            self._finish(pool, operation, wait, fault), name=f"{kind}.{pool.name}"
        )

    def _capacity_fault(self, pool: Pool) -> OperationFault | None:
        left = self.capacity.get(pool.size.name.lower())
        if left is None:
            return None
        if left < pool.count:
            if pool.spot:
                text = (
                    "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
                    f"{pool.size.name}' is currently not available in location '{self.settings.location}'. Please try "
                    "another size or deploy to a different location or different zone."
                )
                return OperationFault(end="failed", code="SkuNotAvailable", message=text)
            inner = 'Code="AllocationFailed" Message="Allocation failed. We do not have sufficient capacity for the '
            message = f'Unable to provision the scale set: {inner}requested VM size {pool.size.name} in this region."'
            return OperationFault(end="failed", code="ReconcileVMSSAgentPoolFailed", message=message)
        self.capacity[pool.size.name.lower()] = left - pool.count
        pool.allocated = pool.count
        return None

    async def _finish(self, pool: Pool, operation: Operation, wait: float, fault: OperationFault | None) -> None:
        await asyncio.sleep(wait)
        end = fault.end if fault else "succeeded"
        pool.etag = self.new_id()
        error: dict[str, Any] = {"code": fault.code, "message": fault.message} if fault else {}
        if fault and fault.details:
            error["details"] = fault.details
        match end:
            case "never":
                return
            case "failed" | "status-stuck-failed":
                pool.state, pool.error = "Failed", error
                self._end(operation, "Failed", error)
            case "canceled":
                pool.state, pool.error = "Canceled", error
                self._end(operation, "Canceled", error)
            case "succeeded-but-failed":
                pool.state, pool.error = "Failed", error
                self._end(operation, "Succeeded")
            case "succeeded" | "status-lost" | "status-stuck":
                self._succeed(pool, operation)

    def _succeed(self, pool: Pool, operation: Operation) -> None:
        self._end(operation, "Succeeded")
        if operation.kind == "delete":
            self._remove(pool)
            return
        if operation.kind == "abort":
            pool.state = "Canceled"
            return
        pool.state = "Succeeded"
        self._notify("provisioned", pool)

    def _remove(self, pool: Pool) -> None:
        self.pools.pop(pool.name, None)
        left = self.capacity.get(pool.size.name.lower())
        if left is not None:
            self.capacity[pool.size.name.lower()] = left + pool.allocated
        self._notify("deleted", pool)

    def _override(self, pool: Pool) -> None:
        if pool.operation is not None and pool.operation.status == "InProgress":
            error = {"code": "Canceled", "message": "The operation was overriden and canceled by a later operation"}
            self._end(pool.operation, "Canceled", error)

    def _end(self, operation: Operation, status: OperationStatus, error: dict[str, Any] | None = None) -> None:
        operation.status, operation.error, operation.ended = status, error, self._clock.now()

    def _notify(self, event: PoolEvent, pool: Pool) -> None:
        for listener in self._listeners:
            listener(event, pool)


def _compute_name(quota: str) -> str:
    """Name of a quota in Compute's messages."""
    return {REGIONAL_QUOTA: "Total Regional", SPOT_QUOTA: "LowPriority"}.get(quota, quota)


def _with_spot_properties(properties: dict[str, Any]) -> dict[str, Any]:
    """Adds the label, taint and eviction policy that AKS sets on spot pools."""
    if str(properties.get("scaleSetPriority", "")).lower() != SPOT_VALUE:
        return properties
    taint = f"{SPOT_KEY}={SPOT_VALUE}:NoSchedule"
    taints: list[str] = list(properties.get("nodeTaints") or [])
    return {
        "scaleSetEvictionPolicy": "Delete",
        "spotMaxPrice": -1.0,
        **properties,
        "nodeLabels": {**(properties.get("nodeLabels") or {}), SPOT_KEY: SPOT_VALUE},
        "nodeTaints": taints if taint in taints else [*taints, taint],
    }


def _check_labels(properties: dict[str, Any]) -> None:
    labels: dict[str, str] = properties.get("nodeLabels") or {}
    for key, value in labels.items():
        if key.startswith(RESERVED_LABELS) and (key, value) != (SPOT_KEY, SPOT_VALUE):
            message = (
                f"Label key {key} is invalid: the prefixes kubernetes.azure.com/ and kubernetes.io/ are reserved for "
                "use by AKS and cannot be used for custom labels."
            )
            raise ArmError(400, "InvalidParameter", message, flat=True, target="agentPoolProfile.nodeLabels")


def _check_gpu_profile(size: VirtualMachineSize, properties: dict[str, Any]) -> None:
    profile = properties.get("gpuInstanceProfile")
    if profile is None or (profile in MIG_SLICES and size.mig):
        return
    message = (
        f"GPU instance profile '{profile}' is not supported for VM size {size.name}. Please refer to "
        "https://aka.ms/aks/mig for the supported profiles and VM sizes."
    )
    raise ArmError(400, "InvalidParameter", message, flat=True, target="agentPoolProfile.gpuInstanceProfile")


def _check_zones(name: str, size: VirtualMachineSize, properties: dict[str, Any]) -> None:
    required: list[str] = list(properties.get("availabilityZones") or [])
    missing = [zone for zone in required if zone not in size.zones]
    if missing:
        zones = ", ".join(f"'{zone}'" for zone in missing)
        offered = ",".join(size.zones)
        message = f"The zone(s) {zones} for resource '{name}' is not supported. The supported zones are '{offered}'."
        raise ArmError(
            400, "AvailabilityZoneNotSupported", message, flat=True, target="agentPoolProfile.availabilityZone"
        )
