"""What a user may change on a live Workspace, and what follows; several nodes; nodes that are there already."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.kinds import ConfigMap, Event, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import builders

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

ADAPTER = {"source": {"name": "phi-3-adapter", "image": "registry.example/adapter:0.0.1"}, "strength": "1.0"}


def pod(cluster: "Cluster", name: str) -> dict[str, Any]:
    template: dict[str, Any] = cluster.world.get(StatefulSet, name).to_dict()["spec"]["template"]
    return template


async def test_the_first_adapter_rolls_the_pods_with_its_flags(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        before = cluster.world.get(StatefulSet, phi.name)
        cluster.world.patch(Workspace, phi.name, {"inference": {"adapters": [ADAPTER]}})
        await cluster.world.settle()
        after = cluster.world.get(StatefulSet, phi.name)
        assert after.metadata.generation == before.metadata.generation + 1
        spec = pod(cluster, phi.name)["spec"]
        assert [init["name"] for init in spec["initContainers"]] == ["weights"]
        assert any("adapters_dir" in word for word in spec["containers"][0]["command"])

        cluster.world.patch(Workspace, phi.name, {"inference": {"adapters": []}})
        await cluster.world.settle()
        assert pod(cluster, phi.name) == before.to_dict()["spec"]["template"]


async def test_an_edited_config_rolls_the_pods_once(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    settings = ConfigMap(metadata=ObjectMeta(name="mine"), data={"inference_config.yaml": "max_probe_steps: 1"})
    document = phi.to_dict()
    document["inference"]["config"] = "mine"
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await world.settle()
        assert cluster.conditions()["ResourceReady"][1] == "ConfigNotFound"
        world.put(settings)
        await cluster.until_serving()
        assert cluster.columns() == ("True", "True", "True")
        generation = world.get(StatefulSet, phi.name).metadata.generation
        digest = pod(cluster, phi.name)["metadata"]["annotations"][labels.CONFIG_HASH]

        world.patch(ConfigMap, "mine", {"data": {"inference_config.yaml": "max_probe_steps: 2"}})
        await world.settle()
        assert world.get(StatefulSet, phi.name).metadata.generation == generation + 1
        assert pod(cluster, phi.name)["metadata"]["annotations"][labels.CONFIG_HASH] != digest
        world.patch(ConfigMap, "mine", {"metadata": {"labels": {"irrelevant": "yes"}}})
        await world.settle()
        assert world.get(StatefulSet, phi.name).metadata.generation == generation + 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("transformers: {drain_seconds: 120}", 135),
        ("transformers: {drain-seconds: 30.5}", 46),
        ("transformers: {drain_seconds: 5}", 40),
        ("max_probe_steps: 1", 40),
    ],
)
async def test_pods_have_the_time_for_running_requests_that_the_config_sets(
    cluster: "Cluster", phi: Workspace, text: str, seconds: int
) -> None:
    """Otherwise the kubelet would kill the server before the time is over."""
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name="mine"), data={"inference_config.yaml": text}))
    document = phi.to_dict()
    document["inference"]["config"] = "mine"
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await cluster.until_serving()
        assert pod(cluster, phi.name)["spec"]["terminationGracePeriodSeconds"] == seconds


async def test_an_invalid_config_edit_keeps_the_pods_and_is_reported(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    world.put(ConfigMap(metadata=ObjectMeta(name="mine"), data={"inference_config.yaml": "max_probe_steps: 1"}))
    document = phi.to_dict()
    document["inference"]["config"] = "mine"
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await cluster.until_serving()
        world.delete(ConfigMap, "mine")
        await world.settle()
        assert cluster.conditions()["InferenceReady"][0] == "True", "the pods still answer"
        assert cluster.conditions()["ResourceReady"][1] == "ConfigNotFound"
        assert cluster.conditions()["WorkspaceReady"][0] == "False"
        assert len(cluster.claims()) == 1
        assert world.find(StatefulSet, phi.name) is not None


async def test_the_load_balancer_annotation_works_on_a_live_workspace(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        annotations = {"metadata": {"annotations": {labels.ENABLE_LOAD_BALANCER: "True"}}}
        cluster.world.patch(Workspace, phi.name, annotations)
        await cluster.world.settle()
        service = cluster.world.get(Service, phi.name)
        assert service.spec.type == "LoadBalancer"
        assert [port.port for port in service.spec.ports] == [80]


async def test_changes_of_other_clients_to_managed_objects_are_reverted(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.patch(StatefulSet, phi.name, {"spec": {"replicas": 5}})
        cluster.world.delete(Service, phi.name)
        await cluster.world.settle()
        assert cluster.world.get(StatefulSet, phi.name).spec.replicas == 1
        assert cluster.world.find(Service, phi.name) is not None


async def test_several_nodes_several_claims(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi.evolve(resource=phi.resource.evolve(count=3)))
    async with cluster.controller():
        await cluster.world.settle()
        first, second, third = cluster.claims()
        cluster.join(first)
        cluster.join(second)
        await cluster.world.settle()
        assert cluster.columns()[0] == "False"
        assert "2 of 3" in cluster.conditions()["ResourceReady"][2]
        cluster.join(third)
        await cluster.world.settle()
        cluster.serve(ready=2)
        await cluster.world.settle()
        assert "2 of 3" in cluster.conditions()["InferenceReady"][2]
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert len(cluster.workspace().status.worker_nodes) == 3


async def test_fewer_nodes_give_back_those_without_pods(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi.evolve(resource=phi.resource.evolve(count=2)))
    manager = cluster.controller()
    async with manager:
        await cluster.until_serving()
        first, second = cluster.claims()
        workload = world.get(StatefulSet, phi.name)
        for number, claim in enumerate((first, second)):
            pod_labels = {labels.WORKSPACE: phi.name}
            name = f"{phi.name}-{number}"
            world.put(builders.pod(name, labels=pod_labels, node_name=f"node-{claim.name}", owner=workload))
        override = {"metadata": {"annotations": {labels.NODE_COUNT_OVERRIDE: "1"}}}
        world.patch(Workspace, phi.name, override)
        await world.settle()
        assert world.get(StatefulSet, phi.name).spec.replicas == 1
        assert len(cluster.claims()) == 2, "its pod still runs"
        await manager.client.delete(world.get(Pod, f"{phi.name}-1"), grace_seconds=0)  # as its kubelet does
        cluster.serve()
        await world.settle()
        assert [claim.name for claim in cluster.claims()] == [first.name]
        assert cluster.columns() == ("True", "True", "True")


async def test_a_preferred_node_saves_a_claim_and_is_given_back(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    world.put(builders.node("mine", labels={"apps": "phi-3"}, capacity={labels.NVIDIA_GPU: "1"}))
    cluster.apply(phi.evolve(resource=phi.resource.evolve(preferred_nodes=["missing", "mine"])))
    async with cluster.controller():
        await world.settle()
        assert cluster.claims() == []
        assert world.get(Node, "mine", "").labels[labels.WORKSPACE] == phi.name
        cluster.serve()
        await world.settle()
        assert cluster.columns() == ("True", "True", "True")
        world.delete(Workspace, phi.name)
        await world.settle()
        assert world.find(Workspace, phi.name) is None
        assert labels.WORKSPACE not in world.get(Node, "mine", "").labels


@pytest.mark.parametrize("owner", [True, False])
async def test_a_preferred_node_of_another_workspace_is_not_used(
    cluster: "Cluster", phi: Workspace, owner: bool
) -> None:
    taken = {labels.WORKSPACE: "other", labels.WORKSPACE_NAMESPACE: "default"} if owner else {}
    gpus = {labels.NVIDIA_GPU: "1"} if owner else {}
    cluster.world.put(builders.node("theirs", labels={"apps": "phi-3", **taken}, capacity=gpus))
    cluster.apply(phi.evolve(resource=phi.resource.evolve(preferred_nodes=["theirs"])))
    async with cluster.controller():
        await cluster.world.settle()
        assert len(cluster.claims()) == 1
        assert cluster.world.get(Node, "theirs", "").labels.get(labels.WORKSPACE) != phi.name
        (note,) = (each.note for each in cluster.world.list(Event) if each.reason == "PreferredNodesNotUsed")
        cause = "is used by Workspace default/other" if owner else "advertises 0 of 1 nvidia.com/gpu"
        assert note.startswith(f"preferred node theirs {cause}")
        assert note.endswith(f"; created {cluster.kind.kind} {cluster.claims()[0].name} instead")
