"""Events (`events.k8s.io/v1`): sentences for people, shown by `kubectl describe`, sent some time, never waited for.

`Api.event` and the lease record here; the manager runs it. Recording never blocks and never raises: what is too much is
dropped and counted. The limits are those of Kubernetes' own recorder (client-go, `tools/record`), so that an operator
in trouble cannot hurt the API server: many different sentences about one matter are combined, equal ones become one
series, and an object has a bucket of new events.
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
"""Events waiting to be sent; more are dropped."""

REMEMBERED = 4096
"""Series, groups and buckets remembered, the least recently used forgotten first."""

COMBINE_AFTER = 10
"""The tenth different sentence of one matter within the window, and all after it, become one combined event."""

COMBINE_WINDOW_SECONDS = 600.0

BUCKET_SIZE = 25
"""New events of one object and type at once."""

BUCKET_REFILL_SECONDS = 300.0
"""One more after this time."""

SERIES_WRITE_SECONDS = 60.0
"""A running series is written at most this often; the count grows in memory meanwhile."""

SERIES_END_SECONDS = 360.0
"""A series that was quiet this long is over (client-go: 6 minutes); the next equal event is a new one."""

SEND_ATTEMPTS = 12
SEND_RETRY_SECONDS = 10.0
"""Tries while the server does not answer, and the time between them; the first pause is random within it."""

FLUSH_SECONDS = 2.0
"""Time for what is still queued when the recorder is stopped."""

_SWEEP_SECONDS = 15.0
_NOTE_BYTES, _WORD_LENGTH = 1024, 128  # limits of the API (events.k8s.io/v1, validation)
_COMBINED = "(combined from similar events): "

EventType = Literal["Normal", "Warning"]
DropReason = Literal["queue-full", "spam", "refused", "unreachable"]

K = TypeVar("K")
V = TypeVar("V")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Matter:
    """What an event is about, but for its sentence."""

    regarding: tuple[str, str, str, str]
    type: EventType
    reason: str
    action: str


@dataclass(slots=True)
class _Group:
    """Different sentences about one matter."""

    since: float
    notes: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


@dataclass(slots=True)
class _Series:
    """One event, and how often it was seen."""

    event: Event
    count: int
    last: datetime
    seen_at: float
    written_at: float | None = None
    queued: bool = False
    created: bool = False
    is_stale: bool = True
    """Whether the server has an older count."""


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """The most recently used entries."""

    def touch(self, key: K, make: Callable[[], V]) -> V:
        """The entry of the key, made if missing, now the most recent."""
        if key not in self:
            self[key] = make()
            if len(self) > REMEMBERED:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


@final
class EventRecorder:
    """Correlates events and sends them from a task of its own."""

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
        """Prepare; nothing is sent before `run`.

        Args:
            client: sends; not fenced, so that a lost lease can still be told.
            component: who reports, for example `workspace-controller`.
            instance: which replica; default component and host name.
            clock: time of events.
            rng: randomness of the first pause.
            on_drop: told about every event that is not sent, for the metric.
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
        self._groups: _Recent[_Matter, _Group] = _Recent()
        self._buckets: _Recent[tuple[tuple[str, str, str, str], EventType], _Bucket] = _Recent()
        self._series: _Recent[tuple[_Matter, str], _Series] = _Recent()

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
        """Send the event some time. `reason` and `action` are CamelCase words, `note` is a sentence."""
        subject = (regarding.kind, regarding.namespace, regarding.name, regarding.uid)
        matter = _Matter(subject, type, reason[:_WORD_LENGTH], action[:_WORD_LENGTH])
        combined = self._is_one_of_many(matter, note)
        key = (matter, _COMBINED if combined else note)
        running = self._series.get(key)
        if running is not None and monotonic() - running.seen_at < SERIES_END_SECONDS:
            self._count(running, _cut(_COMBINED + note) if combined else "")
            return
        if not self._has_token(subject, type):
            self._drop("spam")
            return
        event = self._event(matter, regarding, _cut(_COMBINED + note if combined else note), related)
        self._series.pop(key, None)
        now = monotonic()
        self._enqueue(self._series.touch(key, lambda: _Series(event, 1, self._clock.now(), now)))

    def busy(self) -> Sequence[str]:
        """What waits to be sent now; for tests that wait for quiet."""
        waiting = self._queue.qsize() + self._sending
        return [f"{waiting} events to send"] if waiting else []

    async def run(self) -> None:
        """Send until cancelled; then spend at most two seconds on what is left."""
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

    # Correlation

    def _is_one_of_many(self, matter: _Matter, note: str) -> bool:
        now = monotonic()
        group = self._groups.touch(matter, lambda: _Group(now))
        if now - group.since > COMBINE_WINDOW_SECONDS:
            group.since = now
            group.notes.clear()
        if len(group.notes) < COMBINE_AFTER:
            group.notes.add(note)
        return len(group.notes) >= COMBINE_AFTER

    def _has_token(self, subject: tuple[str, str, str, str], event_type: EventType) -> bool:
        now = monotonic()
        bucket = self._buckets.touch((subject, event_type), lambda: _Bucket(BUCKET_SIZE, now))
        bucket.tokens = min(BUCKET_SIZE, bucket.tokens + (now - bucket.filled_at) / BUCKET_REFILL_SECONDS)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _count(self, series: _Series, note: str) -> None:
        """Seen again: the first time is written at once, later ones now and then. A combined event tells the latest."""
        series.count += 1
        series.last = self._clock.now()
        series.seen_at = monotonic()
        series.is_stale = True
        if note:
            series.event = series.event.evolve(note=note)
        if series.count == 2 or self._is_due(series):
            self._enqueue(series)

    @staticmethod
    def _is_due(series: _Series) -> bool:
        return series.written_at is not None and monotonic() - series.written_at >= SERIES_WRITE_SECONDS

    def _sweep(self) -> None:
        """Write what running series have gathered, forget those that are over."""
        for key, series in list(self._series.items()):
            over = monotonic() - series.seen_at >= SERIES_END_SECONDS
            if series.is_stale and series.created and (over or self._is_due(series)):
                self._enqueue(series)
            if over:
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

    def _event(self, matter: _Matter, regarding: Resource, note: str, related: Resource | None) -> Event:
        now = self._clock.now()
        # Unique among replicas by time, and within this one by number; as long as an object's name may be.
        suffix = f".{int(now.timestamp() * 1e6):x}{next(self._serial):04x}"
        return Event(
            metadata=ObjectMeta(
                name=regarding.name[: 253 - len(suffix)].rstrip("-.") + suffix,
                namespace=regarding.namespace or "default",
            ),
            event_time=now,
            reporting_controller=self._component,
            reporting_instance=self._instance,
            action=matter.action,
            reason=matter.reason,
            regarding=_reference(regarding),
            related=None if related is None else _reference(related),
            note=note,
            type=matter.type,
        )

    # Sending

    async def _send(self, series: _Series, *, attempts: int = SEND_ATTEMPTS) -> None:
        series.queued = False
        self._sending = True
        try:
            await self._send_patiently(series, attempts)
        except asyncio.CancelledError:
            self._enqueue(series)  # once more, in what is left of the time
            raise
        except AlreadyExists:
            series.created = True  # an earlier try got through
        except ApiError as error:
            if not _is_terminating(error):
                _log.warning("event refused", reason=series.event.reason, note=series.event.note, error=str(error))
                self._drop("refused")
        except KaitoRuntimeError as error:
            _log.warning("event not sent", reason=series.event.reason, note=series.event.note, error=str(error))
            self._drop("unreachable")
        finally:
            self._sending = False

    async def _send_patiently(self, series: _Series, attempts: int) -> None:
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
                series.created = False  # expired on the server: begin again
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
    """At most as many bytes as the API takes, without a broken character at the end."""
    return note if len(note.encode()) <= _NOTE_BYTES else note.encode()[: _NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _is_terminating(error: ApiError) -> bool:
    """A namespace on its way out takes no events, and nobody would read them."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.causes)
