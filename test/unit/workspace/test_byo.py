"""The user's nodes: found by the full selector, never claimed, never deleted; Karpenter need not be there."""

from typing import TYPE_CHECKING

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Node, StatefulSet
from kaito.runtime.testing import World, builders
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps.status import NEW_WORKLOAD_SECONDS

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

A100 = {labels.GPU_PRODUCT: "NVIDIA-A100-SXM4-80GB", labels.GPU_COUNT: "1", labels.GPU_MEMORY: "81920"}


@pytest.fixture
def settings() -> WorkspaceSettings:
    return WorkspaceSettings(node_api=NodeApi.BYO)


@pytest.fixture
def own(phi: Workspace) -> Workspace:
    return phi.evolve(resource=phi.resource.evolve(instance_type=""))


def gpu_node(world: World, name: str, **extra: str) -> Node:
    node_labels = {"apps": "phi-3", **A100, **extra}
    return world.put(builders.node(name, labels=node_labels, capacity={labels.NVIDIA_GPU: "1"}))


async def test_a_workspace_waits_for_a_node_that_matches(cluster: "Cluster", own: Workspace) -> None:
    cluster.apply(own)
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.columns() == ("False", "False", "False")
        assert "no node matches" in cluster.conditions()["ResourceReady"][2]
        assert "apps" in cluster.conditions()["ResourceReady"][2]

        gpu_node(cluster.world, "mine")
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns()[0] == "True"
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert "MachineReady" not in cluster.conditions()
        assert "NodeClaimReady" not in cluster.conditions()


async def test_a_node_without_gpu_labels_is_reported_with_the_remedy(cluster: "Cluster", own: Workspace) -> None:
    cluster.world.put(builders.node("plain", labels={"apps": "phi-3"}))
    cluster.apply(own)
    async with cluster.controller():
        await cluster.world.settle()
        assert "GPU feature discovery" in cluster.conditions()["ResourceReady"][2]
        assert "plain" in cluster.conditions()["ResourceReady"][2]


async def test_existing_nodes_stay_after_the_workspace_is_deleted(cluster: "Cluster", own: Workspace) -> None:
    gpu_node(cluster.world, "mine")
    cluster.apply(own)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        cluster.world.delete(Workspace, own.name)
        await cluster.world.settle()
        assert cluster.world.find(Workspace, own.name) is None
        assert cluster.world.find(StatefulSet, own.name) is None
        assert cluster.world.find(Node, "mine", "") is not None


async def test_a_node_that_loses_its_label_no_longer_counts(cluster: "Cluster", own: Workspace) -> None:
    gpu_node(cluster.world, "mine")
    cluster.apply(own)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        cluster.world.patch(Node, "mine", {"metadata": {"labels": {"apps": "other"}}})
        await cluster.world.settle()
        assert cluster.columns()[0] == "False"


async def test_the_instance_type_must_be_left_out(cluster: "Cluster", phi: Workspace) -> None:
    gpu_node(cluster.world, "mine")
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.conditions()["ResourceReady"][1] == "InvalidSpec"
        assert "resource.instanceType" in cluster.conditions()["ResourceReady"][2]


async def test_karpenters_kinds_need_not_be_installed(
    world: World, own: Workspace, settings: WorkspaceSettings
) -> None:
    from kaito.api import crds
    from kaito.runtime.manager import Settings
    from kaito.workspace.main import workspace_manager

    world.install(next(d for d in crds.manifests() if d["metadata"]["name"] == "workspaces.kaito.sh"))
    gpu_node(world, "mine")
    world.put(own)
    quiet = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    manager = workspace_manager(settings, quiet, transport=world.transport(), clock=world.clock)
    world.track(manager)
    async with manager:
        await world.settle()
        assert world.find(StatefulSet, own.name) is not None
        world.delete(Workspace, own.name)
        await world.settle()
        assert world.find(Workspace, own.name) is None


