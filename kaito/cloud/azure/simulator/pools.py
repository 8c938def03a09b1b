"""The state of the simulated cluster: agent pools, long-running operations, quota and capacity.

`api` asks it to change, its own background tasks finish operations after their time, and listeners (the node
simulator) hear of every pool that starts, ends provisioning, starts to go, and is gone. Everything lives in memory
until the process ends.
"""

import asyncio
import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from kaito.cloud.azure.simulator.catalogue import Catalogue, VirtualMachineSize
from kaito.cloud.azure.simulator.faults import OperationFault
from kaito.cloud.azure.simulator.settings import SimulatorSettings
from kaito.cloud.azure.simulator.wire import ArmError, in_progress
from kaito.runtime.clock import Clock
from kaito.runtime.tasks import TaskScope

PoolState = Literal["Creating", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"]
OperationStatus = Literal["InProgress", "Succeeded", "Failed", "Canceled"]
PoolMoment = Literal["creating", "provisioned", "deleting", "gone"]

NAME = re.compile(r"^[a-z][a-z0-9]{0,11}$")
"""What AKS accepts as the name of a Linux pool."""

IMMUTABLE = ("vmSize", "osType", "osDiskSizeGB", "type", "availabilityZones")
"""Properties AKS refuses to change on an existing pool."""


@dataclass(slots=True)
class Operation:
    """One long-running operation."""

    id: str
    pool: str
    kind: Literal["create", "update", "delete"]
    started: datetime
    status: OperationStatus = "InProgress"
    error: dict[str, Any] | None = None
    ended: datetime | None = None
    lost: bool = False
    """Its status URL answers 404."""


@dataclass(slots=True)
class Pool:
    """One agent pool as the service stores it."""

    name: str
    size: VirtualMachineSize
    properties: dict[str, Any]
    state: PoolState = "Creating"
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex)
    operation: Operation | None = None
    error: dict[str, Any] | None = None
    doomed: bool = False
    """Its creation will not succeed: no machine ever boots."""

    @property
    def count(self) -> int:
        """How many virtual machines it should have."""
        return int(self.properties.get("count", 1))

    @property
    def scale_set(self) -> str:
        """The name of its scale set: the eight digits are derived from the pool's incarnation."""
        digits = int(hashlib.sha256(self.incarnation.encode()).hexdigest(), 16) % 10**8
        return f"aks-{self.name}-{digits:08d}-vmss"


Listener = Callable[[PoolMoment, Pool], None]


