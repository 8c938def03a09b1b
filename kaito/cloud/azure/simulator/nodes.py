"""The machines of the simulated pools as the cluster sees them: node objects that join, turn Ready, announce GPUs, go.

Plays kubelet, cloud node manager and device plugin against the Kubernetes API, one task a machine. Every call may fail:
a machine tries again until its pool is gone. What happens when is decided by `Knobs`.
"""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from kaito.cloud.azure.simulator import node_object
from kaito.cloud.azure.simulator.knobs import KnobBoard, Knobs
from kaito.cloud.azure.simulator.pools import Cluster, Pool, PoolMoment
from kaito.runtime.clock import Clock
from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound, TransportError
from kaito.runtime.kinds import Lease, LeaseSpec, Node
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)

LEASE_NAMESPACE = "kube-node-lease"
RETRY_SECONDS = 1.0
SHORTEST_WAIT_SECONDS = 0.001
"""Above the resolution of the loop's clock: a wait that rounding left over must let time pass."""


class NodeSink(Protocol):
    """The part of the Kubernetes client that the machines need; `kaito.runtime.client.Client` is one."""

    async def find(self, kind: type[R], name: str, namespace: str = "") -> R | None:
        """The object, or None."""
        ...

    async def create(self, obj: R) -> R:
        """Create it. Raises `AlreadyExists`."""
        ...

    async def update(self, obj: R) -> R:
        """Replace it. Raises `Conflict` when it changed meanwhile."""
        ...

    async def update_status(self, obj: R) -> R:
        """Replace its status. Raises as `update`."""
        ...

    async def delete(self, target: Resource) -> object:
        """Delete it; no error when it was gone."""
        ...


class NodeSimulator:
    """Lets the machines of every pool join and go."""

    def __init__(self, cluster: Cluster, knobs: KnobBoard, sink: NodeSink, *, clock: Clock) -> None:
        self._cluster = cluster
        self._knobs = knobs
        self._sink = sink
        self._clock = clock
        self._scope = TaskScope("node-simulator")
        self._machines: dict[str, list[asyncio.Task[None]]] = {}
        cluster.listen(self._on_pool)

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

    def _on_pool(self, moment: PoolMoment, pool: Pool) -> None:
        match moment:
            case "creating":
                twice = self._knobs.of(pool.name).join_twice
                self._machines[pool.incarnation] = [
                    self._scope.spawn(self._machine(pool, number).live(), name=f"{pool.name}.{number}")
                    for number in range(2 if twice else pool.count)
                ]
            case "deleting":
                self._stop(pool)
                self._scope.spawn(self._fall_silent(pool), name=f"{pool.name}.silent")
            case "gone":
                self._stop(pool)
                self._scope.spawn(self._leave(pool), name=f"{pool.name}.gone")
            case "provisioned":
                pass

    def _machine(self, pool: Pool, number: int) -> "Machine":
        return Machine(pool, number, self._cluster, self._knobs, self._sink, self._clock)

    def _stop(self, pool: Pool) -> None:
        for machine in self._machines.pop(pool.incarnation, []):
            machine.cancel()

    async def _fall_silent(self, pool: Pool) -> None:
        """The machines are shut down: nobody renews their leases, so the node controller marks them Unknown."""
        await asyncio.sleep(self._cluster.settings.seconds(self._knobs.of(pool.name).unreachable_after))
        for number in range(2):
            machine = self._machine(pool, number)
            if pool.name in self._cluster.pools and self._cluster.pools[pool.name] is pool:
                await machine.change_status(lambda node: node_object.unknown(node, self._clock.now()))

    async def _leave(self, pool: Pool) -> None:
        """The cloud node manager removes the node objects of machines that are gone."""
        if self._knobs.of(pool.name).node_outlives_pool:
            return
        for number in range(2):
            await self._machine(pool, number).leave()


