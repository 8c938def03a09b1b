"""Limits of the cost without a cluster: admission, the form of the field, amounts and reservations."""

from decimal import Decimal
from typing import Any

import pytest

from kaito.api import Machine, Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.kinds import Namespace
from kaito.workspace.budget import (
    BudgetHolder,
    BudgetText,
    ClaimCost,
    Limits,
    NamespaceBudget,
    Reservation,
    Reserved,
    ReservedTotal,
    check_cost,
    parse_amount,
    reserved_by,
)
from kaito.workspace.plan_warnings import cost_findings, plan_warnings
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings

V100, A100 = "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"
BOOK = PriceBook(
    own=parse_table(
        f"prices: [{{region: eastus, instanceType: {V100}, onDemand: 3, spot: 1}}, "
        f"{{region: eastus, instanceType: {A100}, onDemand: 4}}]",
        "own",
    )
)
SETTINGS = WorkspaceSettings(region="eastus")


def with_resource(workspace: Workspace, **changes: Any) -> Workspace:
    document = workspace.to_dict()
    document["resource"] |= changes
    document["resource"] = {name: value for name, value in document["resource"].items() if value is not None}
    return Workspace.model_validate(document)


async def refused(
    workspace: Workspace, old: Workspace | None = None, settings: WorkspaceSettings = SETTINGS
) -> list[str]:
    return [f"{f.severity}: {f}" for f in await cost_findings(workspace, old, settings, BOOK)]


async def test_admission_refuses_and_states_by_how_much(phi: Workspace) -> None:
    assert await refused(with_resource(phi, maxHourlyCost="2.5")) == [
        (
            f"error: resource.maxHourlyCost: 1 node of {V100} (on-demand) costs 3.00 USD per hour, 0.5 USD more than "
            "resource.maxHourlyCost 2.50: raise it, request fewer copies, or choose a cheaper instance type"
        )
    ]
    assert await refused(with_resource(phi, maxHourlyCost="3")) == []
    assert await refused(phi) == []


async def test_admission_refuses_an_unknown_price(phi: Workspace) -> None:
    settings = WorkspaceSettings(region="westeurope")
    (found,) = await refused(with_resource(phi, maxHourlyCost="9"), settings=settings)
    assert "is unknown: add it to the table of --price-table, or remove the limit" in found


async def test_one_alternative_within_the_limit_is_enough(phi: Workspace) -> None:
    given = with_resource(phi, instanceType=None, instanceTypes=[A100, V100], maxHourlyCost="3.50")
    assert await refused(given) == []
    (warning,) = await plan_warnings(given, None, SETTINGS, BOOK)
    assert f"the plan is 1 node of {V100}: 3.00 USD per hour" in warning
    (warning,) = await plan_warnings(with_resource(given, maxHourlyCost="9"), None, SETTINGS, BOOK)
    assert warning.endswith(f"; if the cloud is out of it: 1 of {V100}")
    both = await refused(with_resource(given, maxHourlyCost="1"))
    assert [each.split(":")[1].strip() for each in both] == ["resource.instanceTypes[0]", "resource.instanceTypes[1]"]


async def test_only_what_an_update_introduces_is_refused(phi: Workspace) -> None:
    before = with_resource(phi, maxHourlyCost="2")
    annotated = before.with_metadata(annotations={labels.ENABLE_LOAD_BALANCER: "true"})
    assert await refused(annotated, before) == []
    assert len(await refused(with_resource(phi, maxHourlyCost="1"), before)) == 1


async def test_with_a_configuration_file_it_is_a_warning(phi: Workspace) -> None:
    """The file may change the number of nodes, and admission does not read it."""
    document = with_resource(phi, maxHourlyCost="2").to_dict()
    document["inference"]["config"] = "mine"
    (found,) = await refused(Workspace.model_validate(document))
    assert found.startswith("warning: resource.maxHourlyCost")


@pytest.mark.parametrize("text", ["", "x", "1,5", "-1", "1e3", ".5", "1.", "12345678"])
def test_the_form_of_the_amount(phi: Workspace, text: str) -> None:
    found = validate_workspace(with_resource(phi, maxHourlyCost=text), None, SETTINGS)
    assert [(v.field, v.message) for v in found if v.severity == "error"] == [
        ("resource.maxHourlyCost", f"{text!r} is not an amount of money: use a decimal number such as 12.50")
    ]


def test_existing_nodes_have_no_limit(phi: Workspace) -> None:
    given = with_resource(phi, instanceType=None, maxHourlyCost="1")
    found = validate_workspace(given, None, WorkspaceSettings(node_api=NodeApi.BYO))
    assert [v.field for v in found if v.severity == "error"] == ["resource.maxHourlyCost"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12.50", Decimal("12.50")), (" 0 ", Decimal(0)), ("-1", None), ("", None), ("NaN", None), ("Infinity", None)],
)
def test_amounts(text: str, expected: Decimal | None) -> None:
    assert parse_amount(text) == expected


def limits(text: str, *reserved: Reserved) -> Limits:
    budget = NamespaceBudget("team", BudgetText(text), ReservedTotal(reserved).without(""))
    return Limits(book=BOOK, cloud="azure", region="eastus", namespace=budget)


