"""Reads the load of the servers of an object when it is requested.

An answer is used again for `FRESH_SECONDS`: KEDA and the HorizontalPodAutoscaler request each metric separately.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, final

from kaito.runtime.clock import Clock
from kaito.runtime.kinds import Pod
from kaito.workspace.pod_polls import MAX_CONCURRENT_POLLS, Fetch, fetch_metrics
from kaito.workspace.scaling.load import Observation, ServerLoad, observe, parse_load

FRESH_SECONDS: Final = 5.0
"""Age at which the load is read again. A HorizontalPodAutoscaler reads it every 15 s."""

FORGET_SECONDS: Final = 3600.0
"""Time after which an object for which nothing is requested is forgotten. KEDA requests it every 30 s by default."""


@final
@dataclass(slots=True)
class _Subject:
    """What was read of one object."""

    last: Mapping[str, ServerLoad] = field(default_factory=dict[str, ServerLoad])
    observation: Observation | None = None
    is_first: bool = True
    """Whether there is one reading only, so that a mean since the last reading is unknown."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """The load of an object."""

    observation: Observation
    is_first: bool
    """Whether means since the last reading are unknown."""


@final
class LoadReader:
    """Reads the load of objects and keeps the last reading of each.

    Args:
        clock: the current time.
        fetch: reads the metrics of a pod; `fetch_metrics` by default.
    """

    def __init__(self, clock: Clock, fetch: Fetch | None = None) -> None:
        self._clock = clock
        self._fetch = fetch or fetch_metrics
        self._subjects: dict[str, _Subject] = {}
        self._limit = asyncio.Semaphore(MAX_CONCURRENT_POLLS)

    async def read(self, subject: str, pods: Sequence[Pod]) -> Reading:
        """Returns the load of the ready copies, which is at most `FRESH_SECONDS` old.

        Args:
            subject: identifies the object.
            pods: its ready copies.
        """
        self._forget()
        found = self._subjects.setdefault(subject, _Subject())
        async with found.lock:
            observation, now = found.observation, self._clock.now()
            if observation is None or _is_old(observation.at, now, FRESH_SECONDS) or observation.copies != len(pods):
                found.is_first = observation is None
                observation = await self._observe(found, pods)
            return Reading(observation, found.is_first)

    async def _observe(self, found: _Subject, pods: Sequence[Pod]) -> Observation:
        loads: dict[str, ServerLoad] = {}

        async def read_one(pod: Pod) -> None:
            async with self._limit:
                load = parse_load(await self._fetch(pod.status.pod_ip)) if pod.status.pod_ip else None
            if load is not None:
                loads[pod.uid] = load

        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(read_one(pod))
        found.observation = observe(self._clock.now(), len(pods), loads, found.last)
        found.last = loads
        return found.observation

    def _forget(self) -> None:
        now = self._clock.now()
        for subject, found in list(self._subjects.items()):
            if found.observation is not None and _is_old(found.observation.at, now, FORGET_SECONDS):
                del self._subjects[subject]


def _is_old(at: datetime, now: datetime, seconds: float) -> bool:
    return not timedelta(0) <= now - at <= timedelta(seconds=seconds)  # a later time is of a clock that was ahead
