"""`PollingSource`: polls the values of a `Polling`, and queues the objects whose value changed.

It follows the objects in the cache, so that a deleted object is not polled any more; the result of a poll that was in
progress is discarded then. A queue of its own holds the objects that are due: each at most once, so that one object is
never polled twice at the same time, with `concurrency` workers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar, final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.event import Event, EventType
from kaito.runtime.cache.view import View
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.errors import InvariantError, Retry
from kaito.runtime.handler import Enqueue
from kaito.runtime.lifespan import StateProvider
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.source.kind import KindSource, StartedKind
from kaito.runtime.source.polling import Polling, PollRequest
from kaito.runtime.tasks import TaskScope
from kaito.runtime.workqueue import Cause, ExponentialLimiter, Item, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter

R = TypeVar("R", bound=Resource)

PACE_JITTER: Final = 0.1
"""Share by which the interval of a poll varies, so that objects that were created together spread out."""


STUCK_FACTOR: Final = 2.0
"""A poll that runs longer than this many timeouts ignores its cancellation."""


def _always(_: ObjectKey) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class PollServices:
    """What polls use."""

    controller: str
    clock: Clock
    metrics: Metrics
    jitter: Jitter
    state: StateProvider
    wait_leading: Callable[[], Awaitable[None]]
    """Returns when this process may poll: when the controller's workers run."""
    is_held: Callable[[ObjectKey], bool] = _always
    """Whether this replica reconciles the object; of a sharded controller another replica may."""


@final
class _Cell:
    """The cached value of one object, in one generation."""

    __slots__ = ("_now", "_poll_now", "at", "error", "failures", "identity", "known", "reported", "value", "version")

    def __init__(self, identity: tuple[str, object], poll_now: Callable[[], None], now: Callable[[], datetime]) -> None:
        self.identity = identity
        self._now = now
        self._poll_now = poll_now
        self.known = False
        self.value: Any = None
        self.at: datetime | None = None
        self.error: Exception | None = None
        self.failures = 0
        self.reported = False
        """Whether the failures were reported to the controller."""
        self.version = 0
        """Incremented by `set` and `refresh`: a poll that began earlier may have read an older value."""

    def set(self, value: object) -> None:
        """Replaces the value; a poll in progress is discarded and repeated."""
        self.version += 1
        self.known, self.value, self.at = True, value, self._now()

    def forget(self) -> None:
        """Drops the value: another replica reconciles the object, and may change it."""
        self.version += 1
        self.known, self.value, self.at = False, None, None
        self.error, self.failures, self.reported = None, 0, False

    def refresh(self) -> None:
        """Polls now; a poll in progress is repeated."""
        self.version += 1
        self._poll_now()


