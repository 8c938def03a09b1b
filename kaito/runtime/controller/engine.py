"""One controller at work: sources fill its queue, workers empty it.

The manager makes one `Engine` per controller. `run_sources` starts the sources and waits until each has delivered its
initial list; the leader then starts `run_workers`. A reconcile that fails never ends a worker: only a fault of the
framework (`InvariantError`) and exceptions that are not an `Exception` do. A reconcile that is cancelled because the
process stops is neither an error nor requeued.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from logging import DEBUG
from typing import Generic, TypeVar, final, get_args

from kaito.runtime.client.write_context import FieldContention, writing_as
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.controller.failure_handling import NOTE_LENGTH, FailureHandler, FailureHooks
from kaito.runtime.controller.failures import Failure, FailureRow
from kaito.runtime.controller.options import RunOptions
from kaito.runtime.controller.outcome import DeadlineExceeded, Outcome, Result, describe
from kaito.runtime.controller.shard_hold import ShardGate
from kaito.runtime.controller.trace_origin import NO_ORIGIN, TraceOrigin
from kaito.runtime.deadlines import Deadlines
from kaito.runtime.errors import CacheNotSynced, InvariantError
from kaito.runtime.logging import BoundLogger, get_logger, reconcile_context
from kaito.runtime.meta import Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.reconcile import Again
from kaito.runtime.source import Replayable, StartedSource
from kaito.runtime.tasks import TaskScope, sleep_forever
from kaito.runtime.tracing import NO_SPAN, NO_TRACER, Span, Tracer
from kaito.runtime.workqueue import Cause, Item, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter, system_jitter

K = TypeVar("K", bound=Hashable)

WorkFunction = Callable[[Item[K]], Awaitable[Again | None]]
"""Reconciles one key."""

STUCK_FACTOR = 2.0
"""A reconcile that runs longer than this many deadlines ignores its cancellation."""


@final
class Engine(Generic[K]):
    """Queue, sources and workers of one controller.

    Args:
        options: name and limits.
        queue: the keys to reconcile.
        work: reconciles one key.
        kind: the controller's kind, for logs and causes; None for periodic and keyed controllers.
        clock: wall time.
        metrics: counts the reconciles.
        tracer: records a span for each reconcile.
        hooks: reports of failures, and generations of objects.
        jitter: of the delays of `on_error`.
        gate: which keys this replica reconciles; None for all.
        origin: returns the trace that the reconcile of a key belongs to; None for traces of their own.
    """

    def __init__(
        self,
        options: RunOptions[K],
        queue: WorkQueue[K],
        work: WorkFunction[K],
        *,
        kind: type[Resource] | None = None,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer = NO_TRACER,
        hooks: FailureHooks[K] | None = None,
        jitter: Jitter = system_jitter,
        gate: ShardGate | None = None,
        origin: Callable[[K], TraceOrigin] | None = None,
    ) -> None:
        self.options = options
        self.name: str = options.name
        self.kind: str = "" if kind is None else kind.kind
        self._group = "" if kind is None else kind.group()
        self.queue = queue
        self._work = work
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        self._gate = gate
        self._origin = origin
        # The log level is final when engines are made. A bound logger, and the check of the level, make a suppressed
        # debug line cost one comparison in the hot path.
        self._log: BoundLogger = get_logger(f"controller.{self.name}").bind()
        self._debugging = self._log.is_enabled_for(DEBUG)
        self._sources: list[StartedSource] = []
        self._stuck: list[Callable[[], Sequence[str]]] = []
        self._deadlines = Deadlines()
        self._ready = asyncio.Event()
        self._working = asyncio.Event()
        metrics.start_controller(self.name, options.workers)
        metrics.watch_queue(queue)
        known: FailureHooks[K] = FailureHooks() if hooks is None else hooks
        self._failures = FailureHandler(
            options, queue, known, clock=clock, metrics=metrics, log=self._log, jitter=jitter
        )
        self._active = metrics.active_workers.labels(self.name)
        self._seconds = metrics.reconcile_seconds.labels(self.name)
        self._event_delay = metrics.event_to_reconcile.labels(self.name)
        self._last_success = metrics.last_success.labels(self.name)
        results: tuple[Result, ...] = get_args(Result)
        self._results = {result: metrics.reconciles.labels(self.name, result) for result in results}

    # -- sources -----------------------------------------------------------------------------------------------------

    async def run_sources(self, sources: Sequence[Callable[[TaskScope], StartedSource]]) -> None:
        """Starts the sources, waits until they are synced, and keeps them until cancelled.

        Raises:
            CacheNotSynced: not within `sync_timeout` seconds; the message contains the server's errors.
        """
        async with TaskScope(f"sources.{self.name}") as scope:
            try:
                self._sources.extend(start(scope) for start in sources)
                await self._wait_synced(self.options.sync_timeout)
                self._ready.set()
                await scope.spawn(sleep_forever(), name="alive")
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
            reasons = {
                started.sync_error or "a handler has not finished its initial list"
                for started in self._sources
                if not started.synced
            }
            message = f"controller {self.name}: not synced after {timeout:g} s: {'; '.join(sorted(reasons))}"
            raise CacheNotSynced(message) from error

    async def wait_ready(self) -> None:
        """Waits until every source is synced."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """Whether every source is synced."""
        return self._ready.is_set()

    @property
    def is_sharded(self) -> bool:
        """Whether every replica runs workers, each for its shards."""
        return self._gate is not None

    def requeue_all(self) -> None:
        """Delivers every cached object of the sources again, as in the initial list."""
        for started in self._sources:
            if isinstance(started, Replayable):
                started.replay()

    # -- workers -----------------------------------------------------------------------------------------------------

    async def run_workers(self) -> None:
        """Runs the workers until the queue is closed, or cancelled.

        Raises:
            InvariantError: a fault of the framework.
        """
        self._working.set()
        try:
            async with TaskScope(f"controller.{self.name}") as scope:
                workers = [
                    scope.spawn(self._run_worker(), name=f"worker-{number}") for number in range(self.options.workers)
                ]
                for worker in workers:
                    await worker
        finally:
            self._working.clear()

    async def wait_working(self) -> None:
        """Waits until the workers run: on the leader, after every source is synced."""
        await self._working.wait()

    @property
    def working(self) -> bool:
        """Whether the workers run."""
        return self._working.is_set()

    async def _run_worker(self) -> None:
        while (item := await self.queue.get()) is not None:
            try:
                if self._gate is None:
                    await self._handle(item)
                else:
                    await self._handle_in_shard(item, self._gate)
            finally:
                self.queue.done(item.key)
            await asyncio.sleep(0)  # a reconcile that never suspends must not starve the other tasks of the loop

    async def _handle_in_shard(self, item: Item[K], gate: ShardGate) -> None:
        """Reconciles a key of a shard that this replica holds; drops others, because `requeue_all` brings them back."""
        hold = gate.hold_of(item.key)
        if hold is not None and await hold.run(self._handle(item)):
            return
        self.queue.forget(item.key)
        self._failures.drop(item.key)
        if hold is not None:
            self._log.info("reconcile cancelled: another replica takes its shard", key=str(item.key), shard=hold.shard)

    async def _handle(self, item: Item[K]) -> None:
        started = monotonic()
        self._active.inc()
        origin = NO_ORIGIN if self._origin is None else self._origin(item.key)
        with (
            reconcile_context(self.name, self.kind, item.key, group=self._group) as run_id,
            self._tracer.start_as_current_span(
                f"reconcile {self.name}", parent=origin.parent, link=origin.link
            ) as span,
            writing_as(self.name) as run,
        ):
            try:
                self._record_start(item, span, run_id)
                outcome = await self._run(item)
                failure = await self._follow_up(item, outcome, span)
                if failure is not None:
                    await self._failures.report(item, failure)
                # From Python 3.12 the frames in the error's traceback keep this frame, and its variable the error.
                del outcome, failure
                if run.contentions:
                    self._hold_contested(item, run.contentions)
            finally:
                self._active.dec()
                self._seconds.observe(monotonic() - started)

    async def _run(self, item: Item[K]) -> Outcome:
        limit = self._deadlines.limit(self.options.deadline)
        try:
            with limit:
                result = await self._work(item)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            # `cancelling` distinguishes the two sources of this error: a request to cancel this task comes from the end
            # of the process, everything else from a future that the reconcile awaited and that was cancelled.
            if task is None or task.cancelling():
                raise
            return Outcome.of_error(
                RuntimeError(f"the reconcile function awaited something that was cancelled: {error}")
            )
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary between foreign code and the worker
            if not limit.expired:
                return Outcome.of_error(error)
            return Outcome.of_error(self._deadline_error(error))
        return Outcome.of_result(result)

    def _deadline_error(self, error: Exception) -> DeadlineExceeded:
        """The error of a reconcile that was cancelled at its deadline.

        A separate method: in `_run` the local variable and the frame in the traceback would refer to each other.
        """
        deadline = DeadlineExceeded(f"cancelled after {self.options.deadline:g} s, the controller's deadline")
        deadline.__cause__ = error
        return deadline

    async def _follow_up(self, item: Item[K], outcome: Outcome, span: Span) -> Failure | None:
        """Counts and queues; returns what may have to be reported."""
        self._results[outcome.result].inc()
        span.set_attribute("outcome", outcome.result)
        if outcome.error is not None:
            span.record_exception(outcome.error)
            failure = await self._failures.on_failure(item, outcome, outcome.error)
            self._count_error(outcome, terminal=failure.stage == "given up")
            if failure.retry_in is not None:
                cause = Cause(self.kind, str(item.key), "retry", failure.message[:NOTE_LENGTH])
                self.queue.add(item.key, priority=item.priority, after=failure.retry_in, cause=cause)
            self._log_failure(item, outcome, failure.retry_in)
            return failure
        recovery = self._failures.on_success(item)
        self._last_success.set(self._clock.now().timestamp())
        if outcome.again is not None:
            again = outcome.again
            cause = Cause(self.kind, str(item.key), "again", again.why)
            priority = item.priority if again.priority is None else again.priority
            self.queue.add(item.key, priority=priority, after=again.after, cause=cause)
            self._log.debug("reconciled, requeued", again_after=again.after, why=again.why)
        else:
            self._log.debug("reconciled")
        return recovery

    def _hold_contested(self, item: Item[K], contentions: Sequence[FieldContention]) -> None:
        """Delays the next reconcile of a key whose fields another writer keeps changing back.

        Each of the two writers triggers the other with its write: without a delay they would loop at full speed.
        """
        self._metrics.contested.labels(self.name).inc(len(contentions))
        worst = max(contentions, key=lambda contest: contest.times)
        if worst.backoff_seconds <= 0:
            return
        self.queue.delay(item.key, worst.backoff_seconds)
        self._log.warning(
            "applied fields are changed back repeatedly, next reconcile delayed",
            appliedKind=worst.kind,
            applied=str(worst.key),
            field_manager=worst.field_manager,
            other_managers=list(worst.others),
            times=worst.times,
            delay_seconds=worst.backoff_seconds,
        )

    def failures(self) -> Sequence[FailureRow]:
        """The failing keys, the longest first."""
        return self._failures.tracker.dump()

    def _count_error(self, outcome: Outcome, *, terminal: bool) -> None:
        metrics, name = self._metrics, self.name
        metrics.reconcile_errors.labels(name).inc()
        if terminal:
            metrics.terminal_errors.labels(name).inc()
        if outcome.is_panic:
            metrics.reconcile_panics.labels(name).inc()
        if outcome.is_timeout:
            metrics.reconcile_timeouts.labels(name).inc()

    # -- logging -----------------------------------------------------------------------------------------------------

    def _record_start(self, item: Item[K], span: Span, run_id: str) -> None:
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
        span.set_attribute("queue.wait_seconds", item.queued_seconds)
        span.set_attribute("causes", "; ".join(map(str, item.causes)))

    def _log_failure(self, item: Item[K], outcome: Outcome, retry_in: float | None) -> None:
        if outcome.error is None:
            return
        fields: dict[str, object] = {"error": describe(outcome.error), "attempt": item.attempt}
        if retry_in is None:
            fields["retry"] = "when something changes"
        else:
            fields["retry_in_seconds"] = round(retry_in, 3)
        if outcome.is_conflict:
            self._log.info("conflict: object changed concurrently, retrying", **fields)
        elif outcome.is_expected:
            self._log.error("reconcile failed", **fields)
        else:
            self._log.error("reconcile failed", **fields, exc_info=outcome.error)

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle. Ready keys count only while there are workers."""
        busy = [f"{self.name}: a handler has events" for started in self._sources if not started.idle]
        if self._working.is_set():
            busy += [f"{self.name}: {key} is being reconciled" for key in self.queue.processing()]
            busy += [f"{self.name}: {len(self.queue)} keys are ready"] if len(self.queue) else []
        return busy

    def stuck(self) -> Sequence[str]:
        """Keys whose reconcile has outlived its deadline: it ignores cancellation, and its worker is lost.

        Work of sources that has outlived its timeout is included.
        """
        of_sources = [phrase for stuck in self._stuck for phrase in stuck()]
        if self.options.deadline is None:
            return of_sources
        limit = self.options.deadline * STUCK_FACTOR
        keys = [f"{self.name}: {key} for {age:.0f} s" for key, age in self.queue.processing().items() if age > limit]
        return [*keys, *of_sources]

    def is_held(self, key: K) -> bool:
        """Whether this replica reconciles the key."""
        return self._gate is None or self._gate.hold_of(key) is not None

    def discard(self, match: Callable[[K], bool]) -> None:
        """Drops the matching keys from the queue and from the failing keys."""
        self.queue.discard(match)
        self._failures.discard(match)

    def watch_stuck(self, stuck: Callable[[], Sequence[str]]) -> None:
        """Includes work of a source that ignores its cancellation in `stuck`."""
        self._stuck.append(stuck)

    def close(self) -> None:
        """Closes the queue: workers end after the key in hand. Its failing keys are dropped from the gauges."""
        self.queue.close()
        self._failures.close()
