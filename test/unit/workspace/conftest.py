"""Fixtures of the workspace controller: the phi-3 sample Workspace, its plan, and a cluster to reconcile it in."""

from pathlib import Path
from typing import Any

import pytest

from kaito.api import Claim, Machine, NodeClaim, Workspace, crds, labels
from kaito.runtime.clock import Clock
from kaito.runtime.kinds import Namespace, Node, StatefulSet, Taint
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta, Quantity
from kaito.runtime.meta.model import format_time
from kaito.runtime.testing import CrashingTransport, CrashPoint, World, builders
from kaito.workspace.main import workspace_manager
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import NodeApi, WorkspaceSettings

DEFINITIONS = crds.manifests()
UID = "0b8e7c0e-0000-4000-8000-000000000001"
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs once for each kind of claim as slow for NodeClaims, except in test_lifecycle.py."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and item.path.is_relative_to(HERE)
            and item.path.name != "test_lifecycle.py"
        ):
            call = getattr(item, "callspec", None)
            is_variant = call is not None and call.params.get("node_api") is NodeApi.NODECLAIM
            if is_variant and "world" in item.fixturenames:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(params=[NodeApi.MACHINE, NodeApi.NODECLAIM])
def node_api(request: pytest.FixtureRequest) -> NodeApi:
    """Runs every test of the node path with both kinds of claims."""
    api: NodeApi = request.param
    return api


@pytest.fixture
def settings(node_api: NodeApi) -> WorkspaceSettings:
    return WorkspaceSettings(node_api=node_api)


@pytest.fixture
def phi() -> Workspace:
    """The phi-3 sample Workspace as the API server stores it."""
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
    return Hardware(copies=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("87Gi"))


@pytest.fixture
def model_container() -> ModelContainer:
    return ModelContainer(
        preset="phi-3-mini-4k-instruct",
        image="registry.example/kaito-phi-3-mini-4k-instruct:0.0.2",
        tools_image="registry.example/kaito-base:0.5.0",
        command=("/bin/sh", "-c", "serve"),
        readiness_seconds=1800,
    )


@pytest.fixture
def plan(hardware: Hardware, model_container: ModelContainer) -> Plan:
    return Plan(hardware=hardware, container=model_container)


