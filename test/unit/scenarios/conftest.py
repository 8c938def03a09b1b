"""Fixtures: API server, both managers and the ARM simulator in virtual time; pods become ready when they could run."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from kaito.api import Claim, Machine, NodeClaim, Workspace, crds
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.metrics import CloudMetrics
from kaito.prices.book import PriceBook
from kaito.provisioner.context import Dependencies
from kaito.provisioner.controllers import cached, controllers
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime import Client, Manager
from kaito.runtime.kinds import Secret, StatefulSet
from kaito.runtime.manager import Settings
from kaito.runtime.testing import CrashingTransport, CrashPoint, World
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings

RUNTIME = Settings(
    metrics_bind_address="0",
    health_probe_bind_address="0",
    leader_elect=False,
    log_level="warning",
    graceful_shutdown_seconds=1,
)


TOKEN = Secret.model_validate(
    {"metadata": {"name": "token", "namespace": "default"}, "data": {"HF_TOKEN": "aGZfYWJj"}, "type": "Opaque"}
)


class System:
    """The cluster, the cloud, and both controllers, each of which can be stopped and started."""

    def __init__(self, world: World, simulator: Simulator, settings: WorkspaceSettings) -> None:
        self.world, self.simulator, self.settings = world, simulator, settings
        self.kind: type[Claim] = Machine if settings.node_api is NodeApi.MACHINE else NodeClaim
        self.prices = PriceBook()
        self._controller: AsyncExitStack | None = None
        self._provisioner: AsyncExitStack | None = None

    # processes

    async def start(self) -> None:
        await self.start_provisioner()
        await self.start_controller()

    async def start_controller(self, crash: CrashPoint | None = None) -> Manager:
        manager = self._make_controller(crash)
        self._controller = AsyncExitStack()
        await self._controller.enter_async_context(manager)
        await self.world.settle()
        return manager

    def second_controller(self) -> Manager:
        """Returns another controller process, to start beside the first one; both act."""
        return self._make_controller()

    def _make_controller(self, crash: CrashPoint | None = None) -> Manager:
        transport = self.world.transport()
        manager = workspace_manager(
            self.settings,
            RUNTIME,
            prices=self.prices,
            transport=CrashingTransport(transport, crash) if crash else transport,
            clock=self.world.clock,
        )
        self.world.track(manager)
        return manager

    async def start_provisioner(self) -> Manager:
        manager = self.second_provisioner()
        self._provisioner = AsyncExitStack()
        await self._provisioner.enter_async_context(manager)
        await self.world.settle()
        return manager

    def second_provisioner(self) -> Manager:
        """Returns another gpu-provisioner process, to start beside the first one; both act."""
        azure = AzureSettings(
            subscription_id=self.simulator.settings.subscription_id,
            resource_group="kaito",
            cluster="kaito",
            endpoint="http://simulator",
            credential_mode="fake",
        )
        arm = InProcessTransport(self.simulator.api)
        provider = AzureProvider(azure, CloudMetrics(), transport=arm, fence=lambda: manager.fence())  # noqa: PLW0108 - made below
        deps = Dependencies(cloud=provider, settings=ProvisionerSettings(), kinds=(self.kind,))
        manager = self.world.manager(*controllers(deps), cache=cached(), name="gpu-provisioner")
        return manager

    async def stop_controller(self) -> None:
        if self._controller is not None:
            await self._controller.aclose()
            self._controller = None

    async def stop_provisioner(self) -> None:
        if self._provisioner is not None:
            await self._provisioner.aclose()
            self._provisioner = None

    async def stop(self) -> None:
        await self.stop_controller()
        await self.stop_provisioner()

    # acting

    def apply(self, name: str = "w", *, preset: str = "phi-3-mini-4k-instruct", **resource: Any) -> Workspace:
        """Creates a Workspace; `annotations` and fields of `resource` as they are in the API."""
        annotations = resource.pop("annotations", {})
        document = {
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "resource": {"labelSelector": {"matchLabels": {"apps": name}}, **resource},
            "inference": {"preset": {"name": preset, "presetOptions": {"modelAccessSecret": "token"}}},
        }
        return self.world.put(Workspace.model_validate(document))

    def out_of_stock(self, *instance_types: str, left: int = 0) -> None:
        """Limits what the cloud has of these instance types."""
        for name in instance_types:
            self.simulator.cluster.capacity[name.lower()] = left

    def in_stock(self, instance_type: str) -> None:
        self.simulator.cluster.capacity.pop(instance_type.lower(), None)

    # looking

    def workspace(self, name: str = "w") -> Workspace:
        return self.world.get(Workspace, name)

    def condition(self, condition_type: str, name: str = "w") -> tuple[str, str, str]:
        """Status, reason and message."""
        found = {c.type: (c.status, c.reason, c.message) for c in self.workspace(name).status.conditions}
        return found.get(condition_type, ("", "", ""))

    def claims(self) -> list[Any]:
        return self.world.list(self.kind)

    @property
    def pools(self) -> dict[str, str]:
        """Instance type of each agent pool."""
        return {name: pool.size.name for name, pool in self.simulator.cluster.pools.items()}

    @property
    def puts(self) -> list[str]:
        """Names of the agent pools in the requests that create them, in order."""
        return [request.pool for request in self.simulator.api.requests if request.method == "PUT" and request.pool]

    def serve(self) -> None:
        """Makes the pods of all StatefulSets ready, as if their nodes ran them."""
        for workload in self.world.list(StatefulSet):
            replicas = workload.spec.replicas or 0
            status = {
                "replicas": replicas,
                "readyReplicas": replicas,
                "observedGeneration": workload.metadata.generation,
            }
            if workload.status.ready_replicas != replicas:
                self.world.patch(StatefulSet, workload.name, {"status": status}, subresource="status")

    def is_ready(self, name: str = "w") -> bool:
        self.serve()
        found = {c.type: c.status for c in self.workspace(name).status.conditions}
        return found.get("WorkspaceReady") == "True"

    async def until(self, what: str, holds: Callable[[], bool], *, within: float = 3600.0, step: float = 5.0) -> float:
        """Advances the time until a predicate is true; returns the seconds."""
        waited = 0.0
        while not holds():
            assert waited < within, f"not within {within:g} s: {what}"
            await self.world.advance(step)
            waited += step
        return waited


@pytest.fixture(params=[NodeApi.MACHINE, pytest.param(NodeApi.NODECLAIM, marks=pytest.mark.slow)])
async def system(world: World, request: pytest.FixtureRequest) -> AsyncIterator[System]:
    """An empty cluster and an empty cloud; the test starts the controllers."""
    for definition in crds.manifests():
        world.install(definition)
    nodes = Client(world.transport(agent="cluster/1"), field_manager="machines")
    durations = SimulatorSettings(provision_seconds=300, delete_seconds=120)
    async with Simulator(durations, nodes=nodes, clock=world.clock) as simulator:
        simulator.knobs.set(heartbeat_seconds=3600)
        world.put(TOKEN)
        system = System(world, simulator, WorkspaceSettings(node_api=request.param, region="eastus"))
        try:
            yield system
        finally:
            await system.stop()
