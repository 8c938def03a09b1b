"""Polls the servers of Workspaces and InferenceSets that are scaled by load, and keeps the load of the last minutes.

A reconcile names the ready pods and takes an observation of what the last polls returned. The polls run outside
reconciles. The history is lost in a restart: copies are then removed only after a whole window of new observations.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, final

from kaito.runtime.cache import View
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.workspace.pod_polls import Fetch, PolledPod, fetch_metrics, poll_pods
from kaito.workspace.scaling.load import Observation, ServerLoad, observe, parse_load

POLL_SECONDS: Final = 10.0
"""Interval of the polls."""

MAX_AGE: Final = timedelta(seconds=2.5 * POLL_SECONDS)
"""Age at which the load of a server counts as unknown."""

MAX_HISTORY: Final = timedelta(seconds=3700)
"""Longest history, which covers the longest window."""


@final
@dataclass(slots=True)
class _Subject:
    """What is known about one Workspace or InferenceSet."""

    pods: Mapping[str, str]
    """Addresses of the ready pods by UID."""
    loads: dict[str, tuple[datetime, ServerLoad]] = field(default_factory=dict[str, tuple[datetime, ServerLoad]])
    last: Mapping[str, ServerLoad] = field(default_factory=dict[str, ServerLoad])
    """The load of each server at the last observation."""
    history: list[Observation] = field(default_factory=list[Observation])


@final
class LoadMonitor:
    """The load of all Workspaces, or of all InferenceSets, that are scaled by load.

    Args:
        fetch: reads the metrics of a pod; `fetch_metrics` by default.
        clock: the current time.
    """

    def __init__(self, fetch: Fetch | None = None, clock: Clock | None = None) -> None:
        self._fetch = fetch or fetch_metrics
        self._clock = clock or SystemClock()
        self._subjects: dict[ObjectKey, _Subject] = {}
        self._added = asyncio.Event()

    def forget(self, key: ObjectKey) -> None:
        """Ends the polls of an object and drops its history."""
        self._subjects.pop(key, None)

    def take(self, key: ObjectKey, pods: Sequence[Pod]) -> Sequence[Observation]:
        """Polls exactly these pods from now on; adds an observation of the last polls and returns the history."""
        now = self._clock.now()
        addresses = {pod.uid: pod.status.pod_ip for pod in pods if pod.status.pod_ip}
        subject = self._subjects.setdefault(key, _Subject({}))
        subject.pods = addresses
        subject.loads = {uid: found for uid, found in subject.loads.items() if uid in addresses}
        if addresses:
            self._added.set()
        # Later times are those of a clock that was ahead: they would be in every window until the clock reaches them.
        fresh = {uid: load for uid, (at, load) in subject.loads.items() if now - MAX_AGE < at <= now}
        subject.history = [each for each in subject.history if now - MAX_HISTORY < each.at <= now]
        subject.history.append(observe(now, len(pods), fresh, subject.last))
        subject.last = fresh
        return subject.history

    async def run(self, enqueue: Enqueue, _: View) -> None:  # noqa: ARG002 - of the interface
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while no pod is watched."""
        await poll_pods(self._due, self._poll, self._added, interval_seconds=POLL_SECONDS)

    def _due(self) -> list[PolledPod]:
        return [PolledPod(key, uid, ip) for key, found in self._subjects.items() for uid, ip in found.pods.items()]

    async def _poll(self, pod: PolledPod) -> None:
        load = parse_load(await self._fetch(pod.address))
        subject = self._subjects.get(pod.workspace)
        if load is not None and subject is not None and pod.uid in subject.pods:
            subject.loads[pod.uid] = (self._clock.now(), load)
