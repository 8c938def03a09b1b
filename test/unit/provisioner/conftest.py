"""Fixtures: the provisioner with an in-memory cluster and the ARM simulator, in virtual time.

The provisioner uses the Azure SDK, connected to the simulator without sockets; simulated nodes join the cluster. Tests
that take `stage` run once for Machines and once for NodeClaims. Those of Machines are slow,
except in test_lifecycle.py.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.simulator.pools import Pool
from kaito.cloud.metrics import CloudMetrics
from kaito.provisioner.context import Dependencies
from kaito.provisioner.controllers import cached, controllers
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime import Client, Condition, Manager
from kaito.runtime.kinds import Node
from kaito.runtime.testing import CrashingTransport, CrashPoint, World

A100 = "Standard_NC24ads_A100_v4"
H100 = "Standard_NC40ads_H100_v5"
KINDS: tuple[type[Claim], ...] = (Machine, NodeClaim)
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of Machines as slow, which differ from those of NodeClaims in names only."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and item.path.name != "test_lifecycle.py":
            call = getattr(item, "callspec", None)
            if call is not None and call.params.get("stage") is Machine:
                item.add_marker(pytest.mark.slow)


class Stage:
    """The cluster, the cloud and the provisioner of one test."""

    def __init__(self, world: World, kind: type[Claim], simulator: Simulator) -> None:
        self.world = world
        self.kind = kind
        self.simulator = simulator
        self.settings = ProvisionerSettings()
        self.azure: dict[str, Any] = {}
        self.deps: Dependencies | None = None
        self._running: AsyncExitStack | None = None

    # the provisioner

    async def start(
        self,
        kinds: tuple[type[Claim], ...] = KINDS,
        *,
        crash: CrashPoint | None = None,
        lease: str | None = None,
        **changes: Any,
    ) -> Manager:
        """Starts the provisioner; `changes` are settings, `crash` ends it early, `lease` enables leader election."""
        self.settings = self.settings.model_copy(update=changes)
        values: dict[str, Any] = {
            "subscription_id": self.simulator.settings.subscription_id,
            "resource_group": "kaito",
            "cluster": "kaito",
            "endpoint": "http://simulator",
            "credential_mode": "fake",
        }
        azure = AzureSettings(**{**values, **self.azure})
        arm = InProcessTransport(CrashingArm(self.simulator, crash) if crash else self.simulator.api)
        provider = AzureProvider(azure, CloudMetrics(), transport=arm, fence=lambda: manager.fence())  # noqa: PLW0108 - made below
        self.deps = Dependencies(cloud=provider, settings=self.settings, kinds=kinds)
        manager = self.world.manager(
            *controllers(self.deps),
            cache=cached(),
            lease=lease,
            name="gpu-provisioner",
            transport=CrashingTransport(self.world.transport(), crash) if crash else None,
        )
        self._running = AsyncExitStack()
        await self._running.enter_async_context(manager)
        await self.world.settle()
        return manager

    async def stop(self) -> None:
        """Stops the provisioner; its state in memory is lost."""
        if self._running is not None:
            await self._running.aclose()
            self._running = None

    @asynccontextmanager
    async def elected(self, **changes: Any) -> AsyncGenerator[None]:
        """Runs the provisioner as leader; raises `NotLeader` in the block if it loses its lease."""
        await self.start(lease="gpu-provisioner", **changes)
        running, self._running = self._running, None
        assert running is not None
        async with running:
            await self.world.advance(5)
            yield

    # acting

    def claim(self, name: str = "ws1", *sizes: str, storage: str | None = "1024Gi", **metadata: Any) -> Claim:
        """Creates a claim as the workspace controller does."""
        return self.world.put(claim_manifest(self.kind, name, *sizes, storage=storage, **metadata))

    def put(self, name: str, change: Callable[[dict[str, Any]], None], *sizes: str) -> Claim:
        """Creates a claim after changing its manifest."""
        document = claim_manifest(self.kind, name, *sizes).to_dict()
        change(document)
        return self.world.put(self.kind.model_validate(document))

    def delete(self, name: str = "ws1") -> None:
        """Deletes the claim."""
        self.world.delete(self.kind, name)

    # looking

    def get(self, name: str = "ws1") -> Claim:
        """The claim in the cluster."""
        return self.world.get(self.kind, name)

    def find(self, name: str = "ws1") -> Claim | None:
        """The claim, or None if it does not exist."""
        return self.world.find(self.kind, name)

    def condition(self, condition_type: str, name: str = "ws1") -> Condition:
        """A condition of the claim; `launched`, `registered` and `initialized` stand for the kind's types."""
        stages = self.kind.stages._asdict()
        found = self.get(name).condition(stages.get(condition_type, condition_type))
        assert found is not None, f"{name} has no condition {condition_type}"
        return found

    def pool(self, name: str = "ws1") -> Pool:
        """The agent pool in the cloud."""
        return self.simulator.cluster.pools[name]

    @property
    def pools(self) -> list[str]:
        """Names of the agent pools in the cloud."""
        return sorted(self.simulator.cluster.pools)

    @property
    def nodes(self) -> list[Node]:
        """The nodes in the cluster."""
        return self.world.list(Node)

    def node(self) -> Node:
        """The only node."""
        (node,) = self.nodes
        return node

    def calls(self, method: str, pool: str = "ws1") -> int:
        """Number of requests of a method about a pool."""
        return sum(r.method == method and r.pool == pool for r in self.simulator.api.requests)

    async def until(self, what: str, holds: Callable[[], bool], *, within: float = 3600.0, step: float = 5.0) -> None:
        """Advances the time until a predicate is true."""
        waited = 0.0
        while not holds():
            assert waited < within, f"not within {within:g} s: {what}"
            await self.world.advance(step)
            waited += step

    async def until_crashed(self, crash: CrashPoint, *, within: float = 400.0) -> float:
        """Advances time until the process crashes; returns the elapsed seconds."""
        begun = self.world.now
        await self.until("the process crashes", crash.has_crashed, within=within, step=1)
        return (self.world.now - begun).total_seconds()

    async def until_ready(self, name: str = "ws1", *, within: float = 900.0) -> Claim:
        """Advances the time until the claim is Ready."""
        await self.until(f"{name} ready", lambda: self.get(name).is_ready, within=within)
        return self.get(name)

    async def until_gone(self, name: str = "ws1", *, within: float = 900.0) -> None:
        """Advances the time until the claim does not exist."""
        await self.until(f"{name} gone", lambda: self.find(name) is None, within=within)


