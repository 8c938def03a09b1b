"""The whole life of a Workspace, on the in-memory API server in virtual time, over both kinds of claims."""

from typing import TYPE_CHECKING

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Service, StatefulSet
from kaito.runtime.testing.simulate.wall_clock import ProcessClock
from kaito.workspace.steps.status import NEW_WORKLOAD_SECONDS

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster


async def test_a_workspace_becomes_ready(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await world.settle()
        claim = cluster.claim()
        assert claim.instance_type == "Standard_NC6s_v3"
        assert cluster.columns() == ("False", "False", "False")
        assert cluster.workspace().status.state == "Pending"

        node = cluster.join(claim)
        await world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns() == ("True", "False", "False")
        assert cluster.workspace().status.worker_nodes == [node.name]
        workload = world.get(StatefulSet, phi.name)
        assert workload.spec.replicas == 1
        service = world.get(Service, phi.name)
        assert [(p.port, p.target_port) for p in service.spec.ports] == [(80, 5000), (29500, 29500)]

        cluster.serve()
        await world.settle()
        assert cluster.columns() == ("True", "True", "True")
        status = cluster.workspace().status
        assert (status.state, status.target_node_count) == ("Ready", 1)
        assert status.observed_generation == cluster.workspace().metadata.generation


async def test_an_unchanged_cluster_causes_no_requests(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.clear_requests()
        await cluster.world.advance(3590)
        written = [r for r in cluster.world.requests if r.method != "GET"]
        assert written == []
        await cluster.world.advance(3600)
        written = [r for r in cluster.world.requests if r.method != "GET"]
        assert [r.subresource for r in written] == ["status"], "once an hour, the cost"


async def test_a_workspace_causes_few_requests(cluster: "Cluster", phi: Workspace) -> None:
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.clear_requests()
        cluster.apply(phi)
        await cluster.until_serving()
        world = cluster.world
        assert world.count("create", cluster.kind) == 1
        assert world.count("patch", Service) == 2
        assert world.count("create", StatefulSet) == 1  # the dry run before the claim
        assert world.count("patch", StatefulSet) == 1
        assert world.count("patch", Workspace, subresource="status") == 2
        assert world.events() == []
        assert world.count("patch", Workspace, subresource="") == 1  # the finalizer
        assert [r for r in world.requests if r.status == 409] == []


async def test_a_start_that_takes_longer_is_reported_within_a_second_and_by_events(
    cluster: "Cluster", phi: Workspace
) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await world.settle()
        cluster.join(cluster.claim())
        await world.settle()
        assert cluster.columns()[0] == "False", "deferred"
        await world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns() == ("True", "False", "False")
        assert [event.reason for event in world.events()] == ["ResourcesReady"]
        await world.advance(600)
        cluster.serve()
        await world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert [event.reason for event in world.events()] == ["ResourcesReady", "InferenceReady"]


async def test_a_restart_after_the_creation_of_the_workload_writes_the_status(
    cluster: "Cluster", phi: Workspace
) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await world.settle()
        cluster.join(cluster.claim())
        await world.settle()
        assert world.find(StatefulSet, phi.name) is not None
        assert cluster.columns()[0] == "False"
    async with cluster.controller():
        await world.settle()
        assert cluster.columns()[0] == "True"


async def test_a_deleted_workload_is_created_again_with_an_event(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        world.delete(StatefulSet, phi.name)
        await world.settle()
        assert cluster.columns() == ("True", "False", "False"), "reported at once"
        assert {"StatefulSetCreated", "InferenceNotReady"} <= {event.reason for event in world.events()}


async def test_conditions_that_recover_together_have_one_event(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        (node,) = cluster.workspace().status.worker_nodes
        cluster.node_ready(node, "False", "kubelet stopped")
        await world.settle()
        assert cluster.columns()[0] == "False"
        cluster.node_ready(node, "True")
        await world.settle()
        assert cluster.columns()[0] == "True"
        normal = [event for event in world.events() if event.type == "Normal"]
        assert len(normal) == 1
        assert "1 of 1 nodes ready" in normal[0].note


async def test_deletion_removes_workload_then_claims_then_the_workspace(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        claim = cluster.claim()
        world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        world.delete(Workspace, phi.name)
        await world.settle()
        assert world.find(StatefulSet, phi.name) is None
        assert cluster.claim().deleting
        assert cluster.conditions()["WorkspaceDeleting"][:2] == ("True", "WaitingForClaims")
        assert claim.name in cluster.conditions()["WorkspaceDeleting"][2]

        world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": []}})
        await world.settle()
        assert world.find(Workspace, phi.name) is None
        assert cluster.claims() == []


async def test_deletion_while_provisioning_leaves_no_claim(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        assert len(cluster.claims()) == 1
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        assert cluster.claims() == []
        assert cluster.world.find(Workspace, phi.name) is None


async def test_a_broken_provisioner_cannot_block_the_deletion(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await world.settle()
        claim = cluster.claim()
        world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        world.delete(Workspace, phi.name)
        await world.advance(1100)
        assert world.find(Workspace, phi.name) is not None
        await world.advance(200)
        assert world.find(Workspace, phi.name) is None
        assert any(e.reason == "DeletionTimedOut" and claim.name in (e.note or "") for e in world.events())


async def test_a_clock_that_is_ahead_does_not_end_a_deletion(cluster: "Cluster", phi: Workspace) -> None:
    world, clock = cluster.world, ProcessClock(cluster.world.clock)
    cluster.apply(phi)
    async with cluster.controller(clock=clock):
        await world.settle()
        world.patch(cluster.kind, cluster.claim().name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        clock.offset_seconds = 3600.0
        world.delete(Workspace, phi.name)
        await world.advance(1100)
        assert world.find(Workspace, phi.name) is not None
        await world.advance(200)
        assert world.find(Workspace, phi.name) is None


async def test_a_rejected_deletion_is_reported_with_the_servers_message(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.fail_next("DELETE", cluster.kind, status=403, message="claims are protected today", times=2)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        assert cluster.conditions()["WorkspaceDeleting"][0] == "True"
        assert "claims are protected today" in cluster.conditions()["WorkspaceDeleting"][2]
        await cluster.world.advance(10)
        assert cluster.world.find(Workspace, phi.name) is None
        assert cluster.claims() == []
