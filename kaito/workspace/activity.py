"""Polls the servers in pods for their requests, to find Workspaces without requests.

Only Workspaces that scale to zero are polled. A reconcile names the ready pods and reads what the last polls returned.
The counters of all pods together are a digest: a different digest means that there were requests, also after a restart
of the controller, because the status contains the last one.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from kaito.api import labels
from kaito.runtime.cache import View
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.workqueue import Cause
from kaito.workspace.digest import digest
from kaito.workspace.pod_polls import Fetch, PolledPod, fetch_metrics, poll_pods
from kaito.workspace.server_metrics import read_samples

POLL_SECONDS: Final = 10.0
"""Interval of the polls. A scale to zero is decided with polls that are not older than two of them."""

_REQUESTS: Final = "kaito_http_requests_total"
_RUNNING: Final = frozenset({"kaito_generation_in_flight", "kaito_generation_queue_length"})
_READ: Final = frozenset({_REQUESTS, *_RUNNING})
_ROUTE: Final = re.compile(r'route="([^"]*)"')

_OWN_ROUTES: Final = frozenset(
    {"/", "/health", "/healthz", "/metrics", "/progress", "/adapters", "/version", "/ping", "/load", "/openapi.json"}
)
"""Routes that probes, controllers and monitoring call. All others count as requests of users."""


@final
@dataclass(frozen=True, slots=True)
class PodActivity:
    """What one pod reported."""

    requests: int
    """Requests since its server started."""
    running: int
    """Requests that run or wait."""
    polled_at: datetime


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What all pods of a Workspace reported."""

    requests_seen: str
    """Digest of the counters of all pods."""
    is_running: bool
    """Whether a request runs or waits."""
    changed_at: datetime | None
    """When a poll of this process last saw other counters or a running request; None if none did."""
    polled_at: datetime
    """Time of the oldest poll."""


def parse_activity(body: bytes | None, now: datetime) -> PodActivity | None:
    """Returns the activity in the metrics of a server; None if they are missing or lack the number of requests."""
    if body is None:
        return None
    samples = read_samples(body, _READ)
    if samples is None or not any(sample.name in _RUNNING for sample in samples):
        return None
    running = sum(sample.value for sample in samples if sample.name in _RUNNING)
    requests = sum(sample.value for sample in samples if sample.name == _REQUESTS and not _is_own(sample.labels))
    return PodActivity(int(requests), int(running), now)


def _is_own(sample_labels: str) -> bool:
    route = _ROUTE.search(sample_labels)
    return route is not None and route.group(1) in _OWN_ROUTES


@final
class ActivityMonitor:
    """The pods whose requests are counted, and what they reported.

    Args:
        fetch: reads the metrics of a pod; `fetch_metrics` by default.
        clock: the current time.
    """

    def __init__(self, fetch: Fetch | None = None, clock: Clock | None = None) -> None:
        self._fetch = fetch or fetch_metrics
        self._clock = clock or SystemClock()
        self._watched: dict[ObjectKey, dict[str, str]] = {}
        self._found: dict[str, PodActivity] = {}
        self._changed: dict[ObjectKey, datetime] = {}
        self._reported: set[ObjectKey] = set()
        self._added = asyncio.Event()

    def watch(self, workspace: ObjectKey, pods: Sequence[Pod]) -> None:
        """Polls exactly these pods of the Workspace from now on: those that are ready and lead a copy."""
        ready = {pod.uid: pod.status.pod_ip for pod in pods if _answers(pod) and pod.status.pod_ip}
        for uid in self._watched.get(workspace, {}).keys() - ready.keys():
            self._found.pop(uid, None)
        if ready:
            self._watched[workspace] = ready
            self._added.set()
        else:
            self._watched.pop(workspace, None)
            self._changed.pop(workspace, None)
            self._reported.discard(workspace)

    def report_changes(self, workspace: ObjectKey, *, on: bool) -> None:
        """Queues the Workspace at every request from now on, or not any more. Otherwise only first answers queue it."""
        if on:
            self._reported.add(workspace)
        else:
            self._reported.discard(workspace)

    def find(self, workspace: ObjectKey) -> Activity | None:
        """Returns the activity of a Workspace; None unless every watched pod has answered a poll."""
        pods = self._watched.get(workspace, {})
        found = [(uid, self._found.get(uid)) for uid in sorted(pods)]
        known = [(uid, activity) for uid, activity in found if activity is not None]
        if not known or len(known) < len(pods):
            return None
        return Activity(
            requests_seen=digest([[uid, activity.requests] for uid, activity in known]),
            is_running=any(activity.running for _, activity in known),
            changed_at=self._changed.get(workspace),
            polled_at=min(activity.polled_at for _, activity in known),
        )

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while no pod is watched."""
        await poll_pods(self._due, lambda pod: self._poll(pod, enqueue), self._added, interval_seconds=POLL_SECONDS)

    def _due(self) -> list[PolledPod]:
        return [PolledPod(key, uid, ip) for key, found in self._watched.items() for uid, ip in found.items()]

    async def _poll(self, pod: PolledPod, enqueue: Enqueue) -> None:
        now = self._clock.now()
        found = parse_activity(await self._fetch(pod.address), now)
        if pod.uid not in self._watched.get(pod.workspace, {}):
            return
        before = self._found.get(pod.uid)
        if found is None:
            # Unknown: an old answer must not stand for a server that does not answer any more.
            self._found.pop(pod.uid, None)
            return
        self._found[pod.uid] = found
        is_change = bool(found.running) or (before is not None and found.requests != before.requests)
        if is_change:
            self._changed[pod.workspace] = now
        if before is None or (is_change and pod.workspace in self._reported):
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, "requests"))


def _answers(pod: Pod) -> bool:
    return pod.is_ready and not pod.deleting and pod.labels.get(labels.GROUP_ROLE, labels.LEADER) == labels.LEADER
