"""Admission rejects violations with field and remedy; an update only for violations that it introduces."""

from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings

SETTINGS = WorkspaceSettings()


def changed(workspace: Workspace, **parts: Any) -> Workspace:
    document = workspace.to_dict()
    for name, values in parts.items():
        document[name] = (document.get(name) or {}) | values
    return Workspace.model_validate(document)


def errors_of(workspace: Workspace, old: Workspace | None = None, settings: WorkspaceSettings = SETTINGS) -> list[str]:
    return [
        str(violation) for violation in validate_workspace(workspace, old, settings) if violation.severity == "error"
    ]


def test_the_sample_workspace_is_admitted(phi: Workspace) -> None:
    assert errors_of(phi) == []


@pytest.mark.parametrize(
    ("parts", "field", "remedy"),
    [
        ({"inference": {"preset": {"name": "phi-3-mini"}}}, "inference.preset.name", "did you mean"),
        ({"resource": {"instanceType": "Standard_NC6s_v33"}}, "resource.instanceType", "did you mean"),
        ({"resource": {"instanceType": "Standard_D4s_v5"}}, "resource.instanceType", "has no GPU"),
        ({"inference": {"preset": {"name": "phi-3-medium-4k-instruct"}}}, "resource.instanceType", "choose a larger"),
        ({"resource": {"instanceType": ""}}, "resource.instanceType", "set an instance type"),
        ({"resource": {"labelSelector": {}}}, "resource.labelSelector", ""),
        ({"metadata": {"annotations": {labels.RUNTIME: "torch"}}}, labels.RUNTIME, "transformers"),
        ({"metadata": {"name": "x" * 53}}, "metadata.name", "52"),
    ],
)
def test_invalid_input_is_rejected_with_field_and_remedy(
    phi: Workspace, parts: dict[str, Any], field: str, remedy: str
) -> None:
    errors = errors_of(changed(phi, **parts))
    assert any(field in error and remedy in error for error in errors), errors


def test_own_nodes_have_no_instance_type(phi: Workspace) -> None:
    own = WorkspaceSettings(node_api=NodeApi.BYO)
    assert any("resource.instanceType" in error for error in errors_of(phi, settings=own))
    assert errors_of(changed(phi, resource={"instanceType": ""}), settings=own) == []


def test_an_update_answers_only_for_itself(phi: Workspace) -> None:
    old = changed(phi, inference={"preset": {"name": "retired-preset"}})
    labeled = old.with_metadata(labels={"team": "a"})
    assert errors_of(old)
    assert errors_of(labeled, old) == []


def test_the_instance_type_of_a_live_workspace_stays(phi: Workspace) -> None:
    larger = changed(phi, resource={"instanceType": "Standard_NC12s_v3"})
    assert any("resource.instanceType" in error for error in errors_of(larger, phi))


def test_a_workspace_that_is_going_away_passes(phi: Workspace) -> None:
    leaving = changed(phi, resource={"instanceType": "nonsense"}).with_metadata(
        deletion_timestamp="2030-01-01T00:00:00Z"
    )
    assert errors_of(leaving, phi) == []


def test_bypassing_the_size_check_is_a_warning(phi: Workspace) -> None:
    large = changed(phi, inference={"preset": {"name": "phi-3-medium-4k-instruct"}})
    bypassed = large.with_metadata(annotations={labels.BYPASS_RESOURCE_CHECKS: "True"})
    assert errors_of(bypassed) == []
    assert any("too small" in str(violation) for violation in validate_workspace(bypassed, None, SETTINGS))


async def reviewed(admission: Admission[Workspace], webhook: Webhook[Workspace] | None = None) -> Admission[Workspace]:
    validate = (webhook or workspace_webhook(SETTINGS)).validate
    assert validate is not None
    result = validate(admission)
    if result is not None:
        await result
    return admission


async def test_the_webhook_denies_errors_and_allows_warnings(phi: Workspace) -> None:
    large = changed(phi, inference={"preset": {"name": "phi-3-medium-4k-instruct"}})
    refused = await reviewed(Admission("CREATE", large))
    assert [problem.field for problem in refused.problems] == ["resource.instanceType"]
    assert refused.warnings == []
    bypassed = await reviewed(
        Admission("CREATE", large.with_metadata(annotations={labels.BYPASS_RESOURCE_CHECKS: "true"}))
    )
    assert bypassed.problems == []
    assert any("too small" in warning for warning in bypassed.warnings)
    gone = await reviewed(Admission("DELETE", None, large))
    assert (gone.problems, gone.warnings) == ([], [])


def priced(table: str = "") -> Webhook[Workspace]:
    own = parse_table(table, "mine") if table else None
    return workspace_webhook(WorkspaceSettings(region="eastus"), PriceBook(own=own))


async def test_a_new_workspace_is_warned_with_nodes_and_price(phi: Workspace) -> None:
    two = changed(phi, resource={"count": 2})
    (several, warning) = (await reviewed(Admission("CREATE", two), priced())).warnings
    assert several.startswith("resource.count: is 2")
    assert warning == (
        "resource: the plan is 2 nodes of Standard_NC6s_v3: 6.12 USD per hour, 4,467.60 USD per month, on-demand in "
        "eastus (snapshot of skypilot-catalog, undated)"
    )
    own = "{currency: EUR, asOf: 2026-11-01, prices: [{region: '*', instanceType: standard_nc6s_v3, onDemand: 2}]}"
    (mine,) = (await reviewed(Admission("CREATE", phi), priced(own))).warnings
    assert "1 node of Standard_NC6s_v3: 2.00 EUR per hour, 1,460.00 EUR per month" in mine
    assert "(mine, 2026-11-01)" in mine


async def test_an_unknown_price_is_stated(phi: Workspace) -> None:
    (warning,) = (await reviewed(Admission("CREATE", phi))).warnings
    assert warning.endswith("1 node of Standard_NC6s_v3: price unknown, because the controller has no --region")
    newer = changed(phi, resource={"instanceType": "Standard_ND96isr_H200_v5"})
    (unknown,) = (await reviewed(Admission("CREATE", newer), priced())).warnings
    assert unknown.endswith("price in eastus unknown")


async def test_an_update_is_warned_only_if_the_nodes_change(phi: Workspace) -> None:
    labeled = phi.with_metadata(labels={"team": "a"})
    assert (await reviewed(Admission("UPDATE", labeled, phi), priced())).warnings == []
    more = phi.with_metadata(annotations={labels.NODE_COUNT_OVERRIDE: "3"})
    (warning,) = (await reviewed(Admission("UPDATE", more, phi), priced())).warnings
    assert "3 nodes of Standard_NC6s_v3: 9.18 USD per hour" in warning


async def test_existing_nodes_and_deletions_have_no_price(phi: Workspace) -> None:
    own = workspace_webhook(WorkspaceSettings(node_api=NodeApi.BYO, region="eastus"))
    byo = changed(phi, resource={"instanceType": ""})
    assert (await reviewed(Admission("CREATE", byo), own)).warnings == []
    leaving = phi.with_metadata(deletion_timestamp="2030-01-01T00:00:00Z")
    assert (await reviewed(Admission("UPDATE", leaving, phi), priced())).warnings == []


async def test_a_configuration_that_is_not_read_is_named(phi: Workspace) -> None:
    given = changed(phi, inference={"config": "mine"})
    (warning,) = (await reviewed(Admission("CREATE", given), priced())).warnings
    assert "3.06 USD per hour" in warning
    assert warning.endswith("; ConfigMap 'mine' is read later")