@final
class PollingSource(Generic[R]):
    """Source of the changes of polled values, for one manager.

    Args:
        polling: the declaration.
        services: what polls use.
    """

    def __init__(self, polling: Polling[R, Any], services: PollServices) -> None:
        self.name: str = polling.name
        self._polling = polling
        self._services = services
        self._log = get_logger(f"controller.{services.controller}").bind(polling=polling.name)
        self.cells: dict[ObjectKey, _Cell] = {}
        """The cached values, by object."""
        self._polls: WorkQueue[ObjectKey] = WorkQueue()
        self._queue: Enqueue | None = None
        self._seconds = services.metrics.poll_seconds.labels(services.controller, polling.name)

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedPolling":
        """Follows the objects, and polls them in tasks of `scope` once this process leads."""
        self.cells.clear()
        self._queue = queue
        self._polls = WorkQueue(
            f"{self._services.controller}.{self.name}",
            limiter=ExponentialLimiter(self._polling.backoff, jitter=self._services.jitter),
        )
        view = View(cache)
        started = StartedPolling(
            KindSource[R](self._polling.kind, self._on_event, name=f"{self.name}.objects").start(cache, queue, scope),
            self._polls,
            self.poll_all,
        )
        scope.spawn(self._run(view, started), name=f"source.{self.name}")
        return started

    # -- objects -----------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event[R], _queue: Enqueue, _view: View, /) -> None:
        key = event.key
        if event.type is EventType.DELETE or event.latest is None:
            self.cells.pop(key, None)
            self._polls.forget(key)
            return
        header = event.latest.header
        # Kinds without a generation (ConfigMap, Secret) change as a whole.
        identity = (header.uid, header.generation or header.resource_version)
        cell = self.cells.get(key)
        if cell is None or cell.identity != identity:
            polls = self._polls
            self.cells[key] = _Cell(identity, lambda: polls.add(key), self._services.clock.now)
            polls.forget(key)
            polls.add(key)

    # -- polls -------------------------------------------------------------------------------------------------------

    async def _run(self, view: View, started: "StartedPolling") -> None:
        await self._services.wait_leading()
        started.polls = True
        async with TaskScope(f"polls.{self.name}") as scope:
            workers = [
                scope.spawn(self._work(view), name=f"poll-{number}") for number in range(self._polling.concurrency)
            ]
            for worker in workers:
                await worker

    async def _work(self, view: View) -> None:
        while (item := await self._polls.get()) is not None:
            try:
                await self._handle(item, view)
            finally:
                self._polls.done(item.key)
            await asyncio.sleep(0)

    async def _handle(self, item: Item[ObjectKey], view: View) -> None:
        cell = self.cells.get(item.key)
        if cell is None:
            return
        if not self._services.is_held(item.key):
            cell.forget()  # until `replay`, after this replica has acquired another shard
            return
        version = cell.version
        try:
            obj = view.find(self._polling.kind, item.key.name, item.key.namespace)
            pace = self._polling.pace_of(obj) if obj is not None else None
            if obj is None or pace is None:
                return
            began = monotonic()
            try:
                value = await self._poll(obj, view)
            finally:
                self._seconds.observe(monotonic() - began)
            if self.cells.get(item.key) is not cell:
                return  # deleted, or changed meanwhile: the new generation is queued
            if cell.version != version:
                self._polls.add(item.key)
                return
            is_changed = not cell.known or bool(cell.value != value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the source stops
                raise
            self._on_error(item.key, cell, RuntimeError(f"the poll awaited something that was cancelled: {error}"))
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign code; the poll is repeated
            self._on_error(item.key, cell, error)
        else:
            self._on_value(item.key, cell, value, is_changed=is_changed)
            self._polls.add(item.key, after=pace * (1 - PACE_JITTER + 2 * PACE_JITTER * self._services.jitter()))

    async def _poll(self, obj: R, view: View) -> object:
        request = PollRequest(
            object=obj, view=view, log=self._log, clock=self._services.clock, lifespan_state=self._services.state()
        )
        timeout = self._polling.timeout
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self._polling.poll(request)
        except TimeoutError as error:
            if not limit.expired():
                raise
            message = f"no result within {timeout:g} s"
            raise TimeoutError(message) from error

    def _on_value(self, key: ObjectKey, cell: _Cell, value: object, *, is_changed: bool) -> None:
        cell.known, cell.value, cell.at = True, value, self._services.clock.now()
        cell.error, cell.failures = None, 0
        self._polls.forget(key)
        self._count("changed" if is_changed else "unchanged")
        if cell.reported or is_changed:
            cell.reported = False
            self._enqueue(key, "" if is_changed else "polls succeed again")

    def _on_error(self, key: ObjectKey, cell: _Cell, error: Exception) -> None:
        self._count("error")
        if self.cells.get(key) is not cell:
            return
        cell.error = _without_frames(error)
        cell.failures += 1
        delay = self._polls.count_failure(key)
        if isinstance(error, Retry):
            delay = error.after
        self._polls.add(key, after=delay)
        log = self._log.warning if cell.failures == 1 else self._log.debug
        log(
            "poll failed",
            object=str(key),
            error=f"{type(error).__name__}: {error}",
            failures=cell.failures,
            retry_in_seconds=round(delay, 3),
        )
        if cell.failures == self._polling.error_after:
            cell.reported = True
            self._enqueue(key, f"{cell.failures} polls failed")

    def poll_all(self) -> None:
        """Polls every object now that this replica reconciles."""
        for key in self.cells:
            self._polls.add(key)

    def stuck(self) -> Sequence[str]:
        """Objects whose poll has outlived its timeout: it ignores its cancellation and occupies a place."""
        limit = STUCK_FACTOR * self._polling.timeout
        return [
            f"{self._services.controller}: poll {self.name} of {key} for {age:.0f} s"
            for key, age in self._polls.processing().items()
            if age > limit
        ]

    def _count(self, result: str) -> None:
        self._services.metrics.polls.labels(self._services.controller, self.name, result).inc()

    def _enqueue(self, key: ObjectKey, note: str) -> None:
        if self._queue is not None:
            text = f"{self.name}: {note}" if note else self.name
            self._queue.add(key, cause=Cause(self._polling.kind.kind, str(key), "poll", text))

    def __repr__(self) -> str:
        return f"PollingSource({self._polling!r})"


def _without_frames(error: Exception) -> Exception:
    """The error without tracebacks, whose frames would stay in memory with the value."""
    chained: BaseException | None = error
    while chained is not None and chained.__traceback__ is not None:
        chained.__traceback__ = None
        chained = chained.__cause__ or chained.__context__
    return error


@final
class StartedPolling:
    """Started source of a polling; synced when the objects are known, before any poll."""

    def __init__(self, objects: StartedKind[Any], polls: WorkQueue[ObjectKey], poll_all: Callable[[], None]) -> None:
        self._objects = objects
        self._poll_all = poll_all
        self._polls = polls
        self.polls = False
        """Whether this process polls."""

    async def wait_synced(self) -> None:
        """Waits until the initial list of objects has been handled."""
        await self._objects.wait_synced()

    @property
    def synced(self) -> bool:
        """Whether the initial list of objects has been handled."""
        return self._objects.synced

    @property
    def idle(self) -> bool:
        """Whether no event is being handled and no poll is due or in progress."""
        return self._objects.idle and (not self.polls or self._polls.idle)

    @property
    def sync_error(self) -> str:
        """Returns the last list or watch error of the kind."""
        return self._objects.sync_error

    def replay(self) -> None:
        """Polls all objects: this replica reconciles other ones than before."""
        self._poll_all()

    def stop(self) -> None:
        """Stops following the objects, and polling."""
        self._objects.stop()
        self._polls.close()