class CrashingArm:
    """The ARM simulator as a process that crashes reaches it."""

    def __init__(self, simulator: Simulator, crash: CrashPoint) -> None:
        self._simulator, self._crash = simulator, crash

    async def handle(self, request: ArmRequest) -> ArmResponse:
        if self._crash.has_crashed():
            return ArmResponse(drop=True)
        response = await self._simulator.api.handle(request)
        if request.method != "GET":
            self._crash.count_write()
        return ArmResponse(drop=True) if self._crash.has_crashed() else response


def claim_manifest(
    kind: type[Claim], name: str = "ws1", *sizes: str, storage: str | None = "1024Gi", **metadata: Any
) -> Claim:
    """A claim as the workspace controller creates it."""
    is_machine = kind is Machine
    requirements = [
        {"key": labels.INSTANCE_TYPE, "operator": "In", "values": list(sizes or (A100,))},
        {"key": labels.OS, "operator": "In", "values": ["linux"]},
    ]
    spec: dict[str, Any] = {
        "requirements": requirements,
        "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
    }
    if storage is not None:
        spec["resources"] = {"requests": {"storage": storage}}
    if is_machine:
        spec["machineTemplateRef"] = {"name": name}
    else:
        spec["nodeClassRef"] = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
    pool = {labels.PROVISIONER_NAME: "default"} if is_machine else {labels.NODEPOOL: "kaito"}
    owner = {labels.WORKSPACE: "phi", labels.WORKSPACE_NAMESPACE: "default"}
    document = {
        "metadata": {"name": name, "labels": {**pool, **owner, "apps": "phi-3"}, **metadata},
        "spec": spec,
    }
    return kind.model_validate(document)


@pytest.fixture(params=KINDS, ids=[kind.kind for kind in KINDS])
async def stage(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """An empty cluster and an empty cloud; the test starts the provisioner."""
    world.install(*KINDS)
    nodes = Client(world.transport(agent="cluster/1"), field_manager="machines")
    durations = SimulatorSettings(provision_seconds=300, delete_seconds=120)
    async with Simulator(durations, nodes=nodes, clock=world.clock) as simulator:
        # The provisioner does not read node leases, and renewing them is most of the work of a test of hours.
        simulator.knobs.set(heartbeat_seconds=3600)
        stage = Stage(world, request.param, simulator)
        try:
            yield stage
        finally:
            await stage.stop()
            await asyncio.sleep(0)
