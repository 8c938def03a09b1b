"""Admission of an InferenceSet: every field is judged, with the path of the set and the remedy."""

from datetime import datetime
from typing import Any

import pytest

from kaito.api import InferenceSet, labels
from kaito.api.inference_set import MaintenanceWindow
from kaito.api.inference_set.bounds import bound
from kaito.api.windows import is_open, next_opening, parse_duration
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.webhook import Admission
from kaito.workspace.inference_sets.admission import inference_set_webhook, validate_inference_set
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.inference_sets.conftest import inference_set

SETTINGS = WorkspaceSettings()
SELECTOR = {"matchLabels": {"apps": "phi"}}
TEMPLATE: dict[str, Any] = {
    "resource": {"instanceType": "Standard_NC6s_v3"},
    "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
}


def found(changed: InferenceSet, settings: WorkspaceSettings = SETTINGS) -> dict[str, str]:
    return {v.field: v.message for v in validate_inference_set(changed, None, settings) if v.severity == "error"}


def rolling(**bounds: Any) -> dict[str, Any]:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": bounds}}


def window(schedule: str, duration: str = "4h") -> dict[str, Any]:
    return {"autoUpgrade": {"enabled": True, "maintenanceWindow": {"schedule": schedule, "duration": duration}}}


def scaled(**fields: Any) -> dict[str, Any]:
    given = {"maxReplicas": 4, "target": {"requests": 10}, **fields}
    return {"autoscaling": {name: value for name, value in given.items() if value is not None}}


def scheduled(schedule: str, duration: str, least: int) -> dict[str, Any]:
    return scaled(schedule=[{"schedule": schedule, "duration": duration, "minReplicas": least}])


def template(**parts: Any) -> dict[str, Any]:
    return {"template": {**TEMPLATE, **parts}}


def test_the_sample_has_no_violation() -> None:
    assert validate_inference_set(inference_set(), None, SETTINGS) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (template(resource={}), "spec.template.resource.instanceType", "is empty"),
        (template(resource={"instanceType": "Standard_D2s"}), "spec.template.resource.instanceType", "Standard_D2s"),
        (
            template(inference={"preset": {"name": "no-such-model"}}),
            "spec.template.inference.preset.name",
            "no-such-model",
        ),
        (template(inference={}), "spec.template.inference.preset", "neither preset nor template"),
        (
            template(resource={"instanceType": "Standard_NC6s_v3", "partition": {"mode": "accelerator", "count": 1}}),
            "spec.template.resource.partition",
            "",
        ),
        ({"labelSelector": {}}, "spec.labelSelector", "empty"),
        (
            {"labelSelector": {"matchLabels": {"karpenter.sh/nodepool": "x"}}},
            "spec.labelSelector.matchLabels",
            "reserved",
        ),
        (template(metadata={"name": "mine"}), "spec.template.metadata.name", "labels and annotations only"),
        (template(metadata={"labels": ["a"]}), "spec.template.metadata.labels", "must be a map"),
        (template(metadata={"labels": {"a": 1}}), "spec.template.metadata.labels[a]", "put it in quotes"),
        (template(metadata={"labels": {"a b": "c"}}), "spec.template.metadata.labels[a b]", "is not a key"),
        (template(metadata={"labels": {"a": "b c"}}), "spec.template.metadata.labels[a]", "is not a label value"),
        (
            template(metadata={"labels": {labels.WORKSPACE: "x"}}),
            f"spec.template.metadata.labels[{labels.WORKSPACE}]",
            "reserved",
        ),
        (
            template(metadata={"labels": {labels.INFERENCESET_REVISION: "x"}}),
            f"spec.template.metadata.labels[{labels.INFERENCESET_REVISION}]",
            "reserved",
        ),
        (
            template(metadata={"annotations": {labels.RUNTIME: "tgi"}}),
            f"spec.template.metadata.annotations[{labels.RUNTIME}]",
            "use transformers or vllm",
        ),
        (rolling(maxUnavailable=-1), "spec.updateStrategy.rollingUpdate.maxUnavailable", "negative"),
        (rolling(maxUnavailable="half"), "spec.updateStrategy.rollingUpdate.maxUnavailable", "percentage"),
        (rolling(maxSurge="101%"), "spec.updateStrategy.rollingUpdate.maxSurge", "percentage"),
        (rolling(maxSurge=0, maxUnavailable=0), "spec.updateStrategy.rollingUpdate", "both 0"),
        (rolling(partition=1), "spec.updateStrategy.rollingUpdate.partition", "not supported"),
        (
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"maxSurge": 1}}},
            "spec.updateStrategy.rollingUpdate",
            "belongs to type RollingUpdate",
        ),
        (
            {"autoUpgrade": {"enabled": True}, "updateStrategy": {"type": "OnDelete"}},
            "spec.autoUpgrade.enabled",
            "has no effect with updateStrategy.type OnDelete",
        ),
        (scaled(maxReplicas=None), "spec.autoscaling.maxReplicas", "is needed with target"),
        (scaled(minReplicas=0), "spec.autoscaling.minReplicas", "use 1"),
        (scaled(minReplicas=5), "spec.autoscaling.maxReplicas", "4 is less than minReplicas"),
        (scaled(idleSeconds=600), "spec.autoscaling.idleSeconds", "only for Workspaces without a set"),
        (scaled(target=None, scaleUp={"windowSeconds": 10}), "spec.autoscaling.target", "is needed with scaleUp"),
        (scaled(target={}), "spec.autoscaling.target", "is empty"),
        (scheduled("0 7 * *", "1h", 2), "spec.autoscaling.schedule[0].schedule", "does not have five fields"),
        (scheduled("0 7 * * *", "1d", 2), "spec.autoscaling.schedule[0].duration", "is not a duration"),
        (scheduled("0 7 * * *", "1h", 9), "spec.autoscaling.schedule[0].minReplicas", "more than maxReplicas 4"),
        (window("0 2 * *"), "spec.autoUpgrade.maintenanceWindow.schedule", "does not have five fields"),
        (window("0 25 * * *"), "spec.autoUpgrade.maintenanceWindow.schedule", "is not a cron expression"),
        (window("0 0 31 2 *"), "spec.autoUpgrade.maintenanceWindow.schedule", ""),
        (window("0 2 * * 6", "0h"), "spec.autoUpgrade.maintenanceWindow.duration", "is not a duration"),
    ],
)
def test_a_wrong_field_is_rejected_with_its_path(spec: dict[str, Any], field: str, message: str) -> None:
    errors = found(inference_set(**spec))
    assert list(errors) == [field]
    assert message in errors[field]


