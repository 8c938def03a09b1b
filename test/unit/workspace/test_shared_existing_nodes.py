"""Copies that share existing nodes (`--node-api byo`): MIG slices, time slices, and some of the GPUs of a node."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.models.copies import existing_nodes_of
from kaito.runtime.kinds import Node, StatefulSet
from kaito.runtime.meta import Quantity
from kaito.runtime.testing import World, builders
from kaito.workspace.nodes import copies_on
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps.status import NEW_WORKLOAD_SECONDS

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
A100 = {labels.GPU_PRODUCT: "NVIDIA-A100-SXM4-80GB", labels.GPU_COUNT: "1", labels.GPU_MEMORY: "81920"}
SHARED = {**A100, labels.GPU_PRODUCT: "NVIDIA-A100-SXM4-80GB-SHARED", labels.GPU_REPLICAS: "4"}
SINGLE = {**A100, labels.GPU_PRODUCT: "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", labels.GPU_COUNT: "2"}
SLICE = "nvidia.com/mig-3g.40gb"
MIG = {"mode": "mig", "profile": "3g.40gb"}


@pytest.fixture
def settings() -> WorkspaceSettings:
    return WorkspaceSettings(node_api=NodeApi.BYO)


def wanting(phi: Workspace, copies: int, *, annotations: dict[str, str] | None = None, **resource: Any) -> Workspace:
    document = phi.to_dict()
    document["metadata"]["annotations"] = annotations or {}
    document["resource"] |= {"instanceType": "", "count": copies, **resource}
    return Workspace.model_validate(document)


def add_node(world: World, name: str, gpu: dict[str, str], **capacity: str) -> Node:
    return world.put(builders.node(name, labels={"apps": "phi-3", **gpu}, capacity=capacity))


@pytest.mark.parametrize(
    ("copies", "places", "largest", "nodes"),
    [
        (0, [7], 7, 0),
        (7, [7], 7, 1),
        (8, [7], 7, 2),
        (8, [3, 7], 7, 2),
        (7, [3, 7], 7, 1),
        (15, [7], 7, 3),
        (2, [], 7, 1),
        (3, [], 0, 3),
    ],
)
def test_the_largest_nodes_are_used_first(copies: int, places: list[int], largest: int, nodes: int) -> None:
    assert existing_nodes_of(copies, places, largest=largest) == nodes


@pytest.mark.parametrize(
    ("requests", "copies"),
    [
        ({SLICE: "1"}, 7),
        ({SLICE: "1", "cpu": "2"}, 4),
        ({SLICE: "1", "cpu": "0.1"}, 7),
        ({SLICE: "1", "memory": "1Gi"}, 7),
        ({labels.NVIDIA_GPU: "1"}, 0),
        ({SLICE: "0"}, 1),
    ],
)
def test_the_scarcest_resource_limits_the_copies_of_a_node(requests: dict[str, str], copies: int) -> None:
    node = builders.node("mine", capacity={SLICE: "7", "cpu": "8"})
    node.status.capacity.pop("memory", None)
    assert copies_on(node, {name: Quantity(amount) for name, amount in requests.items()}) == copies


@pytest.mark.parametrize(
    ("gpu", "capacity", "resource"),
    [
        (A100, {labels.NVIDIA_GPU: "0", SLICE: "4"}, {"partition": MIG}),
        ({**SINGLE, labels.GPU_COUNT: "4", labels.GPU_MEMORY: "40192"}, {labels.NVIDIA_GPU: "4"}, {}),
        (SHARED, {labels.NVIDIA_GPU: "4"}, {}),
        (
            {**A100, labels.GPU_COUNT: "4"},
            {labels.NVIDIA_GPU: "4"},
            {"partition": {"mode": "accelerator", "count": 1}},
        ),
    ],
    ids=["MIG mixed", "MIG single", "time slices", "whole GPUs"],
)
async def test_four_copies_share_a_node(
    cluster: "Cluster", phi: Workspace, gpu: dict[str, str], capacity: dict[str, str], resource: dict[str, Any]
) -> None:
    add_node(cluster.world, "mine", gpu, **capacity)
    cluster.apply(wanting(phi, 4, **resource))
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns()[0] == "True"
        assert cluster.conditions()["NodesReady"][2].startswith("1 of 1 nodes ready")
        assert "on 1 node: its copies share nodes" in cluster.conditions()["ModelResolved"][2]
        found = cluster.world.get(StatefulSet, NAME)
        assert found.spec.replicas == 4
        assert "podAffinity" not in found.spec.template.to_dict()["spec"]["affinity"]
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.workspace().status.target_node_count == 1


async def test_copies_beyond_the_slices_wait_for_a_node(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    add_node(world, "small", A100, **{SLICE: "1"})
    add_node(world, "large", A100, **{SLICE: "4"})
    cluster.apply(wanting(phi, 7, partition=MIG))
    async with cluster.controller():
        await world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns()[0] == "False"
        assert cluster.conditions()["NodesReady"][2] == (
            "2 of 3 nodes ready; they have the resources for 5 of 7 copies"
        )
        assert world.find(StatefulSet, NAME) is None
        add_node(world, "more", A100, **{SLICE: "2"})
        await world.advance(2)
        assert cluster.columns()[0] == "True"
        assert world.get(StatefulSet, NAME).spec.replicas == 7
        cluster.serve()
        world.delete(Node, "large", "")
        await world.settle()
        assert cluster.columns()[0] == "False"


async def test_requests_of_pods_limit_the_copies_of_a_node(cluster: "Cluster", phi: Workspace) -> None:
    add_node(cluster.world, "mine", A100, **{SLICE: "4", "cpu": "8"})
    given = wanting(phi, 4, partition=MIG).to_dict()
    given["inference"]["preset"]["podOptions"] = {"resources": {"requests": {"cpu": "4"}}}
    cluster.apply(Workspace.model_validate(given))
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert "resources for 2 of 4 copies" in cluster.conditions()["NodesReady"][2]


@pytest.mark.parametrize("annotation", [labels.REVISION, labels.NODE_COUNT_OVERRIDE])
async def test_a_number_of_nodes_that_was_given_is_used(cluster: "Cluster", phi: Workspace, annotation: str) -> None:
    """Upstream's status contains a number of nodes, which must not become smaller with each reconcile."""
    add_node(cluster.world, "first", A100, **{SLICE: "4"})
    given = wanting(phi, 1, partition=MIG, annotations={annotation: "2"})
    cluster.apply(given)
    cluster.world.patch(Workspace, NAME, {"spec": {"replicas": None}})
    cluster.world.patch(Workspace, NAME, {"status": {"targetNodeCount": 2}}, subresource="status")
    async with cluster.controller():
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.conditions()["NodesReady"][2].startswith("1 of 2 nodes ready")
        assert cluster.workspace().status.target_node_count == 2
