"""Spot evictions: the notice of the cloud, the replacement, and what happens if evictions do not end."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.runtime.kinds import Event, Namespace, Node
from kaito.workspace.claim_policy import ProvisionAttempts

if TYPE_CHECKING:
    from test.unit.scenarios.conftest import System

A10, A10_2 = "Standard_NV36ads_A10_v5", "Standard_NV72ads_A10_v5"
NOTICE_SECONDS = 30.0


def evict(system: "System", *pools: str) -> None:
    for pool in pools:
        system.simulator.knobs.set(pool, evicted_after=NOTICE_SECONDS)


def attempts(system: "System") -> ProvisionAttempts:
    return ProvisionAttempts.from_annotations(system.workspace().annotations)


async def served(system: "System", *, replicas: int = 1, **resource: Any) -> list[str]:
    """Starts a Workspace on spot nodes; returns its agent pools."""
    await system.start()
    system.apply(instanceType=A10, capacityType="spot", count=replicas, **resource)
    await system.until("ready", system.is_ready)
    await system.world.advance(700)
    return sorted(system.pools)


async def test_the_replacement_begins_at_the_notice(system: "System") -> None:
    """The claim of the evicted node is deleted, which drains it, and the next one is created in the same reconcile."""
    (evicted,) = await served(system)
    (former,), (node,) = system.claims(), system.world.list(Node)
    evict(system, evicted)
    await system.world.advance(5)
    assert {claim.name: claim.deleting for claim in system.claims()}[former.name]
    assert len([claim for claim in system.claims() if not claim.deleting]) == 1
    assert len(system.puts) == 2
    found = [each.note for each in system.world.list(Event) if each.reason.endswith("GivenUp")]
    assert f"the cloud evicts node {node.name}: Preempt Scheduled: Tue, 01 Jan 2030" in found[0]
    assert len(found) == 1
    await system.until("the evicted pool to be deleted", lambda: evicted not in system.pools)
    assert await system.until("ready", system.is_ready) < 600
    assert len(system.puts) == 2
    assert len(system.world.list(Node)) == 1


@pytest.mark.slow("test_the_replacement_begins_at_the_notice")
async def test_only_the_evicted_copy_is_replaced(system: "System") -> None:
    pools = await served(system, replicas=3)
    evict(system, pools[1])
    await system.until("replaced", lambda: pools[1] not in system.pools and len(system.pools) == 3)
    await system.until("ready", system.is_ready)
    await system.world.advance(600)
    assert {pools[0], pools[2]} <= set(system.pools)
    assert len(system.puts) == 4


@pytest.mark.slow("test_the_replacement_begins_at_the_notice")
async def test_all_copies_are_evicted_at_once(system: "System") -> None:
    pools = await served(system, replicas=2)
    evict(system, *pools)
    await system.world.advance(5)
    assert len(system.puts) == 4
    await system.until("ready", lambda: not set(pools) & set(system.pools) and system.is_ready())
    await system.world.advance(600)
    assert len(system.pools) == 2
    assert len(system.puts) == 4


@pytest.mark.slow("test_the_replacement_begins_at_the_notice")
async def test_repeated_evictions_are_replaced_with_growing_pauses(system: "System") -> None:
    """Every node is evicted as soon as it runs."""
    await served(system)
    before = len(system.puts)
    evict(system, ".*")
    await system.world.advance(2 * 3600)
    assert attempts(system).failures >= 4
    assert 4 <= len(system.puts) - before <= 8
    assert len([claim for claim in system.claims() if not claim.deleting]) <= 1
    system.simulator.knobs.clear()
    system.simulator.knobs.set(heartbeat_seconds=3600)
    await system.until("ready", system.is_ready, within=2400, step=20)


async def test_a_spot_preferred_workspace_continues_on_demand_without_spot_capacity(system: "System") -> None:
    await system.start()
    system.apply(instanceType=A10, capacityType="spot-preferred")
    await system.until("ready", system.is_ready)
    (evicted,) = system.pools
    assert system.simulator.cluster.pools[evicted].spot
    system.simulator.cluster.quota["lowprioritycores"] = 0
    evict(system, evicted)
    await system.until("ready", lambda: evicted not in system.pools and system.is_ready(), within=3600)
    (pool,) = system.simulator.cluster.pools.values()
    assert not pool.spot


def spot_pools(system: "System") -> list[str]:
    return [name for name, pool in system.simulator.cluster.pools.items() if pool.spot]


@pytest.mark.slow("test_a_spot_preferred_workspace_continues_on_demand_without_spot_capacity")
async def test_copies_on_spot_and_on_demand_nodes_are_mixed(system: "System") -> None:
    """All spot nodes are evicted at once, and the on-demand copy serves."""
    await system.start()
    system.apply(instanceType=A10, capacityType="spot-preferred", onDemandCopies=1, count=3)
    await system.until("ready", system.is_ready)
    evicted = spot_pools(system)
    (kept,) = system.pools.keys() - set(evicted)
    assert len(evicted) == 2
    evict(system, *evicted)
    await system.until("ready", lambda: not set(evicted) & set(system.pools) and system.is_ready())
    assert kept in system.pools
    assert len(spot_pools(system)) == 2
    assert len(system.puts) == 5


@pytest.mark.slow("test_a_spot_preferred_workspace_continues_on_demand_without_spot_capacity")
async def test_no_quota_for_the_on_demand_copy_causes_no_loop(system: "System") -> None:
    """The spot offering of the first alternative is not out of stock, so that the Workspace stays there."""
    cluster = system.simulator.cluster
    family = next(size.family for size in cluster.catalog.sizes.values() if size.name == A10)
    cluster.quota[family.lower()] = 0
    await system.start()
    system.apply(instanceTypes=[A10, A10_2], capacityType="spot-preferred", onDemandCopies=1, count=2)
    await system.world.advance(3600)
    assert len(spot_pools(system)) == 1
    assert len(system.puts) <= 6
    assert "QuotaExceeded" in {system.condition(each)[1] for each in ("MachineReady", "NodeClaimReady")}
    cluster.quota.clear()
    await system.until("ready", system.is_ready, within=3600, step=20)


@pytest.mark.slow("test_the_replacement_begins_at_the_notice")
async def test_a_restart_at_the_notice_replaces_the_node_once(system: "System") -> None:
    (evicted,) = await served(system)
    await system.stop_controller()
    evict(system, evicted)
    await system.world.advance(3)
    await system.start_controller()
    await system.stop_controller()
    await system.start_controller()
    await system.until("ready", lambda: evicted not in system.pools and system.is_ready())
    await system.world.advance(600)
    assert len(system.puts) == 2


@pytest.mark.slow("test_karpenter_deletes_the_claim_of_a_spot_node")
async def test_an_eviction_without_a_running_controller_ends_in_a_replacement(system: "System") -> None:
    """The node is gone when the controller starts again."""
    (evicted,) = await served(system)
    await system.stop_controller()
    evict(system, evicted)
    await system.until("the node to be gone", lambda: not system.world.list(Node))
    await system.start_controller()
    await system.until("ready", lambda: system.pools.keys() - {evicted} != set() and system.is_ready(), within=7200)
    assert len(system.puts) == 2


async def test_karpenter_deletes_the_claim_of_a_spot_node(system: "System") -> None:
    """Its interruption controller deletes the claim at the notice, and the replacement does not wait for the end."""
    (evicted,) = await served(system)
    (claim,) = system.claims()
    system.world.delete(system.kind, claim.name)
    await system.world.advance(5)
    assert len(system.puts) == 2
    await system.until("ready", lambda: evicted not in system.pools and system.is_ready())


@pytest.mark.slow("test_the_replacement_begins_at_the_notice")
async def test_the_budget_allows_the_replacement(system: "System") -> None:
    """The evicted node counts until it is gone; the Workspace does not become more expensive."""
    change = {"metadata": {"annotations": {labels.HOURLY_BUDGET: "2"}}}
    system.world.patch(Namespace, "default", change)
    (evicted,) = await served(system, maxHourlyCost="2.00")
    evict(system, evicted)
    await system.world.advance(5)
    assert len(system.puts) == 2
    await system.until("ready", lambda: evicted not in system.pools and system.is_ready())