class Cluster:
    """A cluster in which the test plays user, provisioner, nodes and workload controllers."""

    def __init__(self, world: World, settings: WorkspaceSettings) -> None:
        self.world, self.settings = world, settings
        self.kind: type[Machine | NodeClaim] = Machine if settings.node_api is NodeApi.MACHINE else NodeClaim
        self.region = "eastus"
        """Region of the nodes that join; empty for a cloud that sets no label for it."""
        for definition in DEFINITIONS:
            world.install(definition)

    def controller(self, settings: WorkspaceSettings | None = None, clock: Clock | None = None) -> Manager:
        """Returns a controller process; leaving its context is a graceful shutdown."""
        runtime = Settings(
            metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, log_level="warning"
        )
        manager = workspace_manager(
            settings or self.settings, runtime, transport=self.world.transport(), clock=clock or self.world.clock
        )
        self.world.track(manager)
        return manager

    # -- actions of the user --

    def apply(self, workspace: Workspace) -> Workspace:
        return self.world.put(workspace)

    def namespace(self, name: str) -> None:
        self.world.put(Namespace(metadata=ObjectMeta(name=name)))

    def workspace(self, name: str = "workspace-phi-3-mini") -> Workspace:
        return self.world.get(Workspace, name)

    def conditions(self, name: str = "workspace-phi-3-mini") -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of every condition."""
        return {c.type: (c.status, c.reason, c.message) for c in self.workspace(name).status.conditions}

    def columns(self, name: str = "workspace-phi-3-mini") -> tuple[str, str, str]:
        """RESOURCEREADY, INFERENCEREADY and WORKSPACEREADY as kubectl shows them."""
        conditions = self.conditions(name)
        return conditions["ResourceReady"][0], conditions["InferenceReady"][0], conditions["WorkspaceReady"][0]

    # -- actions of the provisioner, the nodes and the workload controllers --

    def claims(self) -> list[Machine] | list[NodeClaim]:
        return self.world.list(self.kind)  # type: ignore[return-value]  # one of the two kinds

    def claim(self) -> Machine | NodeClaim:
        (only,) = self.claims()
        return only

    def set_claim_status(self, claim: Claim, *conditions: dict[str, str], **status: Any) -> None:
        """Writes the claim's status as the provisioner does."""
        moment = {"lastTransitionTime": "2030-01-01T00:00:00Z"}
        self.world.patch(
            self.kind,
            claim.name,
            {"status": {"conditions": [moment | {"message": ""} | c for c in conditions], **status}},
            subresource="status",
        )

    def join(self, claim: Claim, *, gpus: str = "1", ready: bool = True) -> Node:
        """Joins the claim's node and sets the claim Ready if the node is.

        The node is written in the steps of a cluster: the kubelet registers it without the claim's labels, the
        provisioner copies labels and taints of the claim, and then the kubelet reports its state and its GPUs.
        """
        name = f"node-{claim.name}"
        if self.world.find(Node, name) is None:
            self._register(claim, name)
        found = {**claim.labels, labels.REGISTERED: labels.TRUE, **({labels.INITIALIZED: labels.TRUE} if ready else {})}
        taints = [taint.to_dict() for taint in claim.spec.taints]
        self.world.patch(Node, name, {"metadata": {"labels": found}, "spec": {"taints": taints}})
        status = builders.node(name, capacity={labels.NVIDIA_GPU: gpus}, ready=ready).to_dict()["status"]
        node = self.world.patch(Node, name, {"status": status}, subresource="status")
        self.world.patch(self.kind, claim.name, {"metadata": {"labels": {labels.INSTANCE_TYPE: claim.instance_type}}})
        truth = "True" if ready else "False"
        stages = [{"type": s, "status": "True", "reason": s} for s in claim.stages[:2]]
        root = {"type": "Ready", "status": truth, "reason": "Ready"}
        last = {"type": claim.stages.initialized, "status": truth, "reason": "Initialized"}
        self.set_claim_status(claim, *stages, last, root, nodeName=node.name, providerID=f"azure:///{claim.name}")
        return node

    def _register(self, claim: Claim, name: str) -> None:
        """Creates the node as the kubelet of AKS does, with a taint that keeps pods from it."""
        kubelet = {
            labels.INSTANCE_TYPE: claim.instance_type,
            labels.ARCH: "amd64",
            labels.OS: "linux",
            **({labels.REGION: self.region, labels.ZONE: "0"} if self.region else {}),
            labels.AGENT_POOL: claim.name,
            "kubernetes.azure.com/agentpool": claim.name,
            "beta.kubernetes.io/instance-type": claim.instance_type,
            "kubernetes.azure.com/accelerator": "nvidia",
        }
        node = builders.node(name, labels=kubelet, ready=False, provider_id=f"azure:///{claim.name}")
        taint = Taint(key=labels.TAINT_UNREGISTERED, effect="NoExecute")
        self.world.put(node.evolve(spec=node.spec.evolve(taints=[taint])))

    def node_ready(self, name: str, status: str, message: str = "") -> None:
        """Sets the node's Ready condition."""
        condition = {
            "type": "Ready",
            "status": status,
            "reason": "KubeletReady" if status == "True" else "KubeletNotReady",
            "message": message,
            "lastTransitionTime": format_time(self.world.now),
        }
        self.world.patch(Node, name, {"status": {"conditions": [condition]}}, subresource="status")

    def serve(self, name: str = "workspace-phi-3-mini", *, ready: int | None = None) -> None:
        """Sets the ready replicas of the StatefulSet; all by default."""
        workload = self.world.get(StatefulSet, name)
        replicas = workload.spec.replicas or 0
        status = {
            "replicas": replicas,
            "readyReplicas": replicas if ready is None else ready,
            "observedGeneration": workload.metadata.generation,
        }
        self.world.patch(StatefulSet, name, {"status": status}, subresource="status")

    def killed_after(self, writes: int) -> Manager:
        """Returns a controller process that crashes at its n-th write: the server performs it, the reply is lost."""
        runtime = Settings(
            metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, graceful_shutdown_seconds=1
        )
        transport = CrashingTransport(self.world.transport(), CrashPoint(writes))
        manager = workspace_manager(self.settings, runtime, transport=transport, clock=self.world.clock)
        self.world.track(manager)
        return manager

    async def until_serving(self) -> None:
        """Joins the nodes of all claims and makes the pods ready."""
        await self.world.settle()
        for claim in self.claims():
            self.join(claim)
        await self.world.settle()
        self.serve()
        await self.world.settle()


@pytest.fixture
async def cluster(world: World, settings: WorkspaceSettings) -> Cluster:
    return Cluster(world, settings)
