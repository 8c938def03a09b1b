"""Admission: refused with field and remedy, on update only for what the update makes wrong."""

from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.workspace.admission import judge
from kaito.workspace.settings import NodeApi, WorkspaceSettings

SETTINGS = WorkspaceSettings()


def changed(workspace: Workspace, **parts: Any) -> Workspace:
    document = workspace.to_dict()
    for name, values in parts.items():
        document[name] = (document.get(name) or {}) | values
    return Workspace.model_validate(document)


def test_the_founding_documents_manifest_is_admitted(phi: Workspace) -> None:
    judgement = judge(phi, None, SETTINGS)
    assert judgement.errors == ()


@pytest.mark.parametrize(
    ("parts", "field", "remedy"),
    [
        ({"inference": {"preset": {"name": "phi-3-mini"}}}, "inference.preset.name", "did you mean"),
        ({"resource": {"instanceType": "Standard_NC6s_v33"}}, "resource.instanceType", "did you mean"),
        ({"resource": {"instanceType": "Standard_D4s_v5"}}, "resource.instanceType", "has no GPU"),
        ({"inference": {"preset": {"name": "phi-3-medium-4k-instruct"}}}, "resource.instanceType", "choose a larger"),
        ({"resource": {"instanceType": ""}}, "resource.instanceType", "name the machine size"),
        ({"resource": {"labelSelector": {}}}, "resource.labelSelector", ""),
        ({"metadata": {"annotations": {labels.RUNTIME: "torch"}}}, labels.RUNTIME, "transformers"),
        ({"metadata": {"name": "x" * 53}}, "metadata.name", "52"),
    ],
)
def test_bad_input_is_refused_naming_field_and_remedy(
    phi: Workspace, parts: dict[str, Any], field: str, remedy: str
) -> None:
    errors = judge(changed(phi, **parts), None, SETTINGS).errors
    assert any(field in error and remedy in error for error in errors), errors


def test_own_nodes_have_no_instance_type(phi: Workspace) -> None:
    own = WorkspaceSettings(node_api=NodeApi.BYO)
    assert any("resource.instanceType" in error for error in judge(phi, None, own).errors)
    assert judge(changed(phi, resource={"instanceType": ""}), None, own).errors == ()


def test_an_update_answers_only_for_itself(phi: Workspace) -> None:
    old = changed(phi, inference={"preset": {"name": "retired-preset"}})
    labelled = old.with_metadata(labels={"team": "a"})
    assert judge(old, None, SETTINGS).errors
    assert judge(labelled, old, SETTINGS).errors == ()


def test_the_instance_type_of_a_live_workspace_stays(phi: Workspace) -> None:
    larger = changed(phi, resource={"instanceType": "Standard_NC12s_v3"})
    assert any("resource.instanceType" in error for error in judge(larger, phi, SETTINGS).errors)


def test_a_workspace_that_is_going_away_passes(phi: Workspace) -> None:
    leaving = changed(phi, resource={"instanceType": "nonsense"}).with_metadata(
        deletion_timestamp="2030-01-01T00:00:00Z"
    )
    assert judge(leaving, phi, SETTINGS).errors == ()


def test_bypassing_the_size_check_is_a_warning(phi: Workspace) -> None:
    large = changed(phi, inference={"preset": {"name": "phi-3-medium-4k-instruct"}})
    judgement = judge(large.with_metadata(annotations={labels.BYPASS_RESOURCE_CHECKS: "True"}), None, SETTINGS)
    assert judgement.errors == ()
    assert any("too small" in warning for warning in judgement.warnings)
