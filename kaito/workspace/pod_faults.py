"""Finds in the status of pods why a workload is not ready.

The order of the rules is upstream Kaito's (v0.12). A fault contains the message of Kubernetes and the container's last
termination message, because "CrashLoopBackOff" alone does not name the cause.

The pods of a copy that is divided over several nodes end together. The pod that ended first has the cause; the others
contain only that their group ended, which is reported if the cause is not known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, final

from kaito.api import conditions
from kaito.runtime.kinds import ContainerStatus, Pod

IMAGE_PULL_REASONS: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
START_ERROR_REASONS: Final = frozenset(
    {
        "CreateContainerConfigError",
        "PreCreateHookError",
        "CreateContainerError",
        "PreStartHookError",
        "RunContainerError",
        "PostStartHookError",
    }
)
GROUP_ENDED: Final = "kaito-vllm: the group ended: "
"""Last line of a container that ended because another pod of its group did (`kaito_presets.vllm.group`)."""

GROUP_CAUSE_AGE: Final = timedelta(minutes=10)
"""Time between the end of a container and that of the others of its group, within which it is their cause."""

MAX_SUMMARY_CHARACTERS: Final = 1024
"""Longest termination message in a condition."""


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one pod."""

    reason: str
    """Reason of the condition."""
    message: str
    """Names the pod and container, with the message of Kubernetes or of the process."""


def find_fault(pods: Sequence[Pod]) -> Fault | None:
    """Returns the fault of any pod that the first matching rule finds; None if there is none."""
    live = [pod for pod in pods if not pod.deleting]
    for rule in _RULES:
        found = [fault for pod in live if (fault := next(rule(pod), None)) is not None]
        for fault in found:
            if GROUP_ENDED not in fault.message:
                return fault
        if found:
            return _find_group_cause(live) or found[0]
    return None


def _find_group_cause(pods: Sequence[Pod]) -> Fault | None:
    """Returns the end that made the other pods of its group end: the latest one that has another cause.

    The container of a worker counts as ready as soon as it runs again, so that no other rule finds it.
    """
    followed = [
        at for pod in pods for status in _containers(pod) if _ended_with_group(status) and (at := _end_of(status))
    ]
    causes = [
        (at, pod, status)
        for pod in pods
        for status in _containers(pod)
        if termination_summary(status) and not _ended_with_group(status) and (at := _end_of(status))
    ]
    recent = [cause for cause in causes if any(abs(cause[0] - at) <= GROUP_CAUSE_AGE for at in followed)]
    if not recent:
        return None
    _, pod, status = max(recent, key=lambda cause: cause[0])
    description = _describe_ends(status, is_looping=False)
    message = f"container {status.name} of pod {pod.name} {description}, and the pods of its group with it"
    return Fault(conditions.CONTAINER_CRASH_LOOP, f"{message}; last {termination_summary(status)}")


def _ended_with_group(status: ContainerStatus) -> bool:
    return GROUP_ENDED in termination_summary(status)


def _end_of(status: ContainerStatus) -> datetime | None:
    ended = status.state.terminated or status.last_state.terminated
    return ended.finished_at if ended is not None else None


def has_started(pod: Pod) -> bool:
    """Whether a container of the pod, including init containers, runs or ran."""
    return any(
        status.state.running or status.state.terminated or status.last_state.terminated or status.restart_count
        for status in _containers(pod)
    )


def termination_summary(status: ContainerStatus) -> str:
    """Returns exit code and termination message of the container's last end; empty if it never ended."""
    ended = status.state.terminated or status.last_state.terminated
    if ended is None:
        return ""
    text = ended.message.strip()[-MAX_SUMMARY_CHARACTERS:]
    code = f"exit code {ended.exit_code}"
    if ended.reason and ended.reason not in {"Error", "Completed"}:
        code += f" ({ended.reason})"
    return f"{code}: {text}" if text else code


def _containers(pod: Pod) -> Iterator[ContainerStatus]:
    yield from pod.status.init_container_statuses
    yield from pod.status.container_statuses


def _out_of_memory(pod: Pod) -> Iterator[Fault]:
    for status in _containers(pod):
        for ended in (status.state.terminated, status.last_state.terminated):
            if ended is not None and ended.reason == "OOMKilled":
                yield Fault(
                    conditions.CONTAINER_OOM_KILLED,
                    f"container {status.name} of pod {pod.name} ran out of memory and was killed "
                    f"({status.restart_count} restart{'' if status.restart_count == 1 else 's'})",
                )


def _waiting(reasons: frozenset[str], reason: str) -> Callable[[Pod], Iterator[Fault]]:
    def rule(pod: Pod) -> Iterator[Fault]:
        for status in _containers(pod):
            waiting = status.state.waiting
            if waiting is not None and waiting.reason in reasons:
                detail = f": {waiting.message}" if waiting.message else ""
                yield Fault(reason, f"container {status.name} of pod {pod.name}: {waiting.reason}{detail}")

    return rule


def _crash_loop(pod: Pod) -> Iterator[Fault]:
    for status in _containers(pod):
        waiting, summary = status.state.waiting, termination_summary(status)
        is_looping = waiting is not None and waiting.reason == "CrashLoopBackOff"
        ended = status.state.terminated is not None and status.state.terminated.exit_code != 0
        restarted = status.restart_count > 0 and not status.ready and bool(summary)
        if is_looping or ended or restarted:
            detail = f"; last {summary}" if summary else ""
            yield Fault(
                conditions.CONTAINER_CRASH_LOOP,
                f"container {status.name} of pod {pod.name} {_describe_ends(status, is_looping=is_looping)}{detail}",
            )


def _describe_ends(status: ContainerStatus, *, is_looping: bool) -> str:
    """Describes how often the container ended; a single end is not a loop."""
    if status.restart_count > 1:
        return f"ends repeatedly ({status.restart_count} restarts)"
    if status.restart_count == 0:
        return "ended"
    return "ended twice and is about to be restarted again" if is_looping else "ended and was restarted once"


def _evicted(pod: Pod) -> Iterator[Fault]:
    if pod.status.phase != "Failed" or pod.status.reason != "Evicted":
        return
    text = pod.status.message
    lowered = text.lower()
    if "ephemeral-storage" in lowered or "disk" in lowered:
        reason = conditions.NODE_DISK_PRESSURE
    elif "memory" in lowered:
        reason = conditions.NODE_MEMORY_PRESSURE
    else:
        reason = conditions.POD_EVICTED
    yield Fault(reason, f"pod {pod.name} was evicted: {text or 'no message'}")


def _unschedulable(pod: Pod) -> Iterator[Fault]:
    scheduled = pod.condition("PodScheduled")
    if pod.status.phase == "Pending" and scheduled is not None and scheduled.reason == "Unschedulable":
        yield Fault(conditions.UNSCHEDULABLE, f"pod {pod.name} cannot be scheduled: {scheduled.message}")


def _failed(pod: Pod) -> Iterator[Fault]:
    if pod.status.phase == "Failed":
        detail = ": ".join(filter(None, (pod.status.reason, pod.status.message))) or "no reason given"
        yield Fault(conditions.POD_FAILED, f"pod {pod.name} failed: {detail}")


_RULES: tuple[Callable[[Pod], Iterator[Fault]], ...] = (
    _out_of_memory,
    _waiting(IMAGE_PULL_REASONS, conditions.IMAGE_PULL_ERROR),
    _waiting(START_ERROR_REASONS, conditions.CONTAINER_START_ERROR),
    _crash_loop,
    _evicted,
    _unschedulable,
    _failed,
)
