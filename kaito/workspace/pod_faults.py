"""Why a workload is not ready, read from its pods: the first fault that explains it, in words.

The order of the rules is upstream Kaito's (v0.12). Kubernetes says most of it itself; what is added is the last
termination message, because "CrashLoopBackOff" alone tells nobody anything.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

from kaito.api import conditions
from kaito.runtime.kinds import ContainerStatus, Pod

IMAGE_PULL = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
START_ERROR = frozenset(
    {
        "CreateContainerConfigError",
        "PreCreateHookError",
        "CreateContainerError",
        "PreStartHookError",
        "RunContainerError",
        "PostStartHookError",
    }
)
MESSAGE_LIMIT = 1024
"""Characters of a container's last words that fit into a condition a person reads."""


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one pod."""

    reason: str
    """Condition reason."""
    message: str
    """Names the pod and container, and quotes Kubernetes or the process."""


def classify(pods: Sequence[Pod]) -> Fault | None:
    """The most telling fault of any pod; None when nothing is wrong yet."""
    living = [pod for pod in pods if not pod.deleting]
    for rule in _RULES:
        for pod in living:
            fault = next(rule(pod), None)
            if fault is not None:
                return fault
    return None


def has_started(pod: Pod) -> bool:
    """Whether a container of the pod, an init container too, runs or ran."""
    return any(
        status.state.running or status.state.terminated or status.last_state.terminated or status.restart_count
        for status in _containers(pod)
    )


def last_words(status: ContainerStatus) -> str:
    """How the container ended last: its termination message, else its exit code; empty when it never ended."""
    ended = status.state.terminated or status.last_state.terminated
    if ended is None:
        return ""
    text = ended.message.strip()[-MESSAGE_LIMIT:]
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
        waiting, words_ = status.state.waiting, last_words(status)
        looping = waiting is not None and waiting.reason == "CrashLoopBackOff"
        ended = status.state.terminated is not None and status.state.terminated.exit_code != 0
        restarted = status.restart_count > 0 and not status.ready and bool(words_)
        if looping or ended or restarted:
            detail = f"; last {words_}" if words_ else ""
            yield Fault(
                conditions.CONTAINER_CRASH_LOOP,
                f"container {status.name} of pod {pod.name} {_ends(status, looping=looping)}{detail}",
            )


def _ends(status: ContainerStatus, *, looping: bool) -> str:
    """How often the container ended; a single end is not a loop."""
    if status.restart_count > 1:
        return f"keeps ending ({status.restart_count} restarts)"
    if status.restart_count == 0:
        return "ended"
    return "ended twice and is about to be restarted again" if looping else "ended and was restarted once"


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
        yield Fault(conditions.UNSCHEDULABLE, f"pod {pod.name} fits on no node: {scheduled.message}")


def _failed(pod: Pod) -> Iterator[Fault]:
    if pod.status.phase == "Failed":
        detail = ": ".join(filter(None, (pod.status.reason, pod.status.message))) or "no reason given"
        yield Fault(conditions.POD_FAILED, f"pod {pod.name} failed: {detail}")


_RULES: tuple[Callable[[Pod], Iterator[Fault]], ...] = (
    _out_of_memory,
    _waiting(IMAGE_PULL, conditions.IMAGE_PULL_ERROR),
    _waiting(START_ERROR, conditions.CONTAINER_START_ERROR),
    _crash_loop,
    _evicted,
    _unschedulable,
    _failed,
)
