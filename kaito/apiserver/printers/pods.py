"""The row of a pod in `kubectl get pods` (`printPod` of the real server)."""

from __future__ import annotations

from datetime import datetime

from kaito.apiserver.schema.durations import age, human_duration, parse_time
from kaito.apiserver.wire import Json, Object, lookup


class _Restarts:
    """Counts restarts and remembers the newest."""

    def __init__(self) -> None:
        self.count = 0
        self.last: datetime | None = None

    def add(self, status: Object) -> None:
        self.count += int(status.get("restartCount") or 0)
        ended = parse_time(lookup(status, ("lastState", "terminated", "finishedAt")))
        if ended is not None and (self.last is None or ended > self.last):
            self.last = ended

    def text(self, now: datetime) -> str:
        if self.count and self.last is not None:
            return f"{self.count} ({human_duration((now - self.last).total_seconds())} ago)"
        return str(self.count)


def _terminated_reason(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _is_sidecar(container: Object | None) -> bool:
    return container is not None and container.get("restartPolicy") == "Always"


def _init_state(data: Object, restarts: _Restarts, sidecars: _Restarts) -> tuple[str, int]:
    """Returns why init containers delay the pod ("" when they do not) and the number of ready sidecars."""
    containers: list[Object] = lookup(data, ("spec", "initContainers")) or []
    by_name = {item.get("name"): item for item in containers}
    statuses: list[Object] = lookup(data, ("status", "initContainerStatuses")) or []
    ready = 0
    for index, status in enumerate(statuses):
        restarts.add(status)
        sidecar = _is_sidecar(by_name.get(status.get("name")))
        if sidecar:
            sidecars.add(status)
        state: Object = status.get("state") or {}
        terminated: Object | None = state.get("terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and status.get("started"):
            ready += bool(status.get("ready"))
            continue
        if terminated is not None:
            return "Init:" + _terminated_reason(terminated), ready
        waiting = str(lookup(state, ("waiting", "reason")) or "")
        if waiting and waiting != "PodInitializing":
            return "Init:" + waiting, ready
        return f"Init:{index}/{len(containers)}", ready
    return "", ready


def _is_true(data: Object, kind: str) -> bool:
    conditions: list[Object] = lookup(data, ("status", "conditions")) or []
    return any(item.get("type") == kind and item.get("status") == "True" for item in conditions)


def _container_state(data: Object, reason: str, restarts: _Restarts) -> tuple[str, int]:
    """Returns the reason shown for the pod and how many containers are ready."""
    ready, running, failure = 0, False, ""
    statuses: list[Object] = lookup(data, ("status", "containerStatuses")) or []
    for status in reversed(statuses):
        restarts.add(status)
        state: Object = status.get("state") or {}
        terminated: Object | None = state.get("terminated")
        if lookup(state, ("waiting", "reason")):
            reason = str(state["waiting"]["reason"])
        elif terminated is not None:
            reason = _terminated_reason(terminated)
            failure = reason if terminated.get("exitCode") else failure
        elif status.get("ready") and state.get("running") is not None:
            running, ready = True, ready + 1
    if reason == "Completed":
        if running and _is_true(data, "Ready"):
            reason = "Running"
        elif failure:
            reason = failure
        elif running:
            reason = "NotReady"
    return reason, ready


def pod_cells(data: Object, now: datetime) -> list[Json]:
    """Returns the cells of a pod, those of `-o wide` included."""
    spec: Object = data.get("spec") or {}
    status: Object = data.get("status") or {}
    phase = str(status.get("phase", ""))
    reason = str(status.get("reason") or phase)
    conditions: list[Object] = status.get("conditions") or []
    if any(item.get("type") == "PodScheduled" and item.get("reason") == "SchedulingGated" for item in conditions):
        reason = "SchedulingGated"
    restarts, sidecars = _Restarts(), _Restarts()
    held, ready = _init_state(data, restarts, sidecars)
    if held and not _is_true(data, "Initialized"):
        reason = held
    else:
        restarts = sidecars
        reason, more = _container_state(data, held or reason, restarts)
        ready += more
    if data["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif phase not in {"Succeeded", "Failed"}:
            reason = "Terminating"
    sidecar_count = sum(_is_sidecar(item) for item in spec.get("initContainers") or ())
    total = len(spec.get("containers") or ()) + sidecar_count
    return [
        data["metadata"]["name"],
        f"{ready}/{total}",
        reason,
        restarts.text(now),
        age(data["metadata"].get("creationTimestamp"), now),
        str(lookup((status.get("podIPs") or [{}])[0], ("ip",)) or status.get("podIP") or "<none>"),
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        _gates(spec, data),
    ]


def _gates(spec: Object, data: Object) -> str:
    gates: list[Object] = spec.get("readinessGates") or []
    if not gates:
        return "<none>"
    return f"{sum(_is_true(data, str(gate.get('conditionType'))) for gate in gates)}/{len(gates)}"
