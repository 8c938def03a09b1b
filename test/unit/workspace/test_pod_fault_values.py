"""Faults of pods word for word, rejections by status, and phases for metrics."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ValidationError

from kaito.api import Workspace
from kaito.runtime.errors import ApiError
from kaito.runtime.kinds import ContainerStatus, Pod
from kaito.workspace import in_use_policy
from kaito.workspace.failure import Step, StepFailure, format_error, is_rejection
from kaito.workspace.figures import WorkspaceFigures, phase
from kaito.workspace.metrics import PROVISION_BOUNDS_SECONDS, WorkspaceMetrics
from kaito.workspace.pod_faults import find_fault, has_started, termination_summary


def pod(*containers: dict[str, Any], init: dict[str, Any] | None = None, name: str = "ws-0", **status: Any) -> Pod:
    status["containerStatuses"] = [{"name": "server", **container} for container in containers]
    status["initContainerStatuses"] = [] if init is None else [{"name": "puller", **init}]
    return Pod.model_validate({"metadata": {"name": name}, "status": status})


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int = 1, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def last(code: int = 1, message: str = "", reason: str = "Error", **more: Any) -> dict[str, Any]:
    return {"lastState": ended(code, message, reason), **more}


@pytest.mark.parametrize(
    ("reason", "condition"),
    [
        *(
            (reason, "ImagePullError")
            for reason in (
                "ImagePullBackOff",
                "ErrImagePull",
                "InvalidImageName",
                "ErrImageNeverPull",
                "ImageInspectError",
                "RegistryUnavailable",
            )
        ),
        *(
            (reason, "ContainerStartError")
            for reason in (
                "CreateContainerConfigError",
                "PreCreateHookError",
                "CreateContainerError",
                "PreStartHookError",
                "RunContainerError",
                "PostStartHookError",
            )
        ),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ],
)
def test_reasons_of_waiting_containers(reason: str, condition: str | None) -> None:
    for detail, end in (("", ""), ("no such tag", ": no such tag")):
        for found, container in (
            (pod(waiting(reason, detail)), "server"),
            (pod(init=waiting(reason, detail)), "puller"),
        ):
            fault = find_fault([found])
            if condition is None:
                assert fault is None
            else:
                assert fault is not None
                message = f"container {container} of pod ws-0: {reason}{end}"
                assert (fault.reason, fault.message) == (condition, message)


LOOP = "ContainerCrashLoopBackOff"
OOM = "ContainerOOMKilled"
KILLED = "container server of pod ws-0 ran out of memory and was killed"


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (pod(waiting("CrashLoopBackOff")), LOOP, "container server of pod ws-0 ended"),
        (
            pod(waiting("CrashLoopBackOff") | last(2, "bad flag", restartCount=1)),
            LOOP,
            "container server of pod ws-0 ended twice and is about to be restarted again; last exit code 2: bad flag",
        ),
        (
            pod(waiting("CrashLoopBackOff") | last(2, "bad flag", restartCount=2)),
            LOOP,
            "container server of pod ws-0 ends repeatedly (2 restarts); last exit code 2: bad flag",
        ),
        (
            pod(last(2, "bad flag", restartCount=1)),
            LOOP,
            "container server of pod ws-0 ended and was restarted once; last exit code 2: bad flag",
        ),
        (pod({"state": ended(3)}), LOOP, "container server of pod ws-0 ended; last exit code 3"),
        (
            pod({"state": ended(137, reason="ContainerStatusUnknown")}),
            LOOP,
            "container server of pod ws-0 ended; last exit code 137 (ContainerStatusUnknown)",
        ),
        (pod({"state": ended(137, reason="OOMKilled")}), OOM, f"{KILLED} (0 restarts)"),
        (pod(last(137, reason="OOMKilled", restartCount=1)), OOM, f"{KILLED} (1 restart)"),
        (pod(last(137, reason="OOMKilled", restartCount=2, ready=True)), OOM, f"{KILLED} (2 restarts)"),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage"),
            "NodeDiskPressure",
            "pod ws-0 was evicted: The node was low on resource: ephemeral-storage",
        ),
        (
            pod(phase="Failed", reason="Evicted", message="DiskPressure"),
            "NodeDiskPressure",
            "pod ws-0 was evicted: DiskPressure",
        ),
        (
            pod(phase="Failed", reason="Evicted", message="Memory"),
            "NodeMemoryPressure",
            "pod ws-0 was evicted: Memory",
        ),
        (pod(phase="Failed", reason="Evicted"), "PodEvicted", "pod ws-0 was evicted: no message"),
        (pod(phase="Failed"), "PodFailed", "pod ws-0 failed: no reason given"),
        (pod(phase="Failed", reason="NodeLost"), "PodFailed", "pod ws-0 failed: NodeLost"),
        (pod(phase="Failed", reason="NodeLost", message="m"), "PodFailed", "pod ws-0 failed: NodeLost: m"),
    ],
)
def test_faults_word_for_word(found: Pod, reason: str, message: str) -> None:
    fault = find_fault([found])
    assert fault is not None
    assert (fault.reason, fault.message) == (reason, message)


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}


@pytest.mark.parametrize(
    "healthy",
    [
        pod({"state": ended(0, reason="Completed")}),
        pod(last(1, restartCount=1, ready=True)),
        pod({"restartCount": 1}),
        pod(last(1, restartCount=0)),
        pod(phase="Running", reason="Evicted"),
        pod(phase="Running", conditions=[UNSCHEDULABLE]),
        pod(phase="Pending", conditions=[UNSCHEDULABLE | {"reason": "SchedulingGated"}]),
        pod(phase="Pending"),
    ],
)
def test_these_pods_have_no_fault(healthy: Pod) -> None:
    assert find_fault([healthy]) is None


ORDER = [
    pod(last(137, reason="OOMKilled"), name="oom"),
    pod(waiting("ErrImagePull"), name="image"),
    pod(waiting("RunContainerError"), name="start"),
    pod({"state": ended(1)}, name="crash"),
    pod(phase="Failed", reason="Evicted", name="evicted"),
    pod(phase="Pending", conditions=[UNSCHEDULABLE], name="unschedulable"),
    pod(phase="Failed", name="failed"),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_order_of_the_rules_decides_and_not_that_of_the_pods(first: int) -> None:
    fault = find_fault(ORDER[first:][::-1])
    assert fault is not None
    assert f"pod {ORDER[first].name}" in fault.message


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod(), False),
        (pod(waiting("ContainerCreating")), False),
        (pod({"state": {"running": {}}}), True),
        (pod({"state": ended(0)}), True),
        (pod(last(1)), True),
        (pod({"restartCount": 1}), True),
        (pod(init={"state": {"running": {}}}), True),
    ],
)
def test_a_pod_has_started_if_a_container_runs_or_ran(found: Pod, *, expected: bool) -> None:
    assert has_started(found) is expected


@pytest.mark.parametrize(
    ("status", "summary"),
    [
        ({}, ""),
        ({"state": ended(1, " text\n")}, "exit code 1: text"),
        ({"state": ended(0, reason="Completed")}, "exit code 0"),
        ({"state": ended(137, reason="OOMKilled")}, "exit code 137 (OOMKilled)"),
        (last(2, "old"), "exit code 2: old"),
        ({"state": ended(1, "new"), **last(2, "old")}, "exit code 1: new"),
        ({"state": ended(1, "a" + "b" * 1024)}, f"exit code 1: {'b' * 1024}"),
    ],
)
def test_the_summary_of_an_end(status: dict[str, Any], summary: str) -> None:
    assert termination_summary(ContainerStatus.model_validate({"name": "server", **status})) == summary


def api_error(code: int, message: str = "no") -> ApiError:
    return ApiError(message, code=code)


class _Strict(BaseModel):
    number: int


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        _Strict.model_validate({"number": "x"})
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((api_error(code), True) for code in (400, 403, 405, 413, 422, 499)),
        *((api_error(code), False) for code in (399, 401, 404, 408, 409, 410, 429, 500, 503)),
        (api_error(500, "failed to create typed patch object (default/x): boom"), True),
        (api_error(500, ".spec.x: field not declared in schema"), True),
        (api_error(503, "field not declared in schema"), False),
        (RuntimeError("field not declared in schema"), False),
        (invalid(), True),
    ],
)
def test_which_errors_reject_an_object(error: Exception, *, expected: bool) -> None:
    assert is_rejection(error) is expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (api_error(500, "a\n  b"), "a b"),
        (RuntimeError("a\n b"), "RuntimeError: a b"),
        (RuntimeError("x" * 2000), f"RuntimeError: {'x' * 1010}"),
        (ExceptionGroup("g", [RuntimeError("a"), api_error(500, "b")]), "RuntimeError: a; b"),
        (ExceptionGroup("g", [api_error(500, "x" * 1000), api_error(500, "y" * 1000)]), f"{'x' * 1000}; {'y' * 22}"),
    ],
)
def test_errors_are_formatted_in_one_line_of_up_to_1024_characters(error: Exception, text: str) -> None:
    assert format_error(error) == text
    assert StepFailure(Step("observing"), error).message == f"observing failed: {text}"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Ready", "succeeded"),
        ("Succeeded", "succeeded"),
        ("Failed", "error"),
        ("NotReady", "error"),
        ("Running", "pending"),
        ("Pending", "pending"),
        (None, "pending"),
    ],
)
def test_phases_are_those_of_upstream(phi: Workspace, state: str | None, expected: str) -> None:
    assert phase(phi.evolve(status={"state": state} if state else {})) == expected


def test_metrics_of_many_workspaces(phi: Workspace) -> None:
    assert phi.inference is not None
    other = phi.inference.evolve(preset=phi.inference.preset and phi.inference.preset.evolve(name="phi-4"))
    workspaces = [
        phi.with_metadata(name="a").evolve(status={"state": "Ready"}),
        phi.with_metadata(name="b").evolve(status={"state": "NotReady"}),
        phi.with_metadata(name="c").evolve(inference=other),
        phi.with_metadata(name="d").evolve(inference={"template": {"spec": {}}}),
        phi.with_metadata(name="e", deletion_timestamp="2030-01-01T00:00:00Z"),
    ]
    registry, metrics = CollectorRegistry(), WorkspaceMetrics()
    metrics.register(registry, lambda: map(WorkspaceFigures.of, workspaces))

    def value(metric: str, **labels: str) -> float | None:
        return registry.get_sample_value(metric, labels)

    counts = {name: value("kaito_workspaces", phase=name) for name in ("succeeded", "error", "pending", "deleting")}
    assert counts == {"succeeded": 1, "error": 1, "pending": 2, "deleting": 1}
    assert value("kaito_preset_workspaces", preset_name="phi-3-mini-4k-instruct") == 3
    assert value("kaito_preset_workspaces", preset_name="phi-4") == 1
    assert value("kaito_workspace_phase", namespace="default", name="b", phase="error") == 1
    metrics.claim_ready_seconds.labels("machine").observe(61)
    metrics.time_to_ready_seconds.observe(3601)
    bucket = "kaito_nodeclaim_ready_seconds_bucket"
    assert [value(bucket, kind="machine", le=limit) for limit in ("60.0", "120.0")] == [0, 1]
    assert value("kaito_workspace_time_to_ready_seconds_bucket", le="3600.0") == 0
    assert PROVISION_BOUNDS_SECONDS == (10, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)


def test_the_policy_rejects_every_deletion_of_the_installation() -> None:
    policy, binding = in_use_policy.policy("kaito-system"), in_use_policy.binding()
    assert (policy.name, binding.name) == ("kaito-in-use", "kaito-in-use")
    expression = (
        "!(namespaceObject == null || (has(namespaceObject.metadata.labels) && "
        '"kaito.sh/installation" in namespaceObject.metadata.labels && '
        'namespaceObject.metadata.labels["kaito.sh/installation"] == "true") || '
        'namespaceObject.metadata.name == "kaito-system")'
    )
    assert policy.spec == {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}],
            "objectSelector": {"matchLabels": {"kaito.sh/installation": "true"}},
        },
        "validations": [{"expression": expression, "message": in_use_policy.MESSAGE, "reason": "Forbidden"}],
    }
    assert binding.spec == {"policyName": "kaito-in-use", "validationActions": ["Deny"]}
    digests = [found.annotations["kaito.sh/spec-digest"] for found in (policy, binding)]
    assert [len(digest) for digest in digests] == [16, 16]
    assert digests[0] != digests[1]
