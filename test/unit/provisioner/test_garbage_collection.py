"""Garbage collection: what the ordinary way left behind goes, and nothing else ever does."""

from typing import TYPE_CHECKING

from kaito.api.karpenter import Machine, NodeClaim
from kaito.cloud.azure.simulator import named
from kaito.runtime.kinds import CustomResourceDefinition, Node

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


def lose(stage: "Stage", name: str = "ws1") -> None:
    """Remove claim and nodes by force, as somebody in a hurry does."""
    stage.world.patch(stage.kind, name, {"metadata": {"finalizers": None}})
    stage.delete(name)
    for node in stage.nodes:
        if node.labels.get("agentpool") == name:
            stage.world.patch(
                Node, node.name, {"metadata": {"finalizers": None, "labels": {"kaito.sh/managed-by": None}}}
            )
            stage.world.delete(Node, node.name)


async def orphaned(stage: "Stage") -> None:
    """A pool of ours whose claim went while nobody looked."""
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    lose(stage)
    assert stage.pools == ["ws1"]


async def test_an_orphan_goes_after_two_scans(stage: "Stage") -> None:
    await orphaned(stage)
    await stage.start()
    assert stage.calls("DELETE") == 0, "one look is not enough"
    await stage.until("orphan gone", lambda: not stage.pools, within=500)
    assert "OrphanAgentPoolDeleted" in {event.reason for event in stage.world.events()}


async def test_a_dry_run_only_reports(stage: "Stage") -> None:
    await orphaned(stage)
    await stage.start(gc_dry_run=True)
    await stage.world.advance(1000)
    assert stage.pools == ["ws1"]
    assert stage.deps is not None
    (metric,) = stage.deps.metrics.orphans.collect()
    assert [sample.value for sample in metric.samples] == [1]


async def test_strangers_pools_are_never_touched(stage: "Stage") -> None:
    tags = {"kaito-claim-uid": "u", "kaito-claim-kind": stage.kind.kind, "kaito-claim-name": "x"}
    pools = stage.simulator.cluster
    pools.put("system", {"properties": {"vmSize": "Standard_D2s_v5"}})
    pools.put("other", {"properties": {"vmSize": "Standard_D2s_v5", "tags": {**tags, "kaito-installation": "theirs"}}})
    pools.put("labels", {"properties": {"vmSize": "Standard_D2s_v5", "nodeLabels": {"kaito.sh/workspace": "x"}}})
    await stage.start()
    await stage.world.advance(3600)
    assert stage.pools == ["labels", "other", "system"]
    assert not [request for request in stage.simulator.api.requests if request.method == "DELETE"]


async def test_a_definition_that_is_gone_costs_nobody_his_machine(stage: "Stage") -> None:
    """Somebody reinstalls the CRDs: for a while the API server answers 404 for every claim."""
    await orphaned(stage)
    await stage.start()
    stage.world.delete(CustomResourceDefinition, f"{stage.kind.plural}.karpenter.sh")
    await stage.world.advance(1200)
    assert stage.pools == ["ws1"]


async def test_only_a_few_go_at_once(stage: "Stage") -> None:
    await stage.start()
    names = [f"ws{number}" for number in range(6)]
    for name in names:
        stage.claim(name)
    for name in names:
        await stage.until_ready(name)
    await stage.stop()
    for name in names:
        lose(stage, name)
    await stage.start(gc_limit=2)
    await stage.world.advance(130)
    deleting = [name for name in stage.pools if stage.pool(name).state == "Deleting"]
    assert len(deleting) == 2
    await stage.until("all gone", lambda: not stage.pools, within=2000)


async def test_one_that_cannot_be_deleted_does_not_keep_the_others(stage: "Stage") -> None:
    await stage.start()
    for name in ("ws1", "ws2"):
        stage.claim(name)
    for name in ("ws1", "ws2"):
        await stage.until_ready(name)
    await stage.stop()
    for name in ("ws1", "ws2"):
        lose(stage, name)
    stage.simulator.faults.add(named("server-error", method="DELETE", pool="ws1", times=None))
    await stage.start(gc_limit=5)
    await stage.until("the other gone", lambda: stage.pools == ["ws1"], within=1000)


async def test_a_claim_whose_pool_was_deleted_at_the_portal_goes_too(stage: "Stage") -> None:
    await stage.start()
    claim = stage.claim()
    await stage.until_ready()
    stage.simulator.cluster.delete("ws1")
    await stage.until_gone(within=900)
    assert (stage.pools, stage.nodes) == ([], [])
    assert stage.calls("DELETE") <= 1
    assert {event.reason for event in stage.world.events(claim)} & {"InstanceGone", "NodeUnhealthy"}


async def test_a_claim_whose_node_object_was_forced_away_goes_with_its_machine(stage: "Stage") -> None:
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


async def test_a_partition_of_all_nodes_deletes_nothing(stage: "Stage") -> None:
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


async def test_a_cloud_that_does_not_list_stops_no_claim(stage: "Stage") -> None:
    stage.simulator.faults.add(named("server-error", method="GET", path="/agentPools$", times=None))
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.world.advance(600)
    assert stage.get().is_ready


async def test_a_process_for_one_kind_does_not_judge_the_other(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    other: type[Machine | NodeClaim] = NodeClaim if stage.kind is Machine else Machine
    await stage.start(kinds=(other,))
    await stage.world.advance(1200)
    assert stage.pools == ["ws1"]
    assert stage.nodes
