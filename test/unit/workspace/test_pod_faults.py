"""Faults of pods contain the message of Kubernetes and of the process."""

from typing import Any

import pytest

from kaito.runtime.kinds import Pod
from kaito.workspace.pod_faults import find_fault


def pod(name: str = "ws-0", *, init: dict[str, Any] | None = None, **status: Any) -> Pod:
    main = {"name": "server", **status.pop("main", {})}
    if init is not None:
        status["initContainerStatuses"] = [{"name": "puller-a", **init}]
    status["containerStatuses"] = [main]
    return Pod.model_validate({"metadata": {"name": name, "namespace": "default"}, "status": status})


WAITING_FOR_IMAGE: dict[str, Any] = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}
CRASHING: dict[str, Any] = {
    "restartCount": 3,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "weights not found\n"}},
}
KILLED: dict[str, Any] = {
    "restartCount": 1,
    "state": {"running": {}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}


@pytest.mark.parametrize(
    ("sick", "reason", "words"),
    [
        (pod(main=WAITING_FOR_IMAGE), "ImagePullError", "no such tag"),
        (pod(init=WAITING_FOR_IMAGE), "ImagePullError", "puller-a"),
        (pod(main={"state": {"waiting": {"reason": "CreateContainerConfigError"}}}), "ContainerStartError", "server"),
        (pod(main=CRASHING), "ContainerCrashLoopBackOff", "exit code 1: weights not found"),
        (pod(main=KILLED), "ContainerOOMKilled", "ran out of memory"),
        (
            pod(main={"state": {"terminated": {"exitCode": 2, "message": "bad flag"}}}),
            "ContainerCrashLoopBackOff",
            "bad flag",
        ),
        (pod(phase="Failed", reason="Evicted", message="low on ephemeral-storage"), "NodeDiskPressure", "ephemeral"),
        (pod(phase="Failed", reason="Evicted", message="low on resource: memory"), "NodeMemoryPressure", "memory"),
        (pod(phase="Failed", reason="Evicted", message="preempted"), "PodEvicted", "preempted"),
        (pod(phase="Failed", reason="UnexpectedAdmissionError", message="no gpu left"), "PodFailed", "no gpu left"),
        (
            pod(
                phase="Pending",
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
                ],
            ),
            "Unschedulable",
            "0/1 nodes",
        ),
    ],
)
def test_each_fault_names_its_cause(sick: Pod, reason: str, words: str) -> None:
    fault = find_fault([pod("healthy", main={"ready": True, "state": {"running": {}}}), sick])
    assert fault is not None
    assert fault.reason == reason
    assert words in fault.message
    assert "ws-0" in fault.message


def test_a_starting_pod_is_no_fault() -> None:
    assert find_fault([pod(phase="Pending", main={"state": {"waiting": {"reason": "ContainerCreating"}}})]) is None
    assert find_fault([pod(phase="Running", main={"state": {"running": {}}})]) is None
    assert find_fault([]) is None


def test_a_pod_that_is_going_away_explains_nothing() -> None:
    leaving = pod(main=CRASHING).with_metadata(deletion_timestamp="2030-01-01T00:00:00Z")
    assert find_fault([leaving]) is None


def test_running_between_two_crashes_is_still_a_crash_loop() -> None:
    between: dict[str, Any] = CRASHING | {"state": {"running": {}}, "ready": False}
    fault = find_fault([pod(main=between)])
    assert fault is not None
    assert fault.reason == "ContainerCrashLoopBackOff"


def test_memory_comes_before_the_crash_it_causes() -> None:
    both = CRASHING | {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    fault = find_fault([pod(main=both)])
    assert fault is not None
    assert fault.reason == "ContainerOOMKilled"
