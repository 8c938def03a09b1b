"""Cost in status and metrics: accumulated over nodes that come and go, restarts, unknown and changed prices."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from kaito.api import Workspace
from kaito.api.workspace import CostStatus, EndedCost, NodeCost
from kaito.prices.price import Price
from kaito.runtime.kinds import Node
from kaito.workspace.cost_ledger import Instance, account, has_changed, idle_share, total_at
from kaito.workspace.figures import WorkspaceFigures
from kaito.workspace.metrics import WorkspaceMetrics

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def price(amount: str = "3", currency: str = "USD") -> Price:
    return Price(
        per_hour=Decimal(amount), currency=currency, capacity_type="on-demand", source="table", as_of=date(2029, 12, 1)
    )


def instance(name: str = "a", hours: float = 0.0, cost: Price | None = price()) -> Instance:
    return Instance(name=name, since=START + hours * HOUR, price=cost)


def after(before: CostStatus | None, *instances: Instance, hours: float, seen: set[str] | None = None) -> CostStatus:
    found = account(before, instances, now=START + hours * HOUR, seen={"a", "b"} if seen is None else seen)
    assert found is not None
    return found


def test_no_node_has_no_account() -> None:
    assert account(None, (), now=START) is None


def test_two_nodes_of_which_one_ends() -> None:
    first = after(None, instance("a"), instance("b", 1, price("0.5")), hours=2)
    assert (first.per_hour, first.total, first.node_hours) == ("3.5", "6.5", "3")
    assert (first.currency, first.source, first.price_date) == ("USD", "table", "2029-12-01")
    second = after(first, instance("b", 1, price("0.5")), hours=3)
    assert (second.per_hour, second.total, second.node_hours) == ("0.5", "10", "5")
    assert second.ended == EndedCost(total="9", node_hours="3")
    third = after(second, hours=4)
    assert (third.per_hour, third.total, third.nodes) == ("0", "10.5", [])
    assert after(third, hours=400).total == "10.5", "nothing runs, so that nothing is added"


def test_the_account_is_the_same_if_it_is_computed_again() -> None:
    """The write may be lost, or repeated by the next process."""
    first = after(None, instance("a"), hours=1)
    assert after(first, hours=2) == after(first, hours=2)
    assert after(after(first, hours=2), hours=2).total == "6"


def test_the_end_of_a_node_while_no_controller_ran_is_that_of_the_last_account() -> None:
    first = after(None, instance("a"), hours=1)
    assert after(first, hours=60, seen=set()).total == "3"
    assert after(first, hours=60).total == "180"


def test_a_price_that_changes_applies_from_then_on() -> None:
    first = after(None, instance("a"), hours=1)
    second = after(first, instance("a", cost=price("5")), hours=2)
    assert (second.per_hour, second.total) == ("5", "6")
    assert after(second, instance("a", cost=price("5")), hours=3).total == "11"


def test_an_unknown_price_is_absent_and_not_0() -> None:
    first = after(None, instance("a"), instance("b", cost=None), hours=2)
    assert (first.per_hour, first.total, first.node_hours) == (None, None, "4")
    assert "perHour" not in first.to_dict()
    assert "total" not in first.to_dict()
    ended = after(first, instance("a"), hours=3)
    assert (ended.per_hour, ended.total, ended.ended.unpriced_node_hours) == ("3", None, "3")
    assert total_at(ended, START + 4 * HOUR) is None


def test_a_price_that_becomes_known_applies_from_the_beginning() -> None:
    """The region is known only once the node has joined."""
    first = after(None, instance("a", cost=None), hours=1)
    assert after(first, instance("a"), hours=2).total == "6"


def test_a_price_that_cannot_be_read_any_more_stays() -> None:
    """The labels of a node that is deleted before its instance are gone."""
    first = after(None, instance("a"), hours=1)
    assert after(first, instance("a", cost=None), hours=2).total == "6"


def test_another_currency_is_unknown() -> None:
    first = after(None, instance("a"), hours=1)
    second = after(first, instance("a"), instance("b", 1, price("2", "EUR")), hours=2)
    assert (second.currency, second.per_hour, second.total) == ("USD", None, None)


def test_a_new_node_under_the_same_name_is_another_node() -> None:
    first = after(None, instance("a"), hours=1)
    second = after(first, instance("a", 5), hours=6, seen=set())
    assert second.total == "6", "one hour of the first node, and one of the second"


def test_a_clock_that_is_behind_that_of_the_api_server() -> None:
    """The node began in the future of this process: it is one node, and nothing is written again until then."""
    ahead = instance("a", 1.5)
    first = after(None, ahead, hours=1)
    second = after(first, ahead, hours=1.25)
    assert (first.total, second.total) == ("0", "0")
    assert not has_changed(first, second)
    third = after(second, ahead, hours=2)
    assert (third.total, third.nodes) == ("1.5", first.nodes)


def test_only_time_is_no_change() -> None:
    first = after(None, instance("a"), hours=1)
    assert not has_changed(first, after(first, instance("a"), hours=2))
    assert has_changed(first, after(first, instance("a"), instance("b"), hours=2))
    assert has_changed(first, after(first, hours=2))


def test_edited_amounts_do_not_stop_the_account() -> None:
    odd = CostStatus(
        currency="USD",
        total="x",
        updated_at=START,
        ended=EndedCost(total="NaN", node_hours="Infinity"),
        nodes=[NodeCost(name="a", since=START, per_hour="x")],
    )
    assert after(odd, instance("a"), hours=1).per_hour == "3"


def _workspace(**status: Any) -> Workspace:
    document = {
        "metadata": {"name": "w", "namespace": "default"},
        "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"preset": {"name": "phi-4"}},
        "status": status,
    }
    return Workspace.model_validate(document)


NODES = [{"name": name, "since": "2030-01-01T00:00:00Z", "perHour": "2"} for name in "abcd"]


@pytest.mark.parametrize(
    ("status", "share", "reason"),
    [
        ({"replicas": 2, "readyReplicas": 2, "targetNodeCount": 4}, 0, "not-serving"),
        ({"replicas": 2, "readyReplicas": 1, "targetNodeCount": 4}, 0.5, "not-serving"),
        ({"replicas": 0, "readyReplicas": 0, "targetNodeCount": 4}, 1, "not-serving"),
        ({"replicas": 1, "readyReplicas": 1, "targetNodeCount": 2}, 0.5, "not-serving"),
        ({"replicas": 28, "readyReplicas": 28, "targetNodeCount": 4}, 0, "not-serving"),
        ({"replicas": 28, "readyReplicas": 7, "targetNodeCount": 4}, 0.75, "not-serving"),
    ],
)
def test_idle_nodes_of_an_inference_workspace(status: dict[str, Any], share: float, reason: str) -> None:
    found = idle_share(_workspace(cost={"nodes": NODES}, **status))
    assert found == (Decimal(str(share)), reason)


def test_idle_nodes_of_tuning() -> None:
    def tuning(state: str) -> Workspace:
        spec = {"preset": {"name": "phi-4"}, "method": "lora", "input": {"urls": ["https://x/y"]}}
        document = _workspace(state=state, cost={"nodes": NODES}).to_dict()
        del document["inference"]
        return Workspace.model_validate(document | {"tuning": spec | {"output": {"image": "r/i:1"}}})

    assert idle_share(tuning("Running")) == (Decimal(0), "tuning-not-running")
    assert idle_share(tuning("Pending")) == (Decimal(1), "tuning-not-running")
    assert idle_share(tuning("Succeeded")) == (Decimal(1), "tuning-finished")
    assert idle_share(tuning("Failed")) == (Decimal(1), "tuning-finished")


def test_metrics_are_computed_at_the_time_of_the_scrape() -> None:
    cost = {
        "currency": "USD",
        "perHour": "8",
        "total": "8",
        "updatedAt": "2030-01-01T01:00:00Z",
        "nodes": NODES,
        "ended": {"total": "10", "nodeHours": "5", "unpricedNodeHours": "0"},
    }
    serving = _workspace(cost=cost, replicas=2, readyReplicas=1, targetNodeCount=4)
    unknown = serving.evolve(metadata=serving.metadata.evolve(name="u"), status=serving.status.evolve(cost=None))
    unpriced = after(None, instance("a", cost=None), hours=1)
    other = serving.evolve(metadata=serving.metadata.evolve(name="o"), status=serving.status.evolve(cost=unpriced))
    registry, metrics = CollectorRegistry(), WorkspaceMetrics()
    metrics.register(registry, lambda: map(WorkspaceFigures.of, [serving, unknown, other]), lambda: START + 3 * HOUR)
    names = {"namespace": "default", "name": "w"}
    money = names | {"currency": "USD"}
    assert registry.get_sample_value("kaito_workspace_cost_per_hour", money) == 8
    idle = money | {"reason": "not-serving"}
    assert registry.get_sample_value("kaito_workspace_idle_cost_per_hour", idle) == 4
    assert registry.get_sample_value("kaito_workspace_cost", money) == 34, "10 of ended nodes, and 3 hours of 8"
    assert registry.get_sample_value("kaito_workspace_unpriced_nodes", names) == 0
    assert registry.get_sample_value("kaito_workspace_unpriced_nodes", names | {"name": "o"}) == 1
    assert registry.get_sample_value("kaito_workspace_cost", money | {"name": "o"}) is None
    metrics.set_orphans([price("2"), price("2"), None])
    assert registry.get_sample_value("kaito_orphan_nodes") == 3
    assert registry.get_sample_value("kaito_orphan_cost_per_hour", {"currency": "USD"}) == 4
    metrics.set_orphans([])
    assert registry.get_sample_value("kaito_orphan_cost_per_hour", {"currency": "USD"}) is None


@pytest.fixture
def a100(phi: Workspace) -> Workspace:
    return phi.evolve(resource=phi.resource.evolve(instance_type="Standard_NC24ads_A100_v4"))


async def test_the_status_has_the_cost_and_is_written_once_an_hour(cluster: "Cluster", a100: Workspace) -> None:
    cluster.apply(a100)
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.workspace().status.cost is None
        cluster.join(cluster.claim())
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        cost = cluster.workspace().status.cost
        assert cost is not None
        assert (cost.per_hour, cost.currency, len(cost.nodes)) == ("3.673", "USD", 1)
        cluster.world.clear_requests()
        await cluster.world.advance(3590)
        assert cluster.world.count("patch", Workspace) == 0
        await cluster.world.advance(20)
        assert cluster.world.count("patch", Workspace) == 1
        await cluster.world.advance(3 * 3600)
        assert cluster.world.count("patch", Workspace) == 4
        cost = cluster.workspace().status.cost
        assert cost is not None
        assert cost.total is not None
        assert float(cost.total) == pytest.approx(4 * 3.67, rel=0.01)


@pytest.mark.slow("test_the_status_has_the_cost_and_is_written_once_an_hour")
async def test_the_cost_survives_restarts_and_lost_nodes(cluster: "Cluster", a100: Workspace) -> None:
    cluster.apply(a100)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.join(cluster.claim())
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.advance(7200)
    await cluster.world.advance(3600)  # no controller: the node still costs money
    async with cluster.controller():
        await cluster.world.advance(3600)
        claim = cluster.claim()
        cluster.world.delete(cluster.kind, claim.name)
        cluster.world.delete(Node, f"node-{claim.name}", "")
        await cluster.world.settle()
        cost = cluster.workspace().status.cost
        assert cost is not None
        assert (cost.per_hour, cost.nodes) == ("0", [])
        assert cost.total is not None
        assert float(cost.total) == pytest.approx(4 * 3.67, rel=0.01)
        await cluster.world.advance(7200)
        again = cluster.workspace().status.cost
        assert again is not None
        assert again.ended.node_hours == cost.ended.node_hours, "a node that is gone is counted once"


async def test_nodes_of_an_unknown_region_have_no_amounts(cluster: "Cluster", phi: Workspace) -> None:
    """A Workspace whose region is unknown has node hours and no amounts."""
    cluster.region = ""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cost = cluster.workspace().status.cost
    assert cost is not None
    assert (cost.per_hour, cost.total, cost.currency) == (None, None, "")
    assert [node.per_hour for node in cost.nodes] == [None]
