"""The number of copies: `spec.replicas`, `resource.count`, the annotation, scaling up and down, and no copies."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.models.copies import InvalidNodeCount, wanted_copies, with_replicas
from kaito.runtime.kinds import Node, Pod, StatefulSet
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.testing import builders
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.claim_policy import index_of
from kaito.workspace.main import workspace_manager
from kaito.workspace.manifests.group import workers_name

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
SELECTOR = f"kaito.sh/workspace={NAME}"
LARGE_SIZE = "Standard_NV36ads_A10_v5"


def with_(workspace: Workspace, *, replicas: int | None = None, count: int = 1, override: str = "") -> Workspace:
    document = workspace.to_dict()
    document["spec"] = {} if replicas is None else {"replicas": replicas}
    document["resource"] = {**document["resource"], "count": count}
    document["metadata"]["annotations"] = {labels.NODE_COUNT_OVERRIDE: override} if override else {}
    return Workspace.model_validate(document)


@pytest.mark.parametrize(
    ("given", "copies"),
    [
        ({"count": 3}, 3),
        ({"count": 3, "replicas": 5}, 5),
        ({"count": 3, "replicas": 0}, 0),
        ({"count": 3, "override": "2"}, 2),
        ({"count": 3, "override": "2", "replicas": 4}, 4),
    ],
)
def test_replicas_then_the_annotation_then_the_count(phi: Workspace, given: dict[str, Any], copies: int) -> None:
    assert wanted_copies(with_(phi, **given)) == copies


def test_too_many_copies_of_several_nodes_name_the_field_that_says_so(phi: Workspace) -> None:
    with pytest.raises(InvalidNodeCount, match=r"spec\.replicas: is 65, and 65 copies on 2 nodes .* use at most 64"):
        wanted_copies(with_(phi, replicas=65), 2)
    assert wanted_copies(with_(phi, replicas=0), 2) == 0


@pytest.mark.parametrize(
    ("old", "new", "replicas"),
    [
        (None, {"count": 3}, 3),
        (None, {"count": 3, "replicas": 0}, 0),
        (None, {"count": 3, "override": "2"}, None),
        ({"count": 1, "replicas": 5}, {"count": 1, "replicas": 5}, 5),
        ({"count": 1, "replicas": 5}, {"count": 1}, 5),
        ({"count": 1, "replicas": 5}, {"count": 2, "replicas": 5}, 2),
        ({"count": 1, "replicas": 5}, {"count": 2}, 2),
        ({"count": 1, "replicas": 5}, {"count": 2, "replicas": 7}, 7),
        ({"count": 1, "replicas": 0}, {"count": 2, "replicas": 0}, 2),
        ({"count": 1, "replicas": 5}, {"count": 1, "replicas": 5, "override": "4"}, None),
        ({"count": 1, "replicas": 5, "override": "4"}, {"count": 1, "replicas": 5, "override": "4"}, 5),
        ({"count": 1, "replicas": 5, "override": "4"}, {"count": 2, "replicas": 5, "override": "4"}, 5),
        ({"count": 3}, {"count": 3}, None),
    ],
)
def test_a_changed_count_sets_the_replicas(
    phi: Workspace, old: dict[str, Any] | None, new: dict[str, Any], replicas: int | None
) -> None:
    before = None if old is None else with_(phi, **old)

    assert with_replicas(with_(phi, **new), before).spec.replicas == replicas


def scale(cluster: "Cluster", replicas: int) -> None:
    cluster.world.scale(Workspace, NAME, replicas)


def add_pods(cluster: "Cluster", *nodes: str, workload: str = NAME, role: str = "", first: int = 0) -> None:
    """Puts a pod of the StatefulSet on each node."""
    owner = cluster.world.get(StatefulSet, workload)
    own = {labels.WORKSPACE: NAME, **({labels.GROUP_ROLE: role} if role else {})}
    for number, node in enumerate(nodes, first):
        cluster.world.put(builders.pod(f"{workload}-{number}", labels=own, node_name=node, owner=owner))


async def end_pod(manager: Manager, cluster: "Cluster", name: str) -> None:
    """Deletes the pod as its kubelet does after its requests."""
    await manager.client.delete(cluster.world.get(Pod, name), grace_seconds=0)


def reasons(cluster: "Cluster") -> list[str]:
    return [event.reason for event in cluster.world.events(cluster.workspace())]


async def test_scaling_up_creates_the_missing_claims_and_leaves_the_pods_alone(
    cluster: "Cluster", phi: Workspace
) -> None:
    cluster.apply(with_(phi, replicas=1))
    async with cluster.controller():
        await cluster.until_serving()
        status = cluster.workspace().status
        assert (status.replicas, status.ready_replicas, status.selector) == (1, 1, SELECTOR)
        before = cluster.world.get(StatefulSet, NAME)

        scale(cluster, 3)
        await cluster.world.settle()
        assert len(cluster.claims()) == 3
        assert cluster.workspace().status.target_node_count == 3
        after = cluster.world.get(StatefulSet, NAME)
        assert after.spec.replicas == 3
        assert after.spec.template == before.spec.template
        assert "Scaled" in reasons(cluster)
        assert "StatefulSetUpdated" not in reasons(cluster)
        for claim in cluster.claims():
            cluster.join(claim)
        cluster.serve(ready=2)
        await cluster.world.settle()
        assert cluster.columns() == ("True", "False", "False")
        assert (cluster.workspace().status.replicas, cluster.workspace().status.ready_replicas) == (3, 2)
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")


async def test_scaling_up_uses_a_free_preferred_node_before_it_creates_a_claim(
    cluster: "Cluster", phi: Workspace
) -> None:
    resource = phi.resource.evolve(preferred_nodes=["mine"])
    cluster.apply(with_(phi.evolve(resource=resource), replicas=1))
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.put(builders.node("mine", labels={"apps": "phi-3"}, capacity={labels.NVIDIA_GPU: "1"}))
        scale(cluster, 3)
        await cluster.world.settle()
        assert len(cluster.claims()) == 2
        assert cluster.world.get(Node, "mine", "").labels[labels.WORKSPACE] == NAME


async def serve_on_created_nodes(cluster: "Cluster", phi: Workspace, *, replicas: int) -> None:
    resource = phi.resource.evolve(preferred_nodes=["mine"])
    cluster.apply(with_(phi.evolve(resource=resource), replicas=replicas))
    await cluster.until_serving()
    add_pods(cluster, *(f"node-{claim.name}" for claim in sorted(cluster.claims(), key=index_of)))
    await cluster.world.settle()


def free_node(cluster: "Cluster") -> Node:
    return cluster.world.put(builders.node("mine", labels={"apps": "phi-3"}, capacity={labels.NVIDIA_GPU: "1"}))


async def test_a_created_node_is_given_back_when_a_preferred_node_becomes_free(
    cluster: "Cluster", phi: Workspace
) -> None:
    """One copy moves, because there is one preferred node; the other one serves meanwhile."""
    manager = cluster.controller()
    async with manager:
        await serve_on_created_nodes(cluster, phi, replicas=2)
        kept, given_back = sorted(cluster.claims(), key=index_of)
        free_node(cluster)
        await cluster.world.advance(590)
        assert len(cluster.claims()) == 2, "the node may be restarting"
        await cluster.world.advance(330)
        assert cluster.world.get(Node, "mine", "").labels[labels.PREFERRED] == "true"
        assert [claim.name for claim in cluster.claims() if not claim.deleting] == [kept.name]
        assert f"deleted {given_back.kind} {given_back.name}: no longer needed" in [
            event.note for event in cluster.world.events(cluster.workspace())
        ]
        cluster.world.delete(Node, f"node-{given_back.name}")
        await end_pod(manager, cluster, f"{NAME}-1")
        cluster.serve(ready=1)
        await cluster.world.settle()
        add_pods(cluster, "mine", first=1)
        cluster.serve()
        await cluster.world.advance(1800)
        assert [claim.name for claim in cluster.claims()] == [kept.name]
        assert cluster.columns() == ("True", "True", "True")


async def test_a_single_copy_stays_on_its_created_node(cluster: "Cluster", phi: Workspace) -> None:
    """It would not be served while it moves."""
    async with cluster.controller():
        await serve_on_created_nodes(cluster, phi, replicas=1)
        free_node(cluster)
        await cluster.world.advance(3600)
        assert len(cluster.claims()) == 1
        assert labels.WORKSPACE not in cluster.world.get(Node, "mine", "").labels


async def test_no_copy_moves_while_another_one_is_not_ready(cluster: "Cluster", phi: Workspace) -> None:
    async with cluster.controller():
        await serve_on_created_nodes(cluster, phi, replicas=2)
        free_node(cluster)
        cluster.serve(ready=1)
        await cluster.world.advance(3600)
        assert len(cluster.claims()) == 2


async def test_scaling_down_gives_a_node_back_once_its_pod_has_ended(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_(phi, replicas=3))
    manager = cluster.controller()
    async with manager:
        await cluster.until_serving()
        claims = cluster.claims()
        add_pods(cluster, *(f"node-{claim.name}" for claim in claims))
        scale(cluster, 1)
        await cluster.world.settle()
        assert cluster.world.get(StatefulSet, NAME).spec.replicas == 1
        cluster.serve()
        await cluster.world.advance(70)
        assert len(cluster.claims()) == 3, "two pods finish their requests"

        await end_pod(manager, cluster, f"{NAME}-2")
        await cluster.world.settle()
        assert [claim.name for claim in cluster.claims()] == [claims[0].name, claims[1].name]
        await end_pod(manager, cluster, f"{NAME}-1")
        await cluster.world.settle()
        assert [claim.name for claim in cluster.claims()] == [claims[0].name]
        assert cluster.columns() == ("True", "True", "True")
        assert not any("Lost" in reason or "GivenUp" in reason for reason in reasons(cluster))


async def test_without_copies_there_is_no_node_and_the_status_says_so(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_(phi, replicas=1))
    manager = cluster.controller()
    async with manager:
        await cluster.until_serving()
        add_pods(cluster, f"node-{cluster.claim().name}")
        scale(cluster, 0)
        await cluster.world.settle()
        assert len(cluster.claims()) == 1, "the pod finishes its requests"
        assert cluster.conditions()["InferenceReady"] == (
            "False",
            "ScaledToZero",
            "no copies, because spec.replicas is 0; 1 pod finishes its requests",
        )
        await end_pod(manager, cluster, f"{NAME}-0")
        cluster.serve()
        await cluster.world.settle()
        assert cluster.claims() == []
        assert cluster.columns() == ("True", "False", "False")
        conditions = cluster.conditions()
        assert conditions["InferenceReady"][1:] == ("ScaledToZero", "no copies, because spec.replicas is 0")
        assert conditions["WorkspaceReady"][1] == "ScaledToZero"
        status = cluster.workspace().status
        assert (status.state, status.replicas, status.target_node_count) == ("ScaledToZero", 0, 0)
        assert status.selector == SELECTOR
        found = reasons(cluster)
        assert "ScaledToZero" in found
        assert "InferenceNotReady" not in found
        await cluster.world.advance(3600)
        assert cluster.claims() == []

        scale(cluster, 1)
        await cluster.until_serving()
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.workspace().status.state == "Ready"


async def test_a_workspace_may_be_created_without_copies(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_(phi, replicas=0))
    async with cluster.controller():
        await cluster.world.settle()
        await cluster.world.advance(10)
        assert cluster.claims() == []
        assert cluster.columns() == ("True", "False", "False")
        assert cluster.workspace().status.state == "ScaledToZero"
        written = len(cluster.world.requests)
        await cluster.world.advance(600)
        assert not any(record.verb in {"create", "patch", "update"} for record in cluster.world.requests[written:])
        scale(cluster, 1)
        await cluster.until_serving()
        assert cluster.columns() == ("True", "True", "True")


async def test_scaled_to_zero_before_the_nodes_are_ready_gives_them_back(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_(phi, replicas=2))
    async with cluster.controller():
        await cluster.world.settle()
        assert len(cluster.claims()) == 2
        scale(cluster, 0)
        await cluster.world.advance(5)
        assert cluster.claims() == []
        assert cluster.conditions()["InferenceReady"][1] == "ScaledToZero"


async def test_a_restart_without_copies_buys_nothing(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_(phi, replicas=1))
    async with cluster.controller():
        await cluster.until_serving()
        scale(cluster, 0)
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        assert cluster.claims() == []
    async with cluster.controller():
        await cluster.world.advance(600)
        assert cluster.claims() == []
        assert "ClaimReplacementPending" not in str(cluster.conditions())


async def test_copies_of_several_nodes_scale_as_a_whole(cluster: "Cluster", phi: Workspace) -> None:
    """The workers of a copy stay while its leader finishes its requests."""
    resource = phi.resource.evolve(instance_type=LARGE_SIZE)
    large = phi.evolve(resource=resource, inference={"preset": {"name": "phi-4"}})
    workers = workers_name(large)
    world = cluster.world
    cluster.apply(with_(large, replicas=2))
    manager = cluster.controller()
    async with manager:
        await cluster.until_serving()
        cluster.serve(workers)
        await world.settle()
        assert len(cluster.claims()) == 4
        assert cluster.workspace().status.selector == f"{SELECTOR},kaito.sh/group-role=leader"
        nodes = [f"node-{claim.name}" for claim in cluster.claims()]
        add_pods(cluster, nodes[0], nodes[1], role=labels.LEADER)
        add_pods(cluster, nodes[2], nodes[3], role=labels.WORKER, workload=workers)
        template = world.get(StatefulSet, NAME).spec.template

        scale(cluster, 1)
        await world.settle()
        assert world.get(StatefulSet, NAME).spec.replicas == 1
        assert world.get(StatefulSet, workers).spec.replicas == 2, "the leader of copy 1 still runs"
        await end_pod(manager, cluster, f"{NAME}-1")
        cluster.serve()
        await world.settle()
        assert world.get(StatefulSet, workers).spec.replicas == 1
        await end_pod(manager, cluster, f"{workers}-1")
        cluster.serve(workers)
        await world.settle()
        await world.advance(60)
        assert len(cluster.claims()) == 2

        scale(cluster, 0)
        await world.settle()
        for name in (f"{NAME}-0", f"{workers}-0"):
            await end_pod(manager, cluster, name)
            await world.settle()
        cluster.serve()
        cluster.serve(workers)
        await world.advance(60)
        assert cluster.claims() == []
        assert world.get(StatefulSet, NAME).spec.template == template
        scale(cluster, 1)
        await cluster.until_serving()
        assert len(cluster.claims()) == 2
        assert world.get(StatefulSet, workers).spec.replicas == 1


def admitting(cluster: "Cluster") -> Manager:
    """Returns a controller process whose admission webhook is on."""
    cluster.world.admit(workspace_webhook(cluster.settings))
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    manager = workspace_manager(
        cluster.settings, runtime, mirrors_count=True, transport=cluster.world.transport(), clock=cluster.world.clock
    )
    cluster.world.track(manager)
    return manager


async def test_admission_sets_the_replicas_from_the_count(cluster: "Cluster", phi: Workspace) -> None:
    async with admitting(cluster):
        cluster.apply(with_(phi, count=2))
        assert cluster.workspace().spec.replicas == 2
        scale(cluster, 5)
        cluster.world.patch(Workspace, NAME, {"resource": {"count": 2}})
        assert cluster.workspace().spec.replicas == 5
        cluster.world.patch(Workspace, NAME, {"resource": {"count": 3}})
        assert cluster.workspace().spec.replicas == 3


async def test_the_annotation_sets_the_replicas_by_the_nodes_of_a_copy(cluster: "Cluster", phi: Workspace) -> None:
    resource = phi.resource.evolve(instance_type=LARGE_SIZE)
    large = phi.evolve(resource=resource, inference={"preset": {"name": "phi-4"}})
    async with admitting(cluster):
        cluster.apply(with_(large, count=3, override="2"))
        await cluster.world.settle()
        assert cluster.workspace().spec.replicas == 1
        scale(cluster, 2)
        await cluster.world.settle()
        assert cluster.workspace().spec.replicas == 2
        cluster.world.patch(Workspace, NAME, {"metadata": {"annotations": {labels.NODE_COUNT_OVERRIDE: "6"}}})
        await cluster.world.settle()
        assert cluster.workspace().spec.replicas == 3


async def test_a_workspace_of_upstream_keeps_its_nodes_and_becomes_scalable(cluster: "Cluster", phi: Workspace) -> None:
    stored = with_(phi, count=3).with_metadata(annotations={labels.REVISION: "1"})
    cluster.apply(stored.evolve(status={"targetNodeCount": 1}))
    async with admitting(cluster):
        await cluster.world.settle()
        assert cluster.workspace().spec.replicas == 1
        assert len(cluster.claims()) == 1


async def test_without_the_webhook_a_changed_count_still_counts(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        assert cluster.workspace().spec.replicas is None
        cluster.world.patch(Workspace, NAME, {"resource": {"count": 2}})
        await cluster.world.settle()
        assert len(cluster.claims()) == 2
