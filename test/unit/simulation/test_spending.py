"""The tables of the reference model agree with the planner and the price book, and its limits with their history."""

from decimal import Decimal
from itertools import product

import pytest

from kaito.api import Workspace
from kaito.prices.book import PriceBook
from kaito.prices.price import Offering
from kaito.simulation.choices import choice_manifest
from kaito.simulation.history import READ_SECONDS
from kaito.simulation.plans import A10, A100, LARGE, PRICES, REGION, SMALL, V100, nodes_per_copy, price_of
from kaito.simulation.spending import Limits, amount, highest
from kaito.workspace.preflight import run_checks
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.preview import identified
from kaito.workspace.settings import WorkspaceSettings


@pytest.mark.parametrize(("preset", "size"), list(product((SMALL, LARGE), (A100, V100, A10))))
async def test_the_table_has_the_nodes_that_are_planned(preset: str, size: str) -> None:
    document = choice_manifest("default", preset=preset, sizes=[size], count=1, cost="", capacity="")
    settings = WorkspaceSettings(hub_endpoint="", region=REGION)
    checked = await run_checks(identified(Workspace.model_validate(document)), settings, ManifestReader())
    planned = checked.plan.hardware.nodes_per_copy if checked.plan is not None else 0
    assert nodes_per_copy(document, size) == planned


@pytest.mark.parametrize(("size", "capacity"), list(PRICES))
def test_the_table_has_the_prices_of_the_book(size: str, capacity: str) -> None:
    found = PriceBook().find_offline(Offering("azure", REGION, size, "spot" if capacity == "spot" else "on-demand"))
    assert found is not None
    assert found.per_hour == PRICES[size, capacity]


def test_a_claim_costs_the_most_that_it_may() -> None:
    requirements = [
        {"key": "node.kubernetes.io/instance-type", "values": [A100]},
        {"key": "karpenter.sh/capacity-type", "values": ["spot", "on-demand"]},
    ]
    assert price_of({"spec": {"requirements": requirements}}) == PRICES[A100, "on-demand"]
    assert price_of({"spec": {"requirements": requirements[:1]}}) == PRICES[A100, "on-demand"]
    requirements[1]["values"] = ["spot"]
    assert price_of({"spec": {"requirements": requirements}}) == PRICES[A100, "spot"]


def test_a_limit_applies_after_the_time_in_which_a_controller_may_have_read_the_former_one() -> None:
    limit = Limits()
    assert highest(limit.recent(0.0)) is None
    limit.note(10.0, Decimal(8))
    assert highest(limit.recent(11.0)) == 8
    limit.note(100.0, Decimal(4))
    limit.note(101.0, Decimal(4))
    assert highest(limit.recent(100.0 + READ_SECONDS - 1)) == 8
    assert highest(limit.recent(100.0 + READ_SECONDS + 1)) == 4
    limit.note(500.0, None)
    assert highest(limit.recent(501.0)) is None


@pytest.mark.parametrize(("text", "expected"), [(None, None), ("", None), ("4.00", Decimal(4)), ("much", Decimal(0))])
def test_what_is_not_an_amount_allows_nothing(text: str | None, expected: Decimal | None) -> None:
    assert amount(text) == expected
