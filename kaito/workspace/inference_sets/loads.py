"""Reads how many requests the Workspaces of a set have, before one of several that serve is deleted.

A reconcile names the pods, and the polls run outside reconciles: the set is queued again when every pod has answered,
or has not answered several polls. The load of a pod that does not report one is unknown.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, final

from kaito.runtime.cache import View
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.handler import Enqueue
from kaito.runtime.meta import ObjectKey
from kaito.runtime.workqueue import Cause
from kaito.workspace.pod_polls import Fetch, PolledPod, fetch_metrics, poll_pods
from kaito.workspace.scaling.load import parse_load

POLL_SECONDS: Final = 0.5
"""Pause between two rounds of polls. A pod that answers is polled once."""

ATTEMPTS: Final = 3
"""Polls until the load of a pod is unknown: one may fail while a server is busy, or on the way."""

MAX_AGE: Final = timedelta(seconds=10)
"""Age at which a load is read again, because the decision that it was read for was not carried out."""


@final
@dataclass(slots=True)
class _Subject:
    """The pods of one set."""

    addresses: dict[str, str] = field(default_factory=dict[str, str])
    """Addresses of the pods by UID."""
    answers: dict[str, tuple[datetime, float | None]] = field(default_factory=dict[str, tuple[datetime, float | None]])
    """When each pod was polled, and its requests; None if it reported none."""
    failures: dict[str, int] = field(default_factory=dict[str, int])
    """Polls of pods that have not reported any requests yet."""


@final
class CopyLoads:
    """The requests of pods of InferenceSets that become smaller.

    Args:
        fetch: reads the metrics of a pod; `fetch_metrics` by default.
        clock: the current time.
    """

    def __init__(self, fetch: Fetch | None = None, clock: Clock | None = None) -> None:
        self._fetch, self._clock = fetch or fetch_metrics, clock or SystemClock()
        self._subjects: dict[ObjectKey, _Subject] = {}
        self._added = asyncio.Event()

    def forget(self, key: ObjectKey) -> None:
        """Ends the polls for a set."""
        self._subjects.pop(key, None)

    def take(self, key: ObjectKey, addresses: Mapping[str, str]) -> Mapping[str, float | None] | None:
        """Returns the running and waiting requests by UID of the pod, None for a pod that reports none.

        Returns None while pods are polled; the set is queued when all were.
        """
        subject = self._subjects.setdefault(key, _Subject())
        now = self._clock.now()
        subject.addresses = dict(addresses)
        subject.answers = {
            uid: (at, load)
            for uid, (at, load) in subject.answers.items()
            if now - MAX_AGE < at <= now and uid in addresses
        }
        if addresses.keys() - subject.answers.keys():
            subject.failures = {uid: count for uid, count in subject.failures.items() if uid in addresses}
            self._added.set()
            return None
        return {uid: load for uid, (_, load) in subject.answers.items()}

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while no pod is watched."""
        await poll_pods(self._due, lambda pod: self._poll(pod, enqueue), self._added, interval_seconds=POLL_SECONDS)

    def _due(self) -> list[PolledPod]:
        return [
            PolledPod(key, uid, address)
            for key, subject in self._subjects.items()
            for uid, address in subject.addresses.items()
            if uid not in subject.answers
        ]

    async def _poll(self, pod: PolledPod, enqueue: Enqueue) -> None:
        load = parse_load(await self._fetch(pod.address))
        subject = self._subjects.get(pod.workspace)
        if subject is None or pod.uid not in subject.addresses:
            return
        requests = load.running + load.waiting if load is not None else None
        failures = subject.failures.pop(pod.uid, 0) + 1
        if requests is None and failures < ATTEMPTS:
            subject.failures[pod.uid] = failures
            return
        subject.answers[pod.uid] = (self._clock.now(), requests)
        if not subject.addresses.keys() - subject.answers.keys():
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, "load"))


def requests_of(loads: Mapping[str, float | None], owners: Mapping[str, str]) -> dict[str, float]:
    """Returns the requests by name of the Workspace, without those of which a copy reports none.

    Args:
        loads: requests by UID of the pod.
        owners: name of the Workspace by UID of the pod.
    """
    found: dict[str, float] = {}
    unknown = {owners[uid] for uid, load in loads.items() if load is None}
    for uid, load in loads.items():
        if load is not None and owners[uid] not in unknown:
            found[owners[uid]] = found.get(owners[uid], 0.0) + load
    return found
