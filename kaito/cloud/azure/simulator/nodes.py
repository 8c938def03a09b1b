"""Simulates the nodes of agent pools in a cluster: they join, become Ready, register GPUs, and are deleted.

One task per node acts as kubelet, cloud node manager and device plugin on the Kubernetes API. Failed requests are
retried until the pool is deleted. `Knobs` determine the times and failures.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar

from kaito.cloud.azure.simulator import node_object
from kaito.cloud.azure.simulator.knobs import KnobOverrides, Knobs
from kaito.cloud.azure.simulator.pools import Cluster, Pool, PoolEvent
from kaito.runtime.clock import Clock
from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound, TransportError
from kaito.runtime.kinds import Lease, LeaseSpec, Node
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)

LEASE_NAMESPACE = "kube-node-lease"
RETRY_SECONDS = 1.0
NODE_MANAGER_SECONDS = 60.0
"""Interval at which the cloud node manager checks a Node whose virtual machine does not exist, in simulated seconds."""
SHORTEST_WAIT_SECONDS = 0.001
"""Above the resolution of the loop's clock: a wait that rounding left over must let time pass."""


class NodeClient(Protocol):
    """The methods of `kaito.runtime.client.Client` that the nodes use."""

    async def find(self, kind: type[R], name: str, namespace: str = "") -> R | None:
        """Reads an object; None if it does not exist."""
        ...

    async def create(self, obj: R) -> R:
        """Creates an object; raises `AlreadyExists`."""
        ...

    async def update(self, obj: R) -> R:
        """Replaces an object; raises `Conflict` if it changed concurrently."""
        ...

    async def update_status(self, obj: R) -> R:
        """Replaces the status of an object; raises `Conflict` if it changed concurrently."""
        ...

    async def delete(self, target: Resource) -> object:
        """Deletes an object, if it exists."""
        ...


class NodeSimulator:
    """Creates and deletes the Nodes of all pools."""

    def __init__(self, cluster: Cluster, knobs: KnobOverrides, client: NodeClient, *, clock: Clock) -> None:
        self._cluster = cluster
        self._knobs = knobs
        self._client = client
        self._clock = clock
        self._scope = TaskScope("node-simulator")
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        cluster.add_listener(self._on_pool_event)

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

    def _on_pool_event(self, event: PoolEvent, pool: Pool) -> None:
        match event:
            case "creating":
                twice = self._knobs.of(pool.name).join_twice
                self._tasks[pool.uid] = [
                    self._scope.spawn(self._node(pool, number).run(), name=f"{pool.name}.{number}")
                    for number in range(2 if twice else pool.count)
                ]
            case "deleting":
                self._stop(pool)
                self._scope.spawn(self._stop_heartbeats(pool), name=f"{pool.name}.silent")
            case "deleted":
                self._stop(pool)
                self._scope.spawn(self._delete_nodes(pool), name=f"{pool.name}.delete")
            case "provisioned":
                pass

    def _node(self, pool: Pool, number: int) -> "SimulatedNode":
        return SimulatedNode(pool, number, self._cluster, self._knobs, self._client, self._clock)

    def _stop(self, pool: Pool) -> None:
        for task in self._tasks.pop(pool.uid, []):
            task.cancel()

    async def _stop_heartbeats(self, pool: Pool) -> None:
        """Marks the nodes of a shut down pool as Unknown, like the node controller after missing heartbeats."""
        await asyncio.sleep(self._cluster.settings.seconds(self._knobs.of(pool.name).unreachable_after))
        for number in range(2):
            node = self._node(pool, number)
            if pool.name in self._cluster.pools and self._cluster.pools[pool.name] is pool:
                await node.update_status(lambda current: node_object.unknown(current, self._clock.now()))

    async def _delete_nodes(self, pool: Pool) -> None:
        """Deletes the Nodes of a deleted pool, like the cloud node manager: later if the knob is set."""
        while self._knobs.of(pool.name).node_outlives_pool:  # noqa: ASYNC110 - a knob is a plain field
            await asyncio.sleep(self._cluster.settings.seconds(NODE_MANAGER_SECONDS))
        for number in range(2):
            await self._node(pool, number).delete()


