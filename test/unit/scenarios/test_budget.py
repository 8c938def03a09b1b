"""Limits of the cost: of a Workspace, and of all Workspaces of a namespace."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Claim, Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.kinds import Namespace
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import CrashPoint
from kaito.workspace.budget import Reservation
from kaito.workspace.manifests.claim import node_claim

if TYPE_CHECKING:
    from test.unit.scenarios.conftest import System

A100, A100_2, H100 = "Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4", "Standard_NC40ads_H100_v5"
PRESET = "qwen2.5-coder-32b-instruct"
HOUR = 3600.0

pytestmark = pytest.mark.timeout(240)
"""Hours of virtual time are many reconciles."""
PRICES = f"""
prices:
- {{region: eastus, instanceType: {A100}, onDemand: 4, spot: 1}}
- {{region: eastus, instanceType: {H100}, onDemand: 7}}
"""


@pytest.fixture(autouse=True)
def prices(system: "System") -> None:
    system.prices = PriceBook(own=parse_table(PRICES, "own"))


def budget(system: "System", text: str | None) -> None:
    annotations = {} if text is None else {labels.HOURLY_BUDGET: text}
    system.world.put(Namespace(metadata=ObjectMeta(name="default", annotations=annotations)))


def claims(system: "System", name: str = "w") -> list[str]:
    return sorted(claim.instance_type for claim in system.claims() if claim.labels[labels.WORKSPACE] == name)


def reserved_nodes(system: "System") -> int:
    found = Reservation.from_annotations(system.workspace().annotations)
    return found.nodes if found is not None else 0


async def test_above_the_limit_nothing_is_bought(system: "System") -> None:
    await system.start()
    system.apply(preset=PRESET, instanceType=A100, count=3, maxHourlyCost="10.50")
    await system.world.advance(600)
    assert system.puts == []
    assert system.claims() == []
    status, reason, message = system.condition("ResourceReady")
    assert (status, reason) == ("False", "BudgetExceeded")
    assert message == (
        f"resource.maxHourlyCost: 3 nodes of {A100} (on-demand) cost 12.00 USD per hour, 1.50 USD more than "
        "resource.maxHourlyCost 10.50: raise it, request fewer copies, or choose a cheaper instance type"
    )
    system.world.patch(Workspace, "w", {"resource": {"maxHourlyCost": "12"}})
    await system.until("ready", system.is_ready)
    assert claims(system) == [A100] * 3


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("table", "region", "message"),
    [
        (PRICES, "westeurope", f"the price of {A100} (on-demand) in westeurope is unknown: add it to the table"),
        (PRICES, "", f"the price of {A100} (on-demand) is unknown, because the controller has no --region: set it"),
        (
            "currency: EUR\nprices: [{region: eastus, instanceType: other, onDemand: 1}]",
            "eastus",
            f"the price of {A100} (on-demand) in eastus is known only in USD, and limits are in EUR: add it",
        ),
    ],
)
@pytest.mark.parametrize("has_budget", [True, False])
async def test_an_unknown_price_is_not_zero(
    system: "System", table: str, region: str, message: str, has_budget: bool
) -> None:
    system.prices = PriceBook(own=parse_table(table, "own"))
    system.settings = system.settings.model_copy(update={"region": region})
    if has_budget:
        budget(system, "1000")
    await system.start()
    system.apply(preset=PRESET, instanceType=A100, **({} if has_budget else {"maxHourlyCost": "1000"}))
    await system.world.advance(60)
    assert system.claims() == []
    assert message in system.condition("ResourceReady")[2]


async def test_alternatives_above_the_limit_are_passed_over(system: "System") -> None:
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100_2, H100, A100], maxHourlyCost="5")
    await system.until("ready", system.is_ready)
    assert claims(system) == [A100]
    message = system.condition("ModelResolved")[2]
    assert f"{H100}: 1 node of {H100} (on-demand) costs 7.00 USD per hour, 2.00 USD more than" in message
    assert f"{A100_2}: 1 node of {A100_2} (on-demand) costs 7.35 USD per hour" in message


@pytest.mark.slow("test_above_the_limit_nothing_is_bought")
async def test_only_spot_is_within_the_limit(system: "System") -> None:
    """Without spot capacity, on-demand nodes of the first one are too expensive, and so is the other one."""
    system.out_of_stock(A100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100, H100], capacityType="spot-preferred", maxHourlyCost="2")
    await system.world.advance(HOUR)
    assert claims(system) == [A100]
    (claim,) = system.claims()
    assert claim.spec.values(labels.CAPACITY_TYPE) == ("spot",)
    system.in_stock(A100)
    await system.until("ready", system.is_ready, within=2 * HOUR)


@pytest.mark.slow("test_a_cheaper_alternative_fits_into_the_rest_of_the_budget")
async def test_two_workspaces_at_once_do_not_exceed_the_budget_together(system: "System") -> None:
    budget(system, "10")
    await system.start()
    for name in ("a", "b", "c", "d"):
        system.apply(name, preset=PRESET, instanceType=A100)
    await system.world.settle()
    assert len(system.claims()) == 2
    await system.world.advance(600)
    assert len(system.claims()) == 2
    refused = [name for name in "abcd" if system.condition("ResourceReady", name)[1] == "BudgetExceeded"]
    assert len(refused) == 2
    message = system.condition("ResourceReady", refused[0])[2]
    assert "costs 4.00 USD per hour, 2.00 USD more than the annotation kaito.sh/hourly-budget of namespace" in message
    bought = next(name for name in "abcd" if name not in refused)
    system.world.delete(Workspace, bought, "default")
    await system.until("the next one", lambda: any(claims(system, name) for name in refused))
    await system.world.advance(600)
    assert len(system.claims()) == 2


async def test_a_cheaper_alternative_fits_into_the_rest_of_the_budget(system: "System") -> None:
    budget(system, "11")
    await system.start()
    for name in ("a", "b"):
        system.apply(name, preset=PRESET, instanceTypes=[H100, A100])
    await system.until("both", lambda: system.is_ready("a") and system.is_ready("b"))
    assert sorted([*claims(system, "a"), *claims(system, "b")]) == [A100, H100]


@pytest.mark.slow("test_above_the_limit_nothing_is_bought")
async def test_the_budget_is_lowered_and_raised_in_the_middle(system: "System") -> None:
    """Nodes that exist stay; further copies wait, and are bought at once when the budget allows them."""
    budget(system, "10")
    await system.start()
    system.apply(preset=PRESET, instanceType=A100, count=2)
    await system.until("ready", system.is_ready)
    budget(system, "3")
    system.world.patch(Workspace, "w", {"spec": {"replicas": 3}})
    await system.world.advance(600)
    assert claims(system) == [A100] * 2
    status, reason, message = system.condition("ResourceReady")
    assert (status, reason) == ("False", "BudgetExceeded")
    assert "3 nodes" in message
    assert "the next claim is created at" in message
    budget(system, "12")
    await system.world.settle()
    assert claims(system) == [A100] * 3


async def test_two_workspaces_that_lost_their_nodes_do_not_wait_for_each_other(system: "System") -> None:
    """The lowered budget allows one of two nodes, and both are lost."""
    budget(system, "8")
    await system.start()
    for name in ("a", "b"):
        system.apply(name, preset=PRESET, instanceType=A100)
    await system.until("both", lambda: system.is_ready("a") and system.is_ready("b"))
    budget(system, "4")
    for claim in system.claims():
        system.world.delete(system.kind, claim.name)
    await system.until("one of them", lambda: system.is_ready("a") != system.is_ready("b"))
    assert len(system.claims()) == 1


@pytest.mark.slow("test_above_the_limit_nothing_is_bought")
async def test_a_lost_node_beyond_the_budget_is_not_replaced(system: "System") -> None:
    budget(system, "4")
    await system.start()
    system.apply(preset=PRESET, instanceType=A100)
    await system.until("ready", system.is_ready)
    budget(system, "3.99")
    (claim,) = system.claims()
    system.world.delete(system.kind, claim.name)
    await system.world.advance(1200)
    assert system.claims() == []
    budget(system, "4.00")
    await system.until("ready", lambda: bool(system.claims()) and system.is_ready())


async def test_a_refused_attempt_does_not_reduce_the_reservation_of_the_next(
    system: "System", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Workspace releases its part between two attempts to write the record."""
    excess = ["4.00 USD more"]

    async def find_excess(*_: object) -> str:
        if not excess:
            return ""
        system.world.fail_next("PATCH", Workspace, status=409)
        return excess.pop()

    reserved: list[int] = []

    def render(*given: Any, **places: Any) -> Claim:
        reserved.append(reserved_nodes(system))
        return node_claim(*given, **places)

    monkeypatch.setattr("kaito.workspace.steps.claims.find_excess", find_excess)
    monkeypatch.setattr("kaito.workspace.steps.claims.node_claim", render)
    budget(system, "4")
    await system.start()
    system.apply(preset=PRESET, instanceType=A100)
    await system.world.settle()
    assert len(system.claims()) == 1
    assert reserved == [1]
    assert "4.00 USD more" not in system.condition("ResourceReady")[2]


