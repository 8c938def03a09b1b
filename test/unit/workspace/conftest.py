"""The founding document's Workspace and what its controller is told, for every test of the room."""

from typing import Any

import pytest

from kaito.api import Claim, Machine, NodeClaim, Workspace, crds, labels
from kaito.runtime.kinds import Namespace, Node, StatefulSet
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta, Quantity
from kaito.runtime.meta.model import format_time
from kaito.runtime.testing import CrashingTransport, CrashPoint, World, builders
from kaito.workspace.main import workspace_manager
from kaito.workspace.plan import Hardware, Plan, Serving
from kaito.workspace.settings import NodeApi, WorkspaceSettings

DEFINITIONS = crds.manifests()
UID = "0b8e7c0e-0000-4000-8000-000000000001"


@pytest.fixture(params=[NodeApi.MACHINE, NodeApi.NODECLAIM])
def node_api(request: pytest.FixtureRequest) -> NodeApi:
    """Every test of the node path runs over both kinds of claims."""
    api: NodeApi = request.param
    return api


@pytest.fixture
def settings(node_api: NodeApi) -> WorkspaceSettings:
    return WorkspaceSettings(node_api=node_api)


@pytest.fixture
def phi() -> Workspace:
    """The first manifest of the founding document, as stored."""
    return Workspace.model_validate(
        {
            "metadata": {
                "name": "workspace-phi-3-mini",
                "namespace": "default",
                "uid": UID,
                "generation": 1,
                "creationTimestamp": "2030-01-01T00:00:00Z",
            },
            "resource": {
                "count": 1,
                "instanceType": "Standard_NC6s_v3",
                "labelSelector": {"matchLabels": {"apps": "phi-3"}},
            },
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        }
    )


@pytest.fixture
def hardware() -> Hardware:
    return Hardware(count=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("87Gi"))


@pytest.fixture
def serving() -> Serving:
    return Serving(
        model="phi-3-mini-4k-instruct",
        image="registry.example/kaito-phi-3-mini-4k-instruct:0.0.2",
        tools_image="registry.example/kaito-base:0.5.0",
        command=("/bin/sh", "-c", "serve"),
        readiness_seconds=1800,
    )


@pytest.fixture
def plan(hardware: Hardware, serving: Serving) -> Plan:
    return Plan(hardware=hardware, serving=serving)


class Cluster:
    """The world as a Workspace meets it: everybody else does what the test says, and the controller may crash."""

    def __init__(self, world: World, settings: WorkspaceSettings) -> None:
        self.world, self.settings = world, settings
        self.kind: type[Machine | NodeClaim] = Machine if settings.node_api is NodeApi.MACHINE else NodeClaim
        for definition in DEFINITIONS:
            world.install(definition)

    def controller(self, settings: WorkspaceSettings | None = None) -> Manager:
        """A controller process, to be entered; leaving it is a clean stop."""
        runtime = Settings(
            metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, log_level="warning"
        )
        manager = workspace_manager(
            settings or self.settings, runtime, transport=self.world.transport(), clock=self.world.clock
        )
        self.world.track(manager)
        return manager

    # what the user does

    def apply(self, workspace: Workspace) -> Workspace:
        return self.world.put(workspace)

    def namespace(self, name: str) -> None:
        self.world.put(Namespace(metadata=ObjectMeta(name=name)))

    def workspace(self, name: str = "workspace-phi-3-mini") -> Workspace:
        return self.world.get(Workspace, name)

    def told(self, name: str = "workspace-phi-3-mini") -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of every condition."""
        return {c.type: (c.status, c.reason, c.message) for c in self.workspace(name).status.conditions}

    def columns(self, name: str = "workspace-phi-3-mini") -> tuple[str, str, str]:
        """RESOURCEREADY, INFERENCEREADY and WORKSPACEREADY as kubectl shows them."""
        told = self.told(name)
        return told["ResourceReady"][0], told["InferenceReady"][0], told["WorkspaceReady"][0]

    # what the provisioner, the nodes and the workload controllers do

    def claims(self) -> list[Machine] | list[NodeClaim]:
        return self.world.list(self.kind)  # type: ignore[return-value]  # one of the two kinds

    def claim(self) -> Machine | NodeClaim:
        (only,) = self.claims()
        return only

    def say(self, claim: Claim, *conditions: dict[str, str], **status: Any) -> None:
        """The provisioner writes the claim's status."""
        moment = {"lastTransitionTime": "2030-01-01T00:00:00Z"}
        self.world.patch(
            self.kind,
            claim.name,
            {"status": {"conditions": [moment | {"message": ""} | c for c in conditions], **status}},
            subresource="status",
        )

    def join(self, claim: Claim, *, gpus: str = "1", ready: bool = True) -> Node:
        """The claim's node joins; the claim is Ready when the node is."""
        node = self.world.put(
            builders.node(
                f"node-{claim.name}",
                labels={**claim.labels, labels.INSTANCE_TYPE: claim.instance_type, labels.MACHINE_TYPE: "gpu"},
                capacity={labels.NVIDIA_GPU: gpus},
                ready=ready,
                provider_id=f"azure:///{claim.name}",
            )
        )
        word = "True" if ready else "False"
        stages = [{"type": s, "status": "True", "reason": s} for s in claim.stages[:2]]
        root = {"type": "Ready", "status": word, "reason": "Ready"}
        last = {"type": claim.stages.initialized, "status": word, "reason": "Initialized"}
        self.say(claim, *stages, last, root, nodeName=node.name, providerID=f"azure:///{claim.name}")
        return node

    def node_ready(self, name: str, status: str, message: str = "") -> None:
        """The node's Ready condition turns."""
        condition = {
            "type": "Ready",
            "status": status,
            "reason": "KubeletReady" if status == "True" else "KubeletNotReady",
            "message": message,
            "lastTransitionTime": format_time(self.world.now),
        }
        self.world.patch(Node, name, {"status": {"conditions": [condition]}}, subresource="status")

    def serve(self, name: str = "workspace-phi-3-mini", *, ready: int | None = None) -> None:
        """The StatefulSet controller reports so many ready pods; all by default."""
        workload = self.world.get(StatefulSet, name)
        replicas = workload.spec.replicas or 0
        status = {
            "replicas": replicas,
            "readyReplicas": replicas if ready is None else ready,
            "observedGeneration": workload.metadata.generation,
        }
        self.world.patch(StatefulSet, name, {"status": status}, subresource="status")

    def killed_after(self, writes: int) -> Manager:
        """A controller process that dies with its n-th write: the server acts on it, nobody hears the answer."""
        runtime = Settings(
            metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, graceful_shutdown_seconds=1
        )
        transport = CrashingTransport(self.world.transport(), CrashPoint(writes))
        manager = workspace_manager(self.settings, runtime, transport=transport, clock=self.world.clock)
        self.world.track(manager)
        return manager

    async def until_serving(self) -> None:
        """From a new Workspace to the first answer, everybody playing along."""
        await self.world.settle()
        for claim in self.claims():
            self.join(claim)
        await self.world.settle()
        self.serve()
        await self.world.settle()


@pytest.fixture
async def cluster(world: World, settings: WorkspaceSettings) -> Cluster:
    return Cluster(world, settings)