class SimulatedNode:
    """One node of a pool."""

    def __init__(
        self, pool: Pool, number: int, cluster: Cluster, knobs: KnobOverrides, client: NodeClient, clock: Clock
    ) -> None:
        self._pool = pool
        self._number = number
        self._settings = cluster.settings
        self._overrides = knobs
        self._client = client
        self._clock = clock
        self.name = node_object.node_name(pool, number)

    async def run(self) -> None:
        """Runs the node from its boot until cancelled."""
        knobs = self._knobs
        delay = knobs.join_delay
        if delay is None:
            delay = knobs.join_fraction * self._settings.creation_seconds(self._pool.size.gpus)
        await self._sleep(delay)
        if self._pool.will_fail or self._knobs.never_join:
            return
        await self._retry(self._join)
        await self._sleep(knobs.provider_id_delay)
        await self.update(lambda node: node_object.with_provider_id(node, self._provider_id()))
        await self._sleep(max(knobs.ready_delay - knobs.provider_id_delay, 0))
        await self._run_kubelet()
        await self._be_evicted()

    async def update(self, mutate: Callable[[Node], Node]) -> None:
        """Updates the Node, and retries after a conflict; does nothing if it does not exist or does not change."""
        await self._retry(lambda: self._write(mutate, status=False))

    async def update_status(self, mutate: Callable[[Node], Node]) -> None:
        """Updates the status of the Node in the same way."""
        await self._retry(lambda: self._write(mutate, status=True))

    async def delete(self) -> None:
        """Deletes the Node; a finalizer may delay that."""

        async def remove() -> None:
            node = await self._client.find(Node, self.name)
            if node is not None and not node.deleting:
                await self._client.delete(node)

        await self._retry(remove)

    async def _run_kubelet(self) -> None:
        """The kubelet's loop until an eviction: Ready as the knobs say, GPUs after their delay, the lease renewed."""
        ready_since: float | None = None
        next_lease = 0.0
        written: tuple[str, int] | None = None
        loop = asyncio.get_running_loop()
        while True:
            knobs = self._knobs
            wait: float | None = None
            if (knobs.evicted_after is not None or knobs.vanishes) and written is not None:
                return
            if not knobs.heartbeat_stop:
                health = "not-ready" if knobs.not_ready else "ready"
                ready_since = (ready_since if ready_since is not None else loop.time()) if health == "ready" else None
                gpus = self._gpus(knobs, ready_since)
                if written != (health, gpus):
                    await self._report(health == "ready", gpus)
                    written = (health, gpus)
                if loop.time() >= next_lease:
                    next_lease = loop.time() + knobs.heartbeat_seconds
                    await self._retry(self._renew)
                    if not await self._is_reported():
                        written = None
                        continue
                wait = min(next_lease - loop.time(), self._until_gpus(knobs, ready_since))
            elif written is not None:
                written = None
                await self._sleep(knobs.unreachable_after)
                await self.update_status(lambda node: node_object.unknown(node, self._clock.now()))
                await self.update(node_object.with_unreachable_taint)
                continue
            await self._overrides.changed(None if wait is None else max(wait, SHORTEST_WAIT_SECONDS))

    async def _be_evicted(self) -> None:
        """The notice, the end of the virtual machine, and then the node controller and the cloud node manager."""
        seconds = self._knobs.evicted_after
        if seconds is not None:
            now = self._clock.now()
            ends_at = now + timedelta(seconds=self._settings.seconds(seconds))
            await self.update_status(lambda node: node_object.with_eviction_notice(node, ends_at, now))
            await self._sleep(seconds)
        await self._sleep(self._knobs.unreachable_after)
        await self.update_status(lambda node: node_object.unknown(node, self._clock.now()))
        await self.update(node_object.with_unreachable_taint)
        await self._sleep(NODE_MANAGER_SECONDS)
        await self.delete()

    def _gpus(self, knobs: Knobs, ready_since: float | None) -> int:
        if ready_since is None or self._until_gpus(knobs, ready_since) < math.inf:
            return 0
        return self._pool.devices if knobs.gpu_count_override is None else knobs.gpu_count_override

    def _until_gpus(self, knobs: Knobs, ready_since: float | None) -> float:
        """Seconds until the device plugin announces the GPUs; infinite when it did, or when the node is not Ready."""
        if ready_since is None:
            return math.inf
        wait = ready_since + self._settings.seconds(knobs.gpu_delay) - asyncio.get_running_loop().time()
        return wait if wait > 0 else math.inf

    async def _report(self, ready: bool, gpus: int) -> None:
        now = self._clock.now()
        resource = node_object.gpu_resource(self._pool, self._settings)
        await self.update_status(
            lambda node: node_object.reporting(node, self._pool, ready=ready, gpus=gpus, now=now, resource=resource)
        )
        await self.update(lambda node: node_object.with_readiness_taints(node, ready=ready, gpus=gpus))

    async def _join(self) -> None:
        node = node_object.registered(self.name, self._pool, self._settings)
        try:
            created = await self._client.create(node)
        except AlreadyExists:
            return
        now = self._clock.now()
        await self._client.update_status(node_object.reporting(created, self._pool, ready=False, gpus=0, now=now))

    async def _renew(self) -> None:
        spec = LeaseSpec(holder_identity=self.name, lease_duration_seconds=40, renew_time=self._clock.now())
        lease = await self._client.find(Lease, self.name, LEASE_NAMESPACE)
        try:
            if lease is None:
                node = await self._client.find(Node, self.name)
                owners = [node.owner_reference(controller=False, block_deletion=False)] if node is not None else []
                metadata = ObjectMeta(name=self.name, namespace=LEASE_NAMESPACE, owner_references=owners)
                await self._client.create(Lease(metadata=metadata, spec=spec))
            else:
                await self._client.update(lease.evolve(spec=spec))
        except NotFound:
            return  # a control plane without the namespace keeps no node leases

    async def _is_reported(self) -> bool:
        """Whether the status of the Node is the one that was reported: a node controller sets conditions to Unknown."""
        try:
            node = await self._client.find(Node, self.name)
        except (ApiError, TransportError):
            return True  # asked again with the next renewal
        return node is None or all(condition.status != "Unknown" for condition in node.status.conditions)

    async def _write(self, mutate: Callable[[Node], Node], *, status: bool) -> None:
        node = await self._client.find(Node, self.name)
        if node is None:
            return
        changed = mutate(node)
        if changed == node:
            return
        await (self._client.update_status(changed) if status else self._client.update(changed))

    async def _retry(self, attempt: Callable[[], object]) -> None:
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
        return self._overrides.of(self._pool.name)

    def _provider_id(self) -> str:
        lowercase = self._knobs.lowercase_resource_group
        return node_object.provider_id(self._pool, self._number, self._settings, lowercase=lowercase)

    async def _sleep(self, simulated: float) -> None:
        await asyncio.sleep(self._settings.seconds(simulated))