def test_annotations_of_the_set_are_judged_where_they_are() -> None:
    changed = inference_set().with_metadata(annotations={labels.RUNTIME: "tgi"})
    assert list(found(changed)) == [f"metadata.annotations[{labels.RUNTIME}]"]


def test_an_unknown_annotation_is_a_warning_and_those_of_keda_are_not() -> None:
    changed = inference_set().with_metadata(
        annotations={"kaito.sh/runtme": "vllm", "scaledobject.kaito.sh/threshold": "10", "example.com/x": "y"}
    )
    warned = [str(v) for v in validate_inference_set(changed, None, SETTINGS)]
    assert warned == ["metadata.annotations[kaito.sh/runtme]: is not an annotation of InferenceSets"]


@pytest.mark.parametrize("name", ["3-phi", "a" * 48])
def test_a_name_must_leave_room_for_the_workspaces(name: str) -> None:
    assert list(found(inference_set().with_metadata(name=name))) == ["metadata.name"]


def test_existing_nodes_have_no_instance_type() -> None:
    byo = WorkspaceSettings(node_api=NodeApi.BYO)
    assert list(found(inference_set(), byo)) == ["spec.template.resource.instanceType"]
    assert found(inference_set(**template(resource={})), byo) == {}


def test_a_template_of_go_programs_has_no_creation_time() -> None:
    assert found(inference_set(**template(metadata={"creationTimestamp": None, "labels": {"a": "b"}}))) == {}


async def review(new: InferenceSet, old: InferenceSet | None = None) -> Admission[InferenceSet]:
    admission = Admission[InferenceSet]("UPDATE" if old else "CREATE", new, old)
    check = inference_set_webhook(SETTINGS).validate
    assert check is not None
    await check(admission)  # type: ignore[misc]  # always a coroutine here
    return admission


async def test_admission_warns_with_the_nodes_of_all_workspaces() -> None:
    (warning,) = (await review(inference_set(replicas=3))).warnings
    assert warning.startswith("spec: the plan is 3 nodes of Standard_NC6s_v3: price unknown")
    assert (await review(inference_set(replicas=3), inference_set(replicas=3))).warnings == []
    assert (await review(inference_set(replicas=0))).warnings == []