def test_the_rest_of_a_budget() -> None:
    others = (Reserved("a", Decimal(4)), Reserved("b", Decimal(3)))
    assert check_cost(V100, (), 1, limits("10", *others)).problem == ""
    problem = check_cost(V100, (), 2, limits("10", *others)).problem
    assert "cost 6.00 USD per hour, 3.00 USD more than" in problem
    assert "leaves: 10.00 less 7.00 of others (a 4.00, b 3.00)" in problem


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"annotations": {"kaito.sh/hourly-budgets": "25"}}, "annotation kaito.sh/hourly-budgets is not known: write"),
        ({"annotations": {"kaito.sh/hourlyBudget": "25"}}, "annotation kaito.sh/hourlyBudget is not known: write"),
        ({"annotations": {"kaito.sh/budget": "25"}}, "annotation kaito.sh/budget is not known: write"),
        (
            {"annotations": {"workspace.kaito.sh/hourly-budget": "25"}},
            "annotation workspace.kaito.sh/hourly-budget",
        ),
        (
            {"labels": {labels.HOURLY_BUDGET: "25"}},
            "label kaito.sh/hourly-budget is not read: write it as an annotation",
        ),
    ],
)
def test_a_budget_at_the_wrong_place_buys_nothing(metadata: dict[str, Any], problem: str) -> None:
    stated = BudgetText.of(Namespace.model_validate({"metadata": {"name": "team", **metadata}}))
    assert stated is not None
    limits = Limits(book=BOOK, cloud="azure", region="eastus", namespace=NamespaceBudget("team", stated))
    checked = check_cost(V100, ("on-demand",), 1, limits)
    assert checked.problem.startswith(f"namespace team: {problem}")


@pytest.mark.parametrize("key", ["kaito.sh/installation", "budget", "example.com/hourly-budget", "kaito.sh/owner"])
def test_other_annotations_are_not_budgets(key: str) -> None:
    assert BudgetText.of(Namespace.model_validate({"metadata": {"name": "team", "annotations": {key: "25"}}})) is None


def test_the_message_names_the_most_expensive_workspaces() -> None:
    others = [Reserved(f"w{number:02}", Decimal(number)) for number in range(15)]
    problem = check_cost(V100, (), 1, limits("100", *others)).problem
    assert "(w14 14.00, w13 13.00, w12 12.00," in problem
    assert "w06 6.00, w05 5.00, and 4 more)" in problem


def test_a_total_is_adjusted() -> None:
    total = ReservedTotal([Reserved("a", Decimal(4)), Reserved("b", Decimal(3), "no price"), Reserved("c", Decimal(1))])
    assert total.without("a").unknown == Reserved("b", Decimal(3), "no price")
    assert total.without("b").unknown is None
    total.put(Reserved("b", Decimal(2)))
    total.put(Reserved("c", Decimal(0)))
    assert total.without("").unknown is None
    assert (total.without("").cost, total.without("a").cost) == (Decimal(6), Decimal(2))
    total.remove("a")
    total.remove("a")
    assert total.without("x").cost == 2


def test_only_the_capacity_types_within_the_limit() -> None:
    found = check_cost(V100, ("spot", "on-demand"), 1, limits("1"))
    assert (found.capacity_types, found.problem) == (("spot",), "")
    assert check_cost(V100, ("on-demand",), 1, limits("1")).problem
    assert check_cost(V100, (), 0, limits("0")).problem == ""


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"instanceType": 1}', '{"instanceType": "a", "nodes": "2"}'])
def test_a_malformed_reservation_is_none(text: str) -> None:
    assert Reservation.from_annotations({labels.RESERVATION: text}) is None


def test_claims_count_if_they_cost_more_than_the_reservation(phi: Workspace) -> None:
    record = Reservation(instance_type=V100, capacity_types=("spot", "on-demand"), nodes=2)
    reserving = phi.with_metadata(annotations={labels.RESERVATION: record.to_annotation()})
    assert Reservation.from_annotations(reserving.annotations) == record
    spot = claim(**{labels.CAPACITY_TYPE: "spot"})
    assert cost_of(reserving, [spot]) == Decimal(6)
    assert cost_of(reserving, [claim()] * 3) == Decimal(9)
    assert cost_of(phi, [spot]) == Decimal(1)
    assert cost_of(phi, []) == Decimal(0)
    assert cost_of(phi, [claim(**{labels.WORKSPACE_UID: "of-another"})]) == Decimal(0)


def cost_of(workspace: Workspace, claims: list[Machine]) -> Decimal:
    return reserved_by(BudgetHolder.of(workspace), map(ClaimCost.of, claims), limits("1")).cost


def claim(**own_labels: str) -> Machine:
    own_labels = {labels.WORKSPACE: "workspace-phi-3-mini", labels.WORKSPACE_NAMESPACE: "default"} | own_labels
    requirements = [{"key": labels.INSTANCE_TYPE, "operator": "In", "values": [V100]}]
    spec = {"machineTemplateRef": {"name": "ws1"}, "requirements": requirements}
    return Machine.model_validate({"metadata": {"name": "ws1", "labels": own_labels}, "spec": spec})
