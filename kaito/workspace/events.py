"""Reads Events for causes that no condition reports.

Karpenter deletes a NodeClaim that it cannot launch and reports the cause only in an Event. A StatefulSet or Job whose
pods are rejected (Pod Security, quota, LimitRange, webhook) also reports it only in an Event. The steps read Events
live, with a field selector for one object, after they observed the effect. Events are not watched.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from kaito.runtime.client import Api
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Event, Pod
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource

CLUSTER_SCOPED_NAMESPACE: Final = "default"
"""Namespace of the Events about cluster-scoped objects."""

CREATION_FAILED: Final = "FailedCreate"
CREATION_SUCCEEDED: Final = "SuccessfulCreate"
"""Reasons with which the StatefulSet and Job controllers of Kubernetes report the creation of a pod."""

START_FAILURES: Final = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"}
)
"""Reasons with which the kubelet and the attach controller report a pod that waits for volumes or its sandbox."""

_DELETION = re.compile("terminat|delet|expir|disrupt|evict|reclaim", re.IGNORECASE)

_log = get_logger("events")


async def find_loss_cause(api: Api, kind: type[Resource], name: str) -> str:
    """Returns the newest Warning about a claim, else the newest Event about its deletion; empty if there is none."""
    events = await _list_events(api, kind, name, CLUSTER_SCOPED_NAMESPACE)
    warnings = [event for event in events if event.type == "Warning"]
    deletions = [event for event in events if _DELETION.search(f"{event.reason} {event.note}")]
    newest = max(warnings or deletions, key=last_seen_at, default=None)
    return "" if newest is None else _text(newest)


async def find_pod_creation_failure(api: Api, workload: Resource) -> str:
    """Returns why the workload's last attempt to create a pod failed; empty if it succeeded."""
    events = await _list_events(api, type(workload), workload.name, workload.namespace)
    attempts = [
        event
        for event in events
        if event.reason in {CREATION_FAILED, CREATION_SUCCEEDED} and event.regarding.uid in {None, "", workload.uid}
    ]
    newest = max(attempts, key=last_seen_at, default=None)
    return newest.note.strip() if newest is not None and newest.reason == CREATION_FAILED else ""


async def find_pod_start_failure(api: Api, pod: Pod) -> str:
    """Returns what the kubelet reports about a pod whose containers do not start; empty if nothing."""
    events = await _list_events(api, Pod, pod.name, pod.namespace)
    failures = [e for e in events if e.type == "Warning" and e.reason in START_FAILURES and e.regarding.uid == pod.uid]
    newest = max(failures, key=last_seen_at, default=None)
    return "" if newest is None else _text(newest)


def last_seen_at(event: Event) -> datetime:
    """Returns the time of the last occurrence, from the fields of both generations of the Event API."""
    times = [
        event.series.last_observed_time if event.series is not None else None,
        event.deprecated_last_timestamp,
        event.event_time,
        event.metadata.creation_timestamp,
    ]
    return max((time for time in times if time is not None), default=datetime.min.replace(tzinfo=UTC))


async def _list_events(api: Api, kind: type[Resource], name: str, namespace: str) -> Sequence[Event]:
    """Lists the Events about an object. If the API server cannot be read, the cause stays unknown."""
    fields = {"regarding.kind": kind.kind, "regarding.name": name}
    try:
        return await api.client.list(Event, namespace=namespace, fields=fields)
    except KaitoRuntimeError as error:
        _log.warning("events not read", kind=kind.kind, object=name, error=str(error))
        return ()


def _text(event: Event) -> str:
    return f"{event.reason}: {event.note.strip()}" if event.note.strip() else event.reason