async def test_admission_warns_of_what_the_controller_refuses() -> None:
    preset = {"name": "phi-3-mini-4k-instruct", "podOptions": {"resources": {"requests": {"cpu": "100"}}}}
    (warning,) = (await review(inference_set(**template(inference={"preset": preset})))).warnings
    assert warning.startswith("spec.template.inference.preset.podOptions.resources: requests 100 cpu, a node of ")
    assert warning.endswith("; no node is created until it is corrected")


async def test_the_limit_of_the_cost_is_that_of_each_workspace() -> None:
    table = parse_table("prices: [{region: eastus, instanceType: Standard_NC6s_v3, onDemand: 3}]", "own")
    check = inference_set_webhook(SETTINGS.model_copy(update={"region": "eastus"}), PriceBook(own=table)).validate
    assert check is not None

    async def reviewed(limit: str) -> Admission[InferenceSet]:
        resource = {"instanceType": "Standard_NC6s_v3", "maxHourlyCost": limit}
        new = inference_set(**template(resource=resource), replicas=5)
        admission = Admission[InferenceSet]("CREATE", new, None)
        await check(admission)  # type: ignore[misc]  # always a coroutine here
        return admission

    allowed = await reviewed("3.00")
    assert allowed.problems == []
    assert any("5 nodes of Standard_NC6s_v3: 15.00 USD per hour" in warning for warning in allowed.warnings)
    (denied,) = (await reviewed("2.99")).problems
    assert denied.field == "spec.template.resource.maxHourlyCost"
    assert "0.01 USD more" in denied.message


async def test_the_node_limit_must_allow_one_workspace() -> None:
    two_nodes = template(
        resource={"instanceType": "Standard_NC24ads_A100_v4"},
        inference={"preset": {"name": "llama-3.3-70b-instruct", "presetOptions": {"modelAccessSecret": "hf"}}},
    )
    denied = await review(inference_set(**two_nodes, nodeCountLimit=1))
    (problem,) = denied.problems
    assert problem.field == "spec.nodeCountLimit"
    assert "one workspace needs" in problem.message
    limited = await review(inference_set(replicas=5, nodeCountLimit=3))
    assert limited.problems == []
    assert any("only 3 are created" in warning for warning in limited.warnings)
    assert any("the plan is 3 nodes" in warning for warning in limited.warnings)


async def test_an_update_is_rejected_only_for_what_it_introduces() -> None:
    old = inference_set(**template(inference={"preset": {"name": "no-such-model"}}))
    scaled = inference_set(**template(inference={"preset": {"name": "no-such-model"}}), replicas=5)
    assert (await review(scaled, old)).problems == []
    other = inference_set(**template(inference={"preset": {"name": "other-model"}}))
    assert [p.field for p in (await review(other, old)).problems] == ["spec.template.inference.preset.name"]
    deleting = old.with_metadata(deletion_timestamp="2030-01-01T00:00:00Z")
    assert (await review(deleting, old)).problems == []


@pytest.mark.parametrize(("value", "total", "number"), [(2, 9, 2), ("25%", 10, 3), ("100%", 4, 4), ("0%", 4, 0)])
def test_bounds_are_rounded_up(value: int | str, total: int, number: int) -> None:
    assert bound(value, total) == number


@pytest.mark.parametrize(("text", "seconds"), [("4h", 14400), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations_are_those_of_go(text: str, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "4", "0h", "-1h", "h", "4 h", "1d"])
def test_other_durations_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("now", "is_expected"),
    [
        ("2030-01-05T02:00:00+00:00", True),
        ("2030-01-05T05:59:59+00:00", True),
        ("2030-01-05T06:00:00+00:00", False),
        ("2030-01-05T01:59:59+00:00", False),
        ("2030-01-05T03:30:00+01:00", True),
        ("2030-01-06T02:30:00+00:00", False),
    ],
)
def test_a_window_is_open_in_utc(now: str, is_expected: bool) -> None:
    every_saturday = MaintenanceWindow(schedule="0 2 * * 6", duration="4h")
    moment = datetime.fromisoformat(now)
    assert is_open(every_saturday, moment) is is_expected
    following = next_opening(every_saturday, moment)
    assert following is not None
    assert following > moment
    assert (following.weekday(), following.hour) == (5, 2)
