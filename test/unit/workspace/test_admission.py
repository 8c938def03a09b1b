"""Admission rejects violations with field and remedy; an update only for violations that it introduces."""

from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.webhook import Admission
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


def test_the_webhook_denies_errors_and_allows_warnings(phi: Workspace) -> None:
    validate = workspace_webhook(SETTINGS).validate
    assert validate is not None
    large = changed(phi, inference={"preset": {"name": "phi-3-medium-4k-instruct"}})
    refused = Admission("CREATE", large)
    validate(refused)
    assert [problem.field for problem in refused.problems] == ["resource.instanceType"]
    bypassed = Admission("CREATE", large.with_metadata(annotations={labels.BYPASS_RESOURCE_CHECKS: "true"}))
    validate(bypassed)
    assert bypassed.problems == []
    assert bypassed.warnings
    gone: Admission[Workspace] = Admission("DELETE", None, large)
    validate(gone)
    assert gone.problems == []