class Machine:
    """One virtual machine of a pool."""

    def __init__(
        self, pool: Pool, number: int, cluster: Cluster, knobs: KnobBoard, sink: NodeSink, clock: Clock
    ) -> None:
        self._pool = pool
        self._number = number
        self._settings = cluster.settings
        self._board = knobs
        self._sink = sink
        self._clock = clock
        self.name = f"{pool.scale_set}{number:06d}"

    async def live(self) -> None:
        """From boot until cancelled."""
        knobs = self._knobs
        delay = knobs.join_delay
        if delay is None:
            delay = knobs.join_fraction * self._settings.creation_seconds(self._pool.size.gpus)
        await self._sleep(delay)
        if self._pool.doomed or self._knobs.never_join:
            return
        await self._persist(self._join)
        await self._sleep(knobs.provider_id_delay)
        await self.change(lambda node: node_object.with_provider_id(node, self._provider_id()))
        await self._sleep(max(knobs.ready_delay - knobs.provider_id_delay, 0))
        await self._serve()

    async def change(self, mutate: Callable[[Node], Node]) -> None:
        """Read, change, write back; again after a conflict. Nothing when the node is gone or already so."""
        await self._persist(lambda: self._write(mutate, status=False))

    async def change_status(self, mutate: Callable[[Node], Node]) -> None:
        """The same for the status."""
        await self._persist(lambda: self._write(mutate, status=True))

    async def leave(self) -> None:
        """The node object goes (a finalizer may hold it)."""

        async def remove() -> None:
            node = await self._sink.find(Node, self.name)
            if node is not None and not node.deleting:
                await self._sink.delete(node)

        await self._persist(remove)

    async def _serve(self) -> None:
        """The kubelet's loop: Ready as the knobs say, GPUs after their delay, the lease renewed."""
        ready_since: float | None = None
        next_lease = 0.0
        written: tuple[str, int] | None = None
        loop = asyncio.get_running_loop()
        while True:
            knobs = self._knobs
            wait: float | None = None
            if not knobs.heartbeat_stop:
                health = "not-ready" if knobs.not_ready else "ready"
                ready_since = (ready_since if ready_since is not None else loop.time()) if health == "ready" else None
                gpus = self._gpus(knobs, ready_since)
                if written != (health, gpus):
                    await self._report(health == "ready", gpus)
                    written = (health, gpus)
                if loop.time() >= next_lease:
                    next_lease = loop.time() + knobs.heartbeat_seconds
                    await self._persist(self._renew)
                wait = min(next_lease - loop.time(), self._until_gpus(knobs, ready_since))
            elif written is not None:
                written = None
                await self._sleep(knobs.unreachable_after)
                await self.change_status(lambda node: node_object.unknown(node, self._clock.now()))
                await self.change(node_object.with_unreachable_taint)
                continue
            await self._board.changed(None if wait is None else max(wait, SHORTEST_WAIT_SECONDS))

    def _gpus(self, knobs: Knobs, ready_since: float | None) -> int:
        if ready_since is None or self._until_gpus(knobs, ready_since) < math.inf:
            return 0
        return self._pool.size.gpus if knobs.gpu_count_override is None else knobs.gpu_count_override

    def _until_gpus(self, knobs: Knobs, ready_since: float | None) -> float:
        """Seconds until the device plugin announces the GPUs; infinite when it did, or when the node is not Ready."""
        if ready_since is None:
            return math.inf
        wait = ready_since + self._settings.seconds(knobs.gpu_delay) - asyncio.get_running_loop().time()
        return wait if wait > 0 else math.inf

    async def _report(self, ready: bool, gpus: int) -> None:
        now = self._clock.now()
        await self.change_status(lambda node: node_object.reporting(node, self._pool, ready=ready, gpus=gpus, now=now))
        await self.change(lambda node: node_object.with_readiness_taints(node, ready=ready, gpus=gpus))

    async def _join(self) -> None:
        node = node_object.born(self.name, self._pool, self._settings)
        try:
            created = await self._sink.create(node)
        except AlreadyExists:
            return
        now = self._clock.now()
        await self._sink.update_status(node_object.reporting(created, self._pool, ready=False, gpus=0, now=now))

    async def _renew(self) -> None:
        spec = LeaseSpec(holder_identity=self.name, lease_duration_seconds=40, renew_time=self._clock.now())
        lease = await self._sink.find(Lease, self.name, LEASE_NAMESPACE)
        try:
            if lease is None:
                node = await self._sink.find(Node, self.name)
                owners = [node.owner_reference(controller=False, block_deletion=False)] if node is not None else []
                metadata = ObjectMeta(name=self.name, namespace=LEASE_NAMESPACE, owner_references=owners)
                await self._sink.create(Lease(metadata=metadata, spec=spec))
            else:
                await self._sink.update(lease.evolve(spec=spec))
        except NotFound:
            return  # a control plane without the namespace keeps no node leases

    async def _write(self, mutate: Callable[[Node], Node], *, status: bool) -> None:
        node = await self._sink.find(Node, self.name)
        if node is None:
            return
        changed = mutate(node)
        if changed == node:
            return
        await (self._sink.update_status(changed) if status else self._sink.update(changed))

    async def _persist(self, attempt: Callable[[], object]) -> None:
        while True:
            try:
                outcome = attempt()
                if asyncio.iscoroutine(outcome):
                    await outcome
                return
            except Conflict:
                continue
            except NotFound:
                return
            except (ApiError, TransportError):
                await asyncio.sleep(RETRY_SECONDS)

    @property
    def _knobs(self) -> Knobs:
        return self._board.of(self._pool.name)

    def _provider_id(self) -> str:
        group = self._settings.node_resource_group
        if self._knobs.lowercase_resource_group:
            group = group.lower()
        return (
            f"azure:///subscriptions/{self._settings.subscription_id}/resourceGroups/{group}/providers/Microsoft.Compute"
            f"/virtualMachineScaleSets/{self._pool.scale_set}/virtualMachines/{self._number}"
        )

    async def _sleep(self, simulated: float) -> None:
        await asyncio.sleep(self._settings.seconds(simulated))
