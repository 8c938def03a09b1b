"""Garbage collection: deletes orphans, and nothing else."""

from datetime import timedelta
from typing import TYPE_CHECKING

from kaito.api.karpenter import Machine, NodeClaim
from kaito.cloud.azure.simulator import named
from kaito.runtime.kinds import CustomResourceDefinition, Node
from kaito.runtime.meta import format_time

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


def remove_by_force(stage: "Stage", name: str = "ws1") -> None:
    """Removes claim and nodes without their finalizers."""
    stage.world.patch(stage.kind, name, {"metadata": {"finalizers": None}})
    stage.delete(name)
    for node in stage.nodes:
        if node.labels.get("agentpool") == name:
            stage.world.patch(
                Node, node.name, {"metadata": {"finalizers": None, "labels": {"kaito.sh/managed-by": None}}}
            )
            stage.world.delete(Node, node.name)


async def create_orphan(stage: "Stage") -> None:
    """Creates a pool whose claim is removed while the provisioner is stopped."""
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    remove_by_force(stage)
    assert stage.pools == ["ws1"]


async def test_orphan_is_deleted_after_two_runs(stage: "Stage") -> None:
    await create_orphan(stage)
    await stage.start()
    assert stage.calls("DELETE") == 0, "one run is not enough"
    await stage.until("orphan gone", lambda: not stage.pools, within=500)
    assert "OrphanAgentPoolDeleted" in {event.reason for event in stage.world.events()}


async def test_orphan_that_was_created_with_a_clock_ahead_is_deleted(stage: "Stage") -> None:
    await create_orphan(stage)
    tags = stage.pool().properties["tags"]
    (name,) = [name for name, value in tags.items() if value.startswith("20")]
    tags[name] = format_time(stage.world.now + timedelta(days=1))
    await stage.start()
    await stage.until("orphan gone", lambda: not stage.pools, within=900)


async def test_dry_run_reports_and_deletes_nothing(stage: "Stage") -> None:
    await create_orphan(stage)
    await stage.start(gc_dry_run=True)
    await stage.world.advance(1000)
    assert stage.pools == ["ws1"]
    assert stage.deps is not None
    (metric,) = stage.deps.metrics.orphans.collect()
    assert [sample.value for sample in metric.samples] == [1]


async def test_pools_of_other_owners_are_never_deleted(stage: "Stage") -> None:
    tags = {"kaito-claim-uid": "u", "kaito-claim-kind": stage.kind.kind, "kaito-claim-name": "x"}
    pools = stage.simulator.cluster
    pools.put("system", {"properties": {"vmSize": "Standard_D2s_v5"}})
    pools.put("other", {"properties": {"vmSize": "Standard_D2s_v5", "tags": {**tags, "kaito-installation": "theirs"}}})
    pools.put("labels", {"properties": {"vmSize": "Standard_D2s_v5", "nodeLabels": {"kaito.sh/workspace": "x"}}})
    await stage.start()
    await stage.world.advance(3600)
    assert stage.pools == ["labels", "other", "system"]
    assert not [request for request in stage.simulator.api.requests if request.method == "DELETE"]


async def test_nothing_is_deleted_while_the_definition_of_claims_is_missing(stage: "Stage") -> None:
    """While the CRDs are reinstalled, the API server returns 404 for every claim."""
    await create_orphan(stage)
    await stage.start()
    stage.world.delete(CustomResourceDefinition, f"{stage.kind.plural}.karpenter.sh")
    await stage.world.advance(1200)
    assert stage.pools == ["ws1"]


async def test_number_of_deletions_per_run_is_limited(stage: "Stage") -> None:
    await stage.start()
    names = [f"ws{number}" for number in range(6)]
    for name in names:
        stage.claim(name)
    for name in names:
        await stage.until_ready(name)
    await stage.stop()
    for name in names:
        remove_by_force(stage, name)
    await stage.start(gc_limit=2)
    await stage.world.advance(130)
    deleting = [name for name in stage.pools if stage.pool(name).state == "Deleting"]
    assert len(deleting) == 2
    await stage.until("all gone", lambda: not stage.pools, within=2000)


async def test_failed_deletion_does_not_count_for_the_limit(stage: "Stage") -> None:
    await stage.start()
    for name in ("ws1", "ws2"):
        stage.claim(name)
    for name in ("ws1", "ws2"):
        await stage.until_ready(name)
    await stage.stop()
    for name in ("ws1", "ws2"):
        remove_by_force(stage, name)
    stage.simulator.faults.add(named("server-error", method="DELETE", pool="ws1", times=None))
    await stage.start(gc_limit=5)
    await stage.until("the other gone", lambda: stage.pools == ["ws1"], within=1000)


async def test_claim_is_deleted_after_its_pool_was_deleted_in_the_portal(stage: "Stage") -> None:
    await stage.start()
    claim = stage.claim()
    await stage.until_ready()
    stage.simulator.cluster.delete("ws1")
    await stage.until_gone(within=900)
    assert (stage.pools, stage.nodes) == ([], [])
    assert stage.calls("DELETE") <= 1
    assert {event.reason for event in stage.world.events(claim)} & {"InstanceGone", "NodeUnhealthy"}


async def test_claim_and_pool_are_deleted_after_the_node_was_removed_by_force(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    node = stage.node()
    stage.world.patch(Node, node.name, {"metadata": {"finalizers": None}})
    stage.world.delete(Node, node.name)
    await stage.world.advance(10)
    ready = stage.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "NodeNotFound")
    await stage.until_gone(within=900)
    assert stage.pools == []


async def test_nothing_is_deleted_while_all_nodes_are_unreachable(stage: "Stage") -> None:
    await stage.start()
    for name in ("ws1", "ws2", "ws3"):
        stage.claim(name)
    for name in ("ws1", "ws2", "ws3"):
        await stage.until_ready(name)
    stage.simulator.knobs.set(heartbeat_stop=True)
    await stage.world.advance(3600)
    assert stage.pools == ["ws1", "ws2", "ws3"]
    assert {stage.condition("Ready", name).reason for name in stage.pools} == {"NodeNotReady"}
    stage.simulator.knobs.set(heartbeat_stop=False)
    for name in ("ws1", "ws2", "ws3"):
        await stage.until_ready(name, within=60)


async def test_claims_are_reconciled_although_listing_pools_fails(stage: "Stage") -> None:
    stage.simulator.faults.add(named("server-error", method="GET", path="/agentPools$", times=None))
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.world.advance(600)
    assert stage.get().is_ready


async def test_pools_of_a_kind_that_is_not_reconciled_are_kept(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    other: type[Machine | NodeClaim] = NodeClaim if stage.kind is Machine else Machine
    await stage.start(kinds=(other,))
    await stage.world.advance(1200)
    assert stage.pools == ["ws1"]
    assert stage.nodes