async def test_nodes_that_were_not_compared_with_the_budget_are_not_reserved(system: "System") -> None:
    """While a lost node waits for its replacement, further copies are requested that the budget does not allow."""
    budget(system, "12")
    await system.start()
    system.apply(preset=PRESET, instanceType=A100, count=2)
    await system.until("ready", system.is_ready)
    system.world.delete(system.kind, system.claims()[0].name)
    system.world.patch(Workspace, "w", {"spec": {"replicas": 4}})
    await system.world.settle()
    assert reserved_nodes(system) == 2
    system.apply("b", preset=PRESET, instanceType=A100)
    await system.until("the rest is free", lambda: bool(claims(system, "b")), within=10)


@pytest.mark.sample(1)
@pytest.mark.parametrize("text", ["", "ten", "-1", "NaN", "1e99"])
async def test_a_budget_that_is_not_an_amount_buys_nothing(system: "System", text: str) -> None:
    budget(system, text)
    await system.start()
    system.apply(preset=PRESET, instanceType=A100)
    await system.world.advance(60)
    assert system.claims() == []
    assert "is not an amount of money" in system.condition("ResourceReady")[2]


async def test_a_workspace_of_an_unknown_price_counts(system: "System") -> None:
    """It was bought before the namespace had a budget, and what it costs is not 0."""
    table = f"prices: [{{region: westeurope, instanceType: {A100}, onDemand: 4}}]"
    system.prices = PriceBook(own=parse_table(table, "own"))
    system.settings = system.settings.model_copy(update={"region": "westeurope"})
    await system.start()
    system.apply("a", preset=PRESET, instanceType=A100_2)
    await system.until("ready", lambda: system.is_ready("a"))
    budget(system, "100")
    system.apply("b", preset=PRESET, instanceType=A100)
    await system.world.advance(60)
    assert claims(system, "b") == []
    message = system.condition("ResourceReady", "b")[2]
    assert "the cost of Workspace a is unknown, and counts for the annotation kaito.sh/hourly-budget" in message
    assert claims(system, "a") == [A100_2]


@pytest.mark.sample(1)
@pytest.mark.parametrize("writes", range(2, 9))
async def test_a_crash_at_any_write_reserves_nothing_twice(system: "System", writes: int) -> None:
    budget(system, "10")
    await system.start_provisioner()
    crash = CrashPoint(writes)
    await system.start_controller(crash)
    for name in ("a", "b", "c"):
        system.apply(name, preset=PRESET, instanceType=A100)
    await system.world.advance(30)
    await system.stop_controller()
    await system.start_controller()
    await system.world.advance(600)
    assert len(system.claims()) == 2
