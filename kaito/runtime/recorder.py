"""`EventRecorder`: records events (`events.k8s.io/v1`), which `kubectl describe` shows.

`Api.event` and the election record events; the manager sends them in the background. Recording never blocks and never
raises: events beyond the limits are dropped and counted. The correlation is that of Kubernetes' recorder (client-go,
`tools/record`), so that a failing operator does not overload the API server: equal events become one series, many
different notes with the same reason are combined, and each object has a token bucket of new events.
"""

import asyncio
import itertools
import random
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar, final

from kaito.runtime.client.client import Client
from kaito.runtime.client.patch import MergePatch
from kaito.runtime.clock import Clock, SystemClock, monotonic
from kaito.runtime.errors import AlreadyExists, ApiError, KaitoRuntimeError, NotFound, TransportError
from kaito.runtime.kinds.events import Event, EventSeries
from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.meta.model import format_micro_time

QUEUE_LIMIT = 1000
"""Maximum number of queued events; more are dropped."""

CORRELATOR_ENTRIES = 4096
"""Maximum number of series, groups and buckets in memory; the least recently used is evicted first."""

COMBINE_AFTER = 10
"""The tenth different note with the same reason within the window, and all later ones, become one combined event."""

COMBINE_WINDOW_SECONDS = 600.0

BUCKET_SIZE = 25
"""New events of one object and type that are sent at once."""

BUCKET_REFILL_SECONDS = 300.0
"""Interval at which one more is allowed."""

SERIES_WRITE_SECONDS = 60.0
"""Minimum interval of writes of a series; in between the count is kept in memory."""

SERIES_END_SECONDS = 360.0
"""A series without an event for this long ends (client-go: 6 minutes); the next equal event starts a new one."""

SEND_ATTEMPTS = 12
SEND_RETRY_SECONDS = 10.0
"""Attempts while the API server cannot be reached, and their interval; the first delay is random within it."""

FLUSH_SECONDS = 2.0
"""Time in which queued events are sent when the recorder stops."""

_SWEEP_SECONDS = 15.0
_NOTE_BYTES, _WORD_LENGTH = 1024, 128  # limits of the API (events.k8s.io/v1, validation)
_COMBINED = "(combined from similar events): "

EventType = Literal["Normal", "Warning"]
DropReason = Literal["queue-full", "spam", "refused", "unreachable"]