class Cluster:
    """The managed cluster and what can be done to it. Use inside `async with`: operations run as tasks of the scope."""

    def __init__(self, settings: SimulatorSettings, *, clock: Clock) -> None:
        self.settings = settings
        self.catalogue = Catalogue.default()
        self.pools: dict[str, Pool] = {}
        self.operations: dict[str, Operation] = {}
        self.quota: dict[str, int] = {}
        """vCPU limits by family, in lower case; `cores` is the region's total."""
        self.capacity: dict[str, int] = {}
        """Machines left by size name, in lower case; sizes not named have plenty."""
        self._clock = clock
        self._scope = TaskScope("arm-simulator")
        self._endings: dict[str, asyncio.Task[None]] = {}
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

    def listen(self, listener: Listener) -> None:
        """Hear of every moment in a pool's life."""
        self._listeners.append(listener)

    def put(self, name: str, body: dict[str, Any], fault: OperationFault | None = None) -> tuple[Pool, bool]:
        """Create or update a pool; the flag says whether it is new.

        Raises:
            ArmError: bad name or size, no quota, an operation in progress, or a change of an immutable property.
        """
        properties: dict[str, Any] = dict(body.get("properties") or {})
        if not NAME.match(name):
            message = f"The agent pool name '{name}' is invalid: it must match {NAME.pattern}"
            raise ArmError(400, "InvalidParameter", message, target="agentPool.name")
        pool = self.pools.get(name)
        if pool is not None and pool.state in {"Creating", "Updating", "Deleting"}:
            raise in_progress(name, pool.state)
        self._check_parallel()
        if pool is None:
            size = self._size_for(str(properties.get("vmSize", "")))
            self._check_quota(size, int(properties.get("count", 1)))
            pool = self.pools[name] = Pool(name, size, properties)
            self._begin(pool, "create", "Creating", self.settings.provision_seconds, fault)
            self._tell("creating", pool)
            return pool, True
        for key in IMMUTABLE:
            if key in properties and properties[key] != pool.properties.get(key, properties[key]):
                raise ArmError(400, "PropertyChangeNotAllowed", f"Changing property 'properties.{key}' is not allowed.")
        pool.properties.update(properties)
        self._begin(pool, "update", "Updating", self.settings.provision_seconds, fault)
        return pool, False

    def delete(self, name: str, fault: OperationFault | None = None) -> Pool | None:
        """Start deleting; `None` when there is no such pool.

        Raises:
            ArmError: 409 while creating, if so configured.
        """
        pool = self.pools.get(name)
        if pool is None:
            return None
        if pool.state == "Deleting":
            return pool
        if pool.state in {"Creating", "Updating"} and not self.settings.delete_while_creating:
            raise in_progress(name, pool.state)
        if pool.operation and pool.operation.status == "InProgress":
            self._end(pool.operation, "Canceled", {"code": "Canceled", "message": "overriden by a later operation"})
        self._begin(pool, "delete", "Deleting", self.settings.delete_seconds, fault)
        self._tell("deleting", pool)
        return pool

    def usages(self) -> dict[str, tuple[int, int]]:
        """Family (or `cores`) to (used, limit) vCPUs."""
        families = {size.family for size in self.catalogue.sizes.values()}
        used = {family: self._used(family) for family in families}
        result = {family: (used[family], self._limit(family)) for family in sorted(families)}
        return {"cores": (sum(used.values()), self._limit("cores"))} | result

    def forget_everything(self) -> None:
        """Drop pools and operations at once, as if they had never been."""
        for task in self._endings.values():
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
        size = self.catalogue.find(name)
        if size is None or size.restricted:
            message = (
                f"The VM size of {name} is not allowed in your subscription in location '{self.settings.location}'. "
                "The available VM sizes are listed at https://aka.ms/aks/vm-sizes"
            )
            raise ArmError(400, "BadRequest", message, flat=True, target="agentPoolProfile.vmSize")
        return size

    def _check_quota(self, size: VirtualMachineSize, count: int) -> None:
        needed = size.vcpus * count
        for scope, used in ((size.family, self._used(size.family)), ("cores", self._used_everywhere())):
            remaining = self._limit(scope) - used
            if needed > remaining:
                message = (
                    f"Insufficient vcpu quota requested {needed}, remaining {max(remaining, 0)} for family {scope} "
                    f"for region {self.settings.location}."
                )
                raise ArmError(
                    400, "ErrCode_InsufficientVCPUQuota", message, flat=True, target="agentPoolProfile.vmSize"
                )

    def _used(self, family: str) -> int:
        return sum(pool.size.vcpus * pool.count for pool in self.pools.values() if pool.size.family == family)

    def _used_everywhere(self) -> int:
        return sum(pool.size.vcpus * pool.count for pool in self.pools.values())

    def _limit(self, scope: str) -> int:
        default = self.settings.regional_quota if scope == "cores" else self.settings.family_quota
        return self.quota.get(scope.lower(), default)

    def _begin(
        self,
        pool: Pool,
        kind: Literal["create", "update", "delete"],
        state: PoolState,
        seconds: float,
        fault: OperationFault | None,
    ) -> None:
        operation = Operation(id=str(uuid.uuid4()), pool=pool.name, kind=kind, started=self._clock.now())
        operation.lost = fault is not None and fault.end == "status-lost"
        self.operations[operation.id] = operation
        pool.state, pool.operation, pool.error = state, operation, None
        running = self._endings.pop(pool.name, None)
        if running is not None:
            running.cancel()
        if fault is None and kind == "create":
            fault = self._without_capacity(pool)
        if kind == "create":
            pool.doomed = fault is not None and fault.end not in {"succeeded", "status-lost"}
        wait = self.settings.seconds(seconds) * (fault.slower if fault else 1.0)
        self._endings[pool.name] = self._scope.spawn(
            self._finish(pool, operation, wait, fault), name=f"{kind}.{pool.name}"
        )

    def _without_capacity(self, pool: Pool) -> OperationFault | None:
        left = self.capacity.get(pool.size.name.lower())
        if left is None:
            return None
        if left < pool.count:
            inner = 'Code="AllocationFailed" Message="Allocation failed. We do not have sufficient capacity for the '
            message = f'Unable to provision the scale set: {inner}requested VM size {pool.size.name} in this region."'
            return OperationFault(end="failed", code="ReconcileVMSSAgentPoolFailed", message=message)
        self.capacity[pool.size.name.lower()] = left - pool.count
        return None

    async def _finish(self, pool: Pool, operation: Operation, wait: float, fault: OperationFault | None) -> None:
        await asyncio.sleep(wait)
        end = fault.end if fault else "succeeded"
        error: dict[str, Any] = {"code": fault.code, "message": fault.message} if fault else {}
        if fault and fault.details:
            error["details"] = fault.details
        match end:
            case "never":
                return
            case "failed":
                pool.state, pool.error = "Failed", error
                self._end(operation, "Failed", error)
            case "canceled":
                pool.state, pool.error = "Canceled", error
                self._end(operation, "Canceled", error)
            case "succeeded-but-failed":
                pool.state, pool.error = "Failed", error
                self._end(operation, "Succeeded")
            case "succeeded" | "status-lost":
                self._succeed(pool, operation)

    def _succeed(self, pool: Pool, operation: Operation) -> None:
        self._end(operation, "Succeeded")
        if operation.kind == "delete":
            self._remove(pool)
            return
        pool.state = "Succeeded"
        self._tell("provisioned", pool)

    def _remove(self, pool: Pool) -> None:
        self.pools.pop(pool.name, None)
        left = self.capacity.get(pool.size.name.lower())
        if left is not None and pool.state != "Failed":
            self.capacity[pool.size.name.lower()] = left + pool.count
        self._tell("gone", pool)

    def _end(self, operation: Operation, status: OperationStatus, error: dict[str, Any] | None = None) -> None:
        operation.status, operation.error, operation.ended = status, error, self._clock.now()

    def _tell(self, moment: PoolMoment, pool: Pool) -> None:
        for listener in self._listeners:
            listener(moment, pool)
