"""One controller at work: a queue that sources fill, and workers that empty it.

The manager makes an `Engine` per controller. `run_sources` starts the sources and passes the barrier (every handler has
processed its initial list); `run_workers` is started after it, by the leader. It guarantees that a failing reconcile
never ends a worker, that only this framework's own faults (`InvariantError`) and what is no `Exception` do, and that a
run cancelled by the end of the process is neither an error nor queued again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from logging import DEBUG
from typing import Generic, TypeVar, final, get_args

from kaito.runtime.client.run import Contest, running
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.controller.outcome import DeadlineExceeded, Outcome, Result, describe, raised, returned
from kaito.runtime.errors import CacheNotSynced, InvariantError
from kaito.runtime.logging import BoundLogger, get_logger, reconcile_context
from kaito.runtime.metrics import Metrics
from kaito.runtime.reconcile import Again
from kaito.runtime.source import Started
from kaito.runtime.tasks import TaskScope
from kaito.runtime.tracing import NO_SPAN, NO_TRACER, Span, Tracer
from kaito.runtime.workqueue import Cause, Item, WorkQueue

K = TypeVar("K", bound=Hashable)

Body = Callable[[Item[K]], Awaitable[Again | None]]

NOTE_LENGTH = 200
"""Longest note of a retry's cause; the log has the whole error."""

STUCK_FACTOR = 2.0
"""A run longer than this many deadlines has swallowed its cancellation."""