K = TypeVar("K")
V = TypeVar("V")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The object and the fields of an event, without the note."""

    regarding: tuple[str, str, str, str]
    type: EventType
    reason: str
    action: str


@dataclass(slots=True)
class _Group:
    """The different notes of one subject."""

    since: float
    notes: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


@dataclass(slots=True)
class _Series:
    """One event and its count."""

    event: Event
    count: int
    last: datetime
    last_at: float
    written_at: float | None = None
    queued: bool = False
    created: bool = False
    is_stale: bool = True
    """Whether the API server has an older count."""


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """A cache of the most recently used entries."""

    def touch(self, key: K, make: Callable[[], V]) -> V:
        """The entry of the key, made if missing; it becomes the most recently used."""
        if key not in self:
            self[key] = make()
            if len(self) > CORRELATOR_ENTRIES:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


@final
class EventRecorder:
    """Correlates events and sends them in the background. A `Runnable`."""

    name = "events"
    leader_elected = False

    def __init__(
        self,
        client: Client,
        *,
        component: str,
        instance: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
        on_drop: Callable[[DropReason], None] | None = None,
    ) -> None:
        """Makes a recorder; nothing is sent before `run`.

        Args:
            client: sends the events; not fenced, so that the loss of the lease can be recorded.
            component: the reporting controller, for example `workspace-controller`.
            instance: the replica; component and host name by default.
            clock: wall time of the events.
            rng: random generator of the first delay.
            on_drop: called for every event that is not sent, for the metric.
        """
        self._client = client
        self._component = component
        self._instance = (instance or f"{component}-{socket.gethostname()}")[:_WORD_LENGTH]
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 -- spreads retries, guards nothing
        self._on_drop = on_drop
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(QUEUE_LIMIT)
        self._sending = False
        self._serial = itertools.count()
        self._groups: _Recent[_Subject, _Group] = _Recent()
        self._buckets: _Recent[tuple[tuple[str, str, str, str], EventType], _Bucket] = _Recent()
        self._series: _Recent[tuple[_Subject, str], _Series] = _Recent()

    def record(
        self,
        regarding: Resource,
        type: EventType,  # noqa: A002 -- the API's word
        reason: str,
        note: str,
        *,
        action: str,
        related: Resource | None = None,
    ) -> None:
        """Queues an event. `reason` and `action` are CamelCase words, `note` is a sentence."""
        identity = (regarding.kind, regarding.namespace, regarding.name, regarding.uid)
        subject = _Subject(identity, type, reason[:_WORD_LENGTH], action[:_WORD_LENGTH])
        combined = self._is_combined(subject, note)
        key = (subject, _COMBINED if combined else note)
        running = self._series.get(key)
        if running is not None and monotonic() - running.last_at < SERIES_END_SECONDS:
            self._count(running, _cut(_COMBINED + note) if combined else "")
            return
        if not self._has_token(identity, type):
            self._drop("spam")
            return
        event = self._event(subject, regarding, _cut(_COMBINED + note if combined else note), related)
        self._series.pop(key, None)
        now = monotonic()
        self._enqueue(self._series.touch(key, lambda: _Series(event, 1, self._clock.now(), now)))

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
        queued = self._queue.qsize() + self._sending
        return [f"{queued} events to send"] if queued else []

    async def run(self) -> None:
        """Sends events until cancelled, then those that are still queued, within `FLUSH_SECONDS`."""
        swept_at = monotonic()
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SWEEP_SECONDS):
                        series = await self._queue.get()
                    await self._send(series)
                if monotonic() - swept_at >= _SWEEP_SECONDS:
                    swept_at = monotonic()
                    self._sweep()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    while not self._queue.empty():
                        await self._send(self._queue.get_nowait(), attempts=1)

    # -- correlation -------------------------------------------------------------------------------------------------

    def _is_combined(self, subject: _Subject, note: str) -> bool:
        now = monotonic()
        group = self._groups.touch(subject, lambda: _Group(now))
        if now - group.since > COMBINE_WINDOW_SECONDS:
            group.since = now
            group.notes.clear()
        if len(group.notes) < COMBINE_AFTER:
            group.notes.add(note)
        return len(group.notes) >= COMBINE_AFTER

    def _has_token(self, identity: tuple[str, str, str, str], event_type: EventType) -> bool:
        now = monotonic()
        bucket = self._buckets.touch((identity, event_type), lambda: _Bucket(BUCKET_SIZE, now))
        bucket.tokens = min(BUCKET_SIZE, bucket.tokens + (now - bucket.filled_at) / BUCKET_REFILL_SECONDS)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _count(self, series: _Series, note: str) -> None:
        """Counts an event of a series: the second is written at once, later ones at an interval.

        A combined event contains the latest note.
        """
        series.count += 1
        series.last = self._clock.now()
        series.last_at = monotonic()
        series.is_stale = True
        if note:
            series.event = series.event.evolve(note=note)
        if series.count == 2 or self._is_due(series):
            self._enqueue(series)

    @staticmethod
    def _is_due(series: _Series) -> bool:
        return series.written_at is not None and monotonic() - series.written_at >= SERIES_WRITE_SECONDS

    def _sweep(self) -> None:
        """Writes the counts of running series and removes series that have ended."""
        for key, series in list(self._series.items()):
            has_ended = monotonic() - series.last_at >= SERIES_END_SECONDS
            if series.is_stale and series.created and (has_ended or self._is_due(series)):
                self._enqueue(series)
            if has_ended:
                del self._series[key]

    def _enqueue(self, series: _Series) -> None:
        if series.queued:
            return
        try:
            self._queue.put_nowait(series)
        except asyncio.QueueFull:
            self._drop("queue-full")
        else:
            series.queued = True

    def _drop(self, reason: DropReason) -> None:
        if self._on_drop is not None:
            self._on_drop(reason)

    def _event(self, subject: _Subject, regarding: Resource, note: str, related: Resource | None) -> Event:
        now = self._clock.now()
        # Unique among replicas by the time, and within this one by the number. Names have at most 253 characters.
        suffix = f".{int(now.timestamp() * 1e6):x}{next(self._serial):04x}"
        return Event(
            metadata=ObjectMeta(
                name=regarding.name[: 253 - len(suffix)].rstrip("-.") + suffix,
                namespace=regarding.namespace or "default",
            ),
            event_time=now,
            reporting_controller=self._component,
            reporting_instance=self._instance,
            action=subject.action,
            reason=subject.reason,
            regarding=_reference(regarding),
            related=None if related is None else _reference(related),
            note=note,
            type=subject.type,
        )

    # -- sending -----------------------------------------------------------------------------------------------------

    async def _send(self, series: _Series, *, attempts: int = SEND_ATTEMPTS) -> None:
        series.queued = False
        self._sending = True
        try:
            await self._send_with_retries(series, attempts)
        except asyncio.CancelledError:
            self._enqueue(series)  # `run` sends it within the flush
            raise
        except AlreadyExists:
            series.created = True  # an earlier attempt succeeded, its response was lost
        except ApiError as error:
            if not _is_terminating(error):
                _log.warning("event rejected", reason=series.event.reason, note=series.event.note, error=str(error))
                self._drop("refused")
        except KaitoRuntimeError as error:
            _log.warning("event not sent", reason=series.event.reason, note=series.event.note, error=str(error))
            self._drop("unreachable")
        finally:
            self._sending = False

    async def _send_with_retries(self, series: _Series, attempts: int) -> None:
        for attempt in range(1, attempts + 1):
            try:
                await self._write(series)
                return
            except TransportError:
                if attempt == attempts:
                    raise
            share = self._rng.random() if attempt == 1 else 1.0
            await asyncio.sleep(SEND_RETRY_SECONDS * share)

    async def _write(self, series: _Series) -> None:
        count, last = series.count, series.last
        if series.created and count > 1:
            document = {
                "series": {"count": count, "lastObservedTime": format_micro_time(last)},
                "note": series.event.note,
            }
            try:
                await self._client.patch(series.event, MergePatch(document))
            except NotFound:
                series.created = False  # events expire after an hour: create it again
        if not series.created:
            event = series.event
            if count > 1:
                event = event.evolve(series=EventSeries(count=count, last_observed_time=last))
            await self._client.create(event)
            series.created = True
        series.written_at = monotonic()
        series.is_stale = series.count != count


def _reference(obj: Resource) -> ObjectReference:
    return ObjectReference(
        api_version=obj.api_version,
        kind=obj.kind,
        namespace=obj.namespace or None,
        name=obj.name,
        uid=obj.uid or None,
        resource_version=obj.metadata.resource_version or None,
    )


def _cut(note: str) -> str:
    """Cuts a note to the API's limit of bytes, without a partial character at the end."""
    return note if len(note.encode()) <= _NOTE_BYTES else note.encode()[: _NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _is_terminating(error: ApiError) -> bool:
    """Whether the event was rejected because its namespace is being deleted, which is not worth a warning."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.causes)
