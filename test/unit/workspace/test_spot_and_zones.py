"""`resource.capacityType` and `resource.zones`: requirements of claims, and what is refused."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.workspace.capacity_types import capacity_types
from kaito.workspace.cost import offering
from kaito.workspace.manifests.claim import node_claim
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.plan import Plan
from kaito.workspace.preflight import run_checks, validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.settings import NodeApi, WorkspaceSettings


def with_resource(workspace: Workspace, **changes: Any) -> Workspace:
    document = workspace.to_dict()
    document["resource"] |= changes
    return Workspace.model_validate(document)


async def plan_of(workspace: Workspace, settings: WorkspaceSettings) -> Plan:
    checked = await run_checks(workspace, settings, ManifestReader())
    assert checked.errors == []
    assert checked.plan is not None
    return checked.plan


async def requirements(workspace: Workspace, settings: WorkspaceSettings) -> dict[str, list[str]]:
    plan = await plan_of(workspace, settings)
    claim = node_claim(workspace, plan.hardware, settings, index=0, serial=0)
    return {each.key: each.values for each in claim.spec.requirements}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("on-demand", ["on-demand"]), ("spot", ["spot"]), ("spot-preferred", ["spot", "on-demand"])],
)
async def test_a_claim_requires_what_the_workspace_names(
    phi: Workspace, settings: WorkspaceSettings, choice: str, expected: list[str]
) -> None:
    found = await requirements(with_resource(phi, capacityType=choice, zones=["2", "1", "2"]), settings)
    assert found[labels.CAPACITY_TYPE] == expected
    assert found[labels.ZONE] == ["2", "1"]


async def test_the_first_copies_are_on_demand(phi: Workspace, settings: WorkspaceSettings) -> None:
    given = with_resource(phi, count=3, capacityType="spot-preferred", onDemandCopies=2)
    plan = await plan_of(given, settings)
    claims = [node_claim(given, plan.hardware, settings, index=index, serial=0) for index in range(4)]
    found = [
        next(each.values for each in claim.spec.requirements if each.key == labels.CAPACITY_TYPE) for claim in claims
    ]
    assert found == [["on-demand"], ["on-demand"], ["spot", "on-demand"], ["spot", "on-demand"]]
    only_spot = replace(plan.hardware, capacity_types=("spot",))
    assert only_spot.capacity_types_of(0) == ("spot",), "limits of the cost allow no other"
    groups = replace(plan.hardware, nodes_per_copy=2, on_demand_copies=1)
    assert [groups.capacity_types_of(index) == ("on-demand",) for index in range(3)] == [True, True, False]


@pytest.mark.parametrize("choice", ["spot", "on-demand", None])
def test_on_demand_copies_need_spot_preferred(phi: Workspace, settings: WorkspaceSettings, choice: str | None) -> None:
    (message,) = messages(with_resource(phi, capacityType=choice, onDemandCopies=1), settings)
    assert message.startswith("resource.onDemandCopies: is only for capacityType spot-preferred")


async def test_without_the_fields_a_claim_of_the_gpu_provisioner_is_upstreams(
    phi: Workspace, settings: WorkspaceSettings
) -> None:
    assert {labels.CAPACITY_TYPE, labels.ZONE}.isdisjoint(await requirements(phi, settings))
    assert capacity_types(phi) == ()


async def test_karpenter_gets_on_demand_nodes_unless_spot_is_requested(phi: Workspace) -> None:
    """Karpenter takes the cheapest offering that the requirements allow, which would be a spot node."""
    classes = NodeClassSettings(karpenter_node_class_group="karpenter.azure.com")
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, node_class=classes, region="eastus")
    assert (await requirements(phi, settings))[labels.CAPACITY_TYPE] == ["on-demand"]
    found = await requirements(with_resource(phi, capacityType="spot", zones=["1", "eastus-2"]), settings)
    assert found[labels.CAPACITY_TYPE] == ["spot"]
    assert found[labels.ZONE] == ["eastus-1", "eastus-2"]
    assert "karpenter.azure.com/placement-scope" not in found


def messages(workspace: Workspace, settings: WorkspaceSettings) -> list[str]:
    return [str(each) for each in validate_workspace(workspace, None, settings) if each.severity == "error"]


def test_existing_nodes_have_neither(phi: Workspace) -> None:
    given = with_resource(phi, instanceType="", capacityType="spot", zones=["1"], onDemandCopies=1)
    remedy = "is set, but this controller uses existing nodes (--node-api byo) and creates none: remove it"
    assert messages(given, WorkspaceSettings(node_api=NodeApi.BYO)) == [
        f"resource.capacityType: {remedy}",
        f"resource.onDemandCopies: {remedy}",
        f"resource.zones: {remedy}",
    ]


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("a", "'a' is not a zone: use a number such as 1, or REGION-1"),
        ("0", "'0' is not a zone: use a number such as 1, or REGION-1"),
        ("1_", "'1_' is not a zone: it must fit a node label"),
        ("", "'' is not a zone: it must fit a node label"),
    ],
)
def test_zones_have_the_names_of_the_cloud(
    phi: Workspace, settings: WorkspaceSettings, zone: str, message: str
) -> None:
    assert messages(with_resource(phi, zones=["1", zone]), settings) == [f"resource.zones[1]: {message}"]


def test_a_zone_of_azures_karpenter_needs_its_region(phi: Workspace) -> None:
    classes = NodeClassSettings(karpenter_node_class_group="karpenter.azure.com")
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, node_class=classes)
    assert messages(with_resource(phi, zones=["1"]), settings) == [
        "resource.zones[0]: '1' has no region: use REGION-1, or set --region of the controller"
    ]
    assert messages(with_resource(phi, zones=["1"]), settings.model_copy(update={"region": "eastus"})) == []


@pytest.mark.parametrize(
    ("choice", "expected"), [("on-demand", "6"), ("spot", "1.5"), ("spot-preferred", "6"), (None, "6")]
)
async def test_the_price_is_that_of_the_capacity_type(
    phi: Workspace, settings: WorkspaceSettings, choice: str | None, expected: str
) -> None:
    """Nodes that may be on-demand cost at most the price of on-demand nodes."""
    row = "{region: eastus, instanceType: Standard_NC6s_v3, onDemand: 6, spot: 1.5}"
    book = PriceBook(own=parse_table(f"prices: [{row}]", "own"))
    given = with_resource(phi, capacityType=choice) if choice else phi
    price = book.find_offline(offering((await plan_of(given, settings)).hardware, cloud="azure", region="eastus"))
    assert price is not None
    assert price.per_hour == Decimal(expected)