async def test_a_model_larger_than_a_node_waits_for_enough_nodes(cluster: "Cluster", own: Workspace) -> None:
    world = cluster.world
    gpu_node(world, "first")
    cluster.apply(own.evolve(inference={"preset": {"name": "llama-3.3-70b-instruct", **PRIVATE}}))
    async with cluster.controller():
        await world.settle()
        assert cluster.workspace().status.target_node_count == 2
        assert cluster.conditions()["ResourceReady"][0] == "False"
        assert "1 of 2" in cluster.conditions()["ResourceReady"][2]
        assert world.find(StatefulSet, own.name) is None

        gpu_node(world, "second")
        await world.advance(2)
        assert cluster.columns()[0] == "True"
        assert world.get(StatefulSet, own.name).spec.replicas == 1
        assert world.get(StatefulSet, f"{own.name}-workers").spec.replicas == 1


PRIVATE = {"accessMode": "private", "presetOptions": {"image": "registry.example/llama:1"}}


def partitioned(own: Workspace, name: str, **partition: object) -> Workspace:
    found = own.to_dict()
    found["metadata"]["name"] = name
    found["resource"]["partition"] = partition
    return Workspace.model_validate(found)


def containers(world: World, name: str) -> dict[str, object]:
    spec = world.get(StatefulSet, name).to_dict()["spec"]["template"]["spec"]
    limits: dict[str, object] = spec["containers"][0]["resources"]["limits"]
    return limits


async def test_workspaces_share_a_node_by_whole_gpus(cluster: "Cluster", own: Workspace) -> None:
    extra = {labels.GPU_COUNT: "4"}
    node_labels = {"apps": "phi-3", **A100, **extra}
    cluster.world.put(builders.node("mine", labels=node_labels, capacity={labels.NVIDIA_GPU: "4"}))
    cluster.apply(partitioned(own, "small", mode="accelerator", count=1))
    cluster.apply(partitioned(own, "medium", mode="accelerator", count=2))
    cluster.apply(partitioned(own, "large", mode="accelerator", count=8))
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)

        assert containers(cluster.world, "small")[labels.NVIDIA_GPU] == "1"
        assert containers(cluster.world, "medium")[labels.NVIDIA_GPU] == "2"
        assert cluster.conditions("small")["ResourceReady"][0] == "True"
        _, _, message = cluster.conditions("large")["ResourceReady"]
        assert "resource.partition.count: is 8, the nodes have 4: use at most 4" in message
        assert cluster.world.find(StatefulSet, "large") is None


async def test_a_slice_is_requested_and_its_taint_tolerated(cluster: "Cluster", own: Workspace) -> None:
    capacity = {labels.NVIDIA_GPU: "0", "nvidia.com/mig-3g.40gb": "2"}
    taint = {"key": "nvidia.com/mig-3g.40gb", "value": "x", "effect": "NoSchedule"}
    node = builders.node("mine", labels={"apps": "phi-3", **A100}, capacity=capacity)
    cluster.world.put(Node.model_validate({**node.to_dict(), "spec": {"taints": [taint]}}))
    cluster.apply(partitioned(own, "slice", mode="mig", profile="3g.40gb"))
    cluster.apply(partitioned(own, "absent", mode="mig", profile="1g.10gb"))
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)

        limits = containers(cluster.world, "slice")
        assert limits["nvidia.com/mig-3g.40gb"] == "1"
        assert labels.NVIDIA_GPU not in limits
        assert cluster.conditions("slice")["ResourceReady"][0] == "True"
        message = cluster.conditions("absent")["ResourceReady"][2]
        assert "advertises nvidia.com/mig-1g.10gb; they advertise 3g.40gb" in message
        assert cluster.world.find(StatefulSet, "absent") is None


async def test_a_model_that_is_too_large_for_a_slice_is_refused(cluster: "Cluster", own: Workspace) -> None:
    capacity = {"nvidia.com/mig-1g.5gb": "7"}
    cluster.world.put(builders.node("mine", labels={"apps": "phi-3", **A100}, capacity=capacity))
    cluster.apply(partitioned(own, "tiny", mode="mig", profile="1g.5gb"))
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)

        assert "is too small for phi-3-mini-4k-instruct" in cluster.conditions("tiny")["ResourceReady"][2]
        assert cluster.world.find(StatefulSet, "tiny") is None
