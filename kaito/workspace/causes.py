"""Why an object was lost or not created, read from the Events about it.

Some causes are in no condition: Karpenter deletes a NodeClaim that it cannot launch at once and leaves an Event; a
StatefulSet or Job whose pods are refused (Pod Security, quota, LimitRange, webhook) reports it only in an Event. Events
are read live, with a field selector for one object, when a pass has found the effect; they are never watched.
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
"""Where recorders put the events of objects without a namespace."""

CREATION_FAILED: Final = "FailedCreate"
CREATION_SUCCEEDED: Final = "SuccessfulCreate"
"""Reasons that the StatefulSet and Job controllers of Kubernetes give to the creation of a pod."""

START_PROBLEMS: Final = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"}
)
"""Reasons that the kubelet and the attach controller give while a pod waits for volumes or its sandbox."""

_END = re.compile("terminat|delet|expir|disrupt|evict|reclaim", re.IGNORECASE)

_log = get_logger("causes")


async def why_lost(api: Api, kind: type[Resource], name: str) -> str:
    """The newest Warning about the object, else the newest event about its end; empty when there is none."""
    events = await _events(api, kind, name, CLUSTER_SCOPED_NAMESPACE)
    warnings = [event for event in events if event.type == "Warning"]
    ends = [event for event in events if _END.search(f"{event.reason} {event.note}")]
    newest = max(warnings or ends, key=moment, default=None)
    return "" if newest is None else _words(newest)


async def why_no_pods(api: Api, workload: Resource) -> str:
    """What refused the workload's last attempt to create a pod; empty when the last attempt succeeded."""
    events = await _events(api, type(workload), workload.name, workload.namespace)
    attempts = [
        event
        for event in events
        if event.reason in {CREATION_FAILED, CREATION_SUCCEEDED} and event.regarding.uid in {None, "", workload.uid}
    ]
    newest = max(attempts, key=moment, default=None)
    return newest.note.strip() if newest is not None and newest.reason == CREATION_FAILED else ""


async def why_waiting(api: Api, pod: Pod) -> str:
    """What the kubelet reports about a pod that does not start its containers; empty when nothing."""
    events = await _events(api, Pod, pod.name, pod.namespace)
    waits = [e for e in events if e.type == "Warning" and e.reason in START_PROBLEMS and e.regarding.uid == pod.uid]
    newest = max(waits, key=moment, default=None)
    return "" if newest is None else _words(newest)


def moment(event: Event) -> datetime:
    """When the event was last seen: recorders of both API generations are understood."""
    seen = [
        event.series.last_observed_time if event.series is not None else None,
        event.deprecated_last_timestamp,
        event.event_time,
        event.metadata.creation_timestamp,
    ]
    return max((time for time in seen if time is not None), default=datetime.min.replace(tzinfo=UTC))


async def _events(api: Api, kind: type[Resource], name: str, namespace: str) -> Sequence[Event]:
    """The events about one object. An API server that does not answer, or refuses, leaves the cause unknown."""
    fields = {"regarding.kind": kind.kind, "regarding.name": name}
    try:
        return await api.client.list(Event, namespace=namespace, fields=fields)
    except KaitoRuntimeError as error:
        _log.warning("events not read", kind=kind.kind, object=name, error=str(error))
        return ()


def _words(event: Event) -> str:
    return f"{event.reason}: {event.note.strip()}" if event.note.strip() else event.reason