@final
class Engine(Generic[K]):
    """Queue, sources and workers of one controller.

    Args:
        name: the controller's name.
        kind: the kind's name, for logs and causes; empty for a periodic controller.
        queue: keys to run.
        body: runs one key.
        workers: runs at the same time.
        deadline: seconds of one run.
        clock: wall time.
        metrics: where runs are counted.
        tracer: where runs become spans.
        group: the kind's API group, for logs; empty for the core group.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        queue: WorkQueue[K],
        body: Body[K],
        *,
        workers: int,
        deadline: float | None,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer = NO_TRACER,
        group: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self.queue = queue
        self._body = body
        self._workers = workers
        self._deadline = deadline
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        self._group = group
        # Bound once: the level is settled by now, and a dropped debug line then costs a call and nothing else.
        self._log: BoundLogger = get_logger(f"controller.{name}").bind()
        self._debugging = self._log.is_enabled_for(DEBUG)
        self._sources: list[Started] = []
        self._ready = asyncio.Event()
        self._working = False
        metrics.start_controller(name, workers)
        metrics.watch_queue(queue)
        self._active = metrics.active_workers.labels(name)
        self._seconds = metrics.reconcile_seconds.labels(name)
        self._event_delay = metrics.event_to_reconcile.labels(name)
        self._last_success = metrics.last_success.labels(name)
        results: tuple[Result, ...] = get_args(Result)
        self._results = {result: metrics.reconciles.labels(name, result) for result in results}

    # -- sources -----------------------------------------------------------------------------------------------------

    async def run_sources(self, sources: Sequence[Callable[[TaskScope], Started]], *, sync_timeout: float) -> None:
        """Start the sources, wait until they are synced, and keep them until cancelled.

        Raises:
            CacheNotSynced: not within `sync_timeout` seconds; the message carries the server's reasons.
        """
        async with TaskScope(f"sources.{self.name}") as scope:
            try:
                self._sources.extend(start(scope) for start in sources)
                await self._wait_synced(sync_timeout)
                self._ready.set()
                await scope.spawn(_for_ever(), name="alive")
            finally:
                for started in self._sources:
                    started.stop()
                self._sources.clear()
                self._ready.clear()

    async def _wait_synced(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                for started in self._sources:
                    await started.wait_synced()
        except TimeoutError as error:
            troubles = {
                started.trouble or "a handler has not finished its initial list"
                for started in self._sources
                if not started.synced
            }
            message = f"controller {self.name}: not synced after {timeout:g} s: {'; '.join(sorted(troubles))}"
            raise CacheNotSynced(message) from error

    async def wait_ready(self) -> None:
        """Wait until every source is synced."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """Whether every source is synced."""
        return self._ready.is_set()

    # -- workers -----------------------------------------------------------------------------------------------------

    async def run_workers(self) -> None:
        """Empty the queue until it is closed, or cancelled.

        Raises:
            InvariantError: a fault of the framework.
        """
        self._working = True
        try:
            async with TaskScope(f"controller.{self.name}") as scope:
                workers = [scope.spawn(self._work(), name=f"worker-{number}") for number in range(self._workers)]
                for worker in workers:
                    await worker
        finally:
            self._working = False

    async def _work(self) -> None:
        while (item := await self.queue.get()) is not None:
            try:
                await self._handle(item)
            finally:
                self.queue.done(item.key)
            await asyncio.sleep(0)  # a run that never waits must not keep the loop for itself

    async def _handle(self, item: Item[K]) -> None:
        started = monotonic()
        self._active.inc()
        with (
            reconcile_context(self.name, self.kind, item.key, group=self._group) as run_id,
            self._tracer.start_as_current_span(f"reconcile {self.name}") as span,
            running(self.name) as run,
        ):
            try:
                self._announce(item, span, run_id)
                outcome = await self._run(item)
                self._follow_up(item, outcome, span)
                if run.contests:
                    self._slow_down(item, run.contests)
            finally:
                self._active.dec()
                self._seconds.observe(monotonic() - started)

    async def _run(self, item: Item[K]) -> Outcome:
        limit = asyncio.timeout(self._deadline)
        try:
            async with limit:
                value = await self._body(item)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the process ends: not an error, not queued again
            return raised(RuntimeError(f"the reconcile function awaited something that was cancelled: {error}"))
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary between foreign code and the worker
            if not limit.expired():
                return raised(error)
            return raised(self._too_long(error))
        return returned(value)

    def _too_long(self, error: Exception) -> DeadlineExceeded:
        """The error of a run that was cancelled. Not made in `_run`: its frame is in the traceback of the cause."""
        deadline = DeadlineExceeded(f"cancelled after {self._deadline:g} s, the controller's deadline")
        deadline.__cause__ = error
        return deadline

    def _follow_up(self, item: Item[K], outcome: Outcome, span: Span) -> None:
        self._results[outcome.result].inc()
        span.set_attribute("outcome", outcome.result)
        if outcome.error is not None:
            span.record_exception(outcome.error)
            self._count_error(outcome)
            self._report(item, outcome, self._retry(item, outcome.error, outcome))
            return
        self.queue.forget(item.key)
        self._last_success.set(self._clock.now().timestamp())
        if outcome.again is not None:
            again = outcome.again
            cause = Cause(self.kind, str(item.key), "again", again.why)
            priority = item.priority if again.priority is None else again.priority
            self.queue.add(item.key, priority=priority, after=again.after, cause=cause)
            self._log.debug("reconciled for now", again_after=again.after, why=again.why)
        else:
            self._log.debug("reconciled")

    def _slow_down(self, item: Item[K], contests: Sequence[Contest]) -> None:
        """Two writers that undo each other's fields wake each other: without a pause that goes on as fast as it can."""
        self._metrics.contested.labels(self.name).inc(len(contests))
        worst = max(contests, key=lambda contest: contest.times)
        if worst.pause <= 0:
            return
        self.queue.hold(item.key, worst.pause)
        self._log.warning(
            "what this key applies is undone again and again, its next run is held back",
            appliedKind=worst.kind,
            applied=str(worst.key),
            field_manager=worst.field_manager,
            other_managers=list(worst.others),
            times=worst.times,
            held_seconds=worst.pause,
        )

    def _retry(self, item: Item[K], error: Exception, outcome: Outcome) -> float | None:
        if outcome.terminal:
            self.queue.forget(item.key)
            return None
        delay = self.queue.fail(item.key)
        if outcome.retry_after is not None:
            delay = outcome.retry_after
        cause = Cause(self.kind, str(item.key), "retry", describe(error)[:NOTE_LENGTH])
        self.queue.add(item.key, priority=item.priority, after=delay, cause=cause)
        return delay

    def _count_error(self, outcome: Outcome) -> None:
        metrics, name = self._metrics, self.name
        metrics.reconcile_errors.labels(name).inc()
        if outcome.terminal:
            metrics.terminal_errors.labels(name).inc()
        if outcome.panicked:
            metrics.reconcile_panics.labels(name).inc()
        if outcome.timed_out:
            metrics.reconcile_timeouts.labels(name).inc()

    # -- telling -----------------------------------------------------------------------------------------------------

    def _announce(self, item: Item[K], span: Span, run_id: str) -> None:
        received = [cause.at for cause in item.causes if cause.verb not in {"again", "retry"}]
        if received:
            self._event_delay.observe(max(0.0, monotonic() - min(received)))
        if self._debugging:
            self._log.debug("reconciling", causes=[str(cause) for cause in item.causes], attempt=item.attempt)
        if span is NO_SPAN:
            return
        span.set_attribute("controller", self.name)
        span.set_attribute("key", str(item.key))
        span.set_attribute("reconcile.id", run_id)
        span.set_attribute("priority", item.priority)
        span.set_attribute("attempt", item.attempt)
        span.set_attribute("queue.wait_seconds", item.waited)
        span.set_attribute("causes", "; ".join(map(str, item.causes)))

    def _report(self, item: Item[K], outcome: Outcome, retry_in: float | None) -> None:
        if outcome.error is None:
            return
        said: dict[str, object] = {"error": describe(outcome.error), "attempt": item.attempt}
        if retry_in is None:
            said["retry"] = "when something changes"
        else:
            said["retry_in_seconds"] = round(retry_in, 3)
        if outcome.is_conflict:
            self._log.info("somebody else changed the object meanwhile", **said)
        elif outcome.expected:
            self._log.error("reconcile failed", **said)
        else:
            self._log.error("reconcile failed", **said, exc_info=outcome.error)

    def busy(self) -> Sequence[str]:
        """What is going on, for tests that wait for rest; a queue without workers does not count."""
        busy = [f"{self.name}: a handler has events" for started in self._sources if not started.idle]
        if self._working:
            busy += [f"{self.name}: {key} is being reconciled" for key in self.queue.held()]
            busy += [f"{self.name}: {len(self.queue)} keys are ready"] if len(self.queue) else []
        return busy

    def stuck(self) -> Sequence[str]:
        """Keys whose run has outlived its deadline: it swallows cancellation, its worker is lost."""
        if self._deadline is None:
            return ()
        limit = self._deadline * STUCK_FACTOR
        return [f"{self.name}: {key} for {age:.0f} s" for key, age in self.queue.held().items() if age > limit]

    def close(self) -> None:
        """Hand out nothing more."""
        self.queue.close()


async def _for_ever() -> None:
    await asyncio.Event().wait()
