"""The whole system in virtual time: both managers, the ARM simulator, and simulated workload controllers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from kaito.api import Claim, Machine, NodeClaim, Workspace, crds
from kaito.cli.explain.reader import SituationReader
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.simulator.named_faults import named
from kaito.cloud.metrics import CloudMetrics
from kaito.diagnosis import Diagnosis, diagnose
from kaito.provisioner.context import Dependencies
from kaito.provisioner.controllers import cached, controllers
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime import Client
from kaito.runtime.kinds import Event, Node, ObjectReference, Pod
from kaito.runtime.manager import Settings
from kaito.runtime.meta import ObjectMeta, Resource, format_time
from kaito.runtime.testing import World, workloads
from kaito.workspace.hub.reads import ReadModel
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings

NAME = "phi"
SIZE = "Standard_NC24ads_A100_v4"


def workspace(name: str = NAME, **changes: Any) -> Workspace:
    """An inference Workspace of one A100."""
    document: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "default"},
        "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": name}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }
    return Workspace.model_validate(document | changes)


def tuning(name: str = NAME, **changes: Any) -> Workspace:
    """A tuning Workspace of one A100."""
    spec: dict[str, Any] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "lora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "registry.example/adapter:1", "imagePushSecret": "push"},
    }
    made = workspace(name).to_dict()
    del made["inference"]
    return Workspace.model_validate(made | {"tuning": spec | changes})


class Scene:
    """A cluster, a cloud, and what runs in them."""

    def __init__(self, world: World, simulator: Simulator, node_api: NodeApi) -> None:
        self.world, self.simulator = world, simulator
        self.settings = WorkspaceSettings(node_api=node_api)
        self.kind: type[Claim] = Machine if node_api is NodeApi.MACHINE else NodeClaim
        self._stack = AsyncExitStack()
        world.install(*crds.manifests())

    # -- processes --

    async def start(
        self,
        *,
        provisioner: bool = True,
        controller: bool = True,
        ready_after: float | None = 20,
        read_model: ReadModel | None = None,
        **changes: Any,
    ) -> None:
        """Starts the managers; `changes` are settings of the workspace controller. Pods start unless it is None."""
        self.settings = self.settings.model_copy(update=changes)
        if ready_after is not None:
            await self.world.start(*workloads(ready_after=ready_after))
        if provisioner and self.settings.node_api is not NodeApi.BYO:
            await self._provision()
        if controller:
            runtime = Settings(
                metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, log_level="warning"
            )
            manager = workspace_manager(
                self.settings,
                runtime,
                transport=self.world.transport(),
                clock=self.world.clock,
                read_model=read_model,
            )
            self.world.track(manager)
            await self._stack.enter_async_context(manager)
        await self.world.settle()

    async def _provision(self) -> None:
        azure = AzureSettings(
            subscription_id=self.simulator.settings.subscription_id,
            resource_group="kaito",
            cluster="kaito",
            endpoint="http://simulator",
            credential_mode="fake",
        )
        arm = InProcessTransport(self.simulator.api)
        provider = AzureProvider(azure, CloudMetrics(), transport=arm, fence=lambda: manager.fence())  # noqa: PLW0108 - made below
        deps = Dependencies(cloud=provider, settings=ProvisionerSettings(), kinds=(Machine, NodeClaim))
        manager = self.world.manager(*controllers(deps), cache=cached(), name="gpu-provisioner")
        await self._stack.enter_async_context(manager)

    async def stop(self) -> None:
        await self._stack.aclose()

    # -- actions --

    def fail(self, name: str, **changes: Any) -> None:
        """Makes the cloud fail until the end of the test."""
        self.simulator.faults.add(named(name, **{"times": None} | changes))

    async def apply(self, workspace: Workspace, seconds: float = 0.0) -> Workspace:
        """Applies a Workspace and advances the time."""
        applied = self.world.put(workspace)
        await self.world.advance(seconds)
        return applied

    async def until_ready(self, name: str = NAME) -> None:
        """Advances the time until the Workspace is ready."""
        for _ in range(120):
            if self.world.get(Workspace, name).status.state in {"Ready", "Succeeded"}:
                return
            await self.world.advance(10)
        pytest.fail(f"{name} is not ready: {self.world.get(Workspace, name).status}")

    def claim(self) -> Claim:
        (only,) = self.world.list(self.kind)
        return only

    def node(self) -> Node:
        (only,) = self.world.list(Node)
        return only

    def pod(self, name: str = f"{NAME}-0") -> Pod:
        return self.world.get(Pod, name)

    def set_pod(self, pod: Pod, **status: Any) -> None:
        """Changes the status of a pod as the kubelet or the scheduler does."""
        self.world.patch(Pod, pod.name, {"status": status}, subresource="status")

    def container(self, pod: Pod, *, state: dict[str, Any], **status: Any) -> None:
        """Sets the status of the pod's first container, which is not ready, and the pod with it."""
        names = [container.name for container in pod.spec.containers]
        container: dict[str, Any] = {"name": names[0], "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        container |= {"state": state, **status}
        now = format_time(self.world.now)
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": now},
        ]
        phase = "Running" if "running" in state else "Pending"
        self.set_pod(pod, phase=phase, containerStatuses=[container], conditions=conditions)

    def event(self, obj: Resource, reason: str, note: str, *, warning: bool = True, count: int = 1) -> None:
        """Records an Event as the kubelet and the controllers of Kubernetes do."""
        now = self.world.now
        regarding = ObjectReference(
            kind=obj.kind, name=obj.name, namespace=obj.namespace or None, uid=obj.uid, api_version=obj.api_version
        )
        event = Event(
            metadata=ObjectMeta(name=f"{obj.name}.{reason.lower()}", namespace=obj.namespace or "default"),
            reason=reason,
            note=note,
            type="Warning" if warning else "Normal",
            regarding=regarding,
            reporting_controller="kubelet",
            reporting_instance="node",
            action="x",
            event_time=now,
            deprecated_count=count,
        )
        self.world.put(event)

    async def explain(self, name: str = NAME, *, user: str = "") -> Diagnosis:
        """Reads the cluster as `kaito explain` does, and returns the diagnosis."""
        reader = SituationReader(Client(self.world.transport(user=user), field_manager="kaito-explain"))
        return diagnose(await reader.read(name, "default", self.world.now))


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


@pytest.fixture
async def scene(world: World, node_api: NodeApi) -> AsyncIterator[Scene]:
    """An empty cluster and an empty cloud; the test starts the managers."""
    nodes = Client(world.transport(agent="cluster/1"), field_manager="machines")
    durations = SimulatorSettings(provision_seconds=240, delete_seconds=120)
    async with Simulator(durations, nodes=nodes, clock=world.clock) as simulator:
        simulator.knobs.set(heartbeat_seconds=3600)
        scene = Scene(world, simulator, node_api)
        try:
            yield scene
        finally:
            await scene.stop()
