"""Decides when a failed key is retried, and reports keys that keep failing. Used by the engine for every outcome.

A report runs in the worker that holds the key, after the outcome is queued. Its errors are logged and counted and never
change the outcome; a report that failed is repeated with the next attempt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from kaito.runtime.clock import Clock
from kaito.runtime.controller.failures import (
    REPORT_AFTER,
    Failure,
    FailureStage,
    FailureState,
    FailureTracker,
    policy_of,
)
from kaito.runtime.controller.options import RunOptions
from kaito.runtime.controller.outcome import Outcome, describe, leaf_errors
from kaito.runtime.deadlines import Deadlines
from kaito.runtime.errors import InvariantError, KaitoRuntimeError, Terminal
from kaito.runtime.logging import BoundLogger
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import Backoff, Cause, Item, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter

K = TypeVar("K", bound=Hashable)

NOTE_LENGTH: Final = 200
"""Maximum characters of an error in the cause of a retry; the log has the whole error."""

MESSAGE_LENGTH: Final = 1000
"""Maximum characters of an error in the failure dump and in reports."""

REPORT_SECONDS: Final = 30.0
"""Time limit of a report."""

_REPORT_BACKOFF: Final = Backoff(base=1.0, cap=300.0)
"""Delays of the attempts that repeat a failed report, if nothing else is due."""


@dataclass(frozen=True, slots=True)
class FailureHooks(Generic[K]):
    """What a sort of controller contributes."""

    report: Callable[[Item[K], Failure], Awaitable[None]] | None = None
    """Calls the declared function; None if there is none."""
    after: int = REPORT_AFTER
    generation: Callable[[K], Awaitable[int | None]] | None = None
    """Returns `metadata.generation` of the object with this key, from the cache; None if the object does not exist."""
    pause: float | None = None
    """Seconds until the next run of a key that was given up, for controllers that no change triggers."""


@final
class FailureHandler(Generic[K]):
    """The failures of one controller.

    Args:
        options: limits and policies.
        queue: counts the failures, for the backoff.
        hooks: reports and generations.
        clock: wall time of failures.
        metrics: exports the failing keys.
        log: of the controller.
        jitter: of the policies' backoffs.
    """

    def __init__(
        self,
        options: RunOptions[K],
        queue: WorkQueue[K],
        hooks: FailureHooks[K],
        *,
        clock: Clock,
        metrics: Metrics,
        log: BoundLogger,
        jitter: Jitter,
    ) -> None:
        self._options = options
        self._queue = queue
        self._hooks = hooks
        self._clock = clock
        self._log = log
        self._jitter = jitter
        self._deadlines = Deadlines()
        self._report_errors = metrics.report_errors.labels(options.name)
        self._failing = metrics.failing_keys.labels(options.name)
        self._given_up = metrics.given_up_keys.labels(options.name)
        self.tracker: FailureTracker[K] = FailureTracker()
        self._has_limit = options.attempts is not None or any(
            policy.attempts is not None for policy in options.on_error.values()
        )

    async def on_failure(self, item: Item[K], outcome: Outcome, error: Exception) -> Failure:
        """Records a failure; `retry_in` of the result is the delay of the next attempt, None if there is none."""
        state = self.tracker.record(
            item.key,
            describe(error)[:MESSAGE_LENGTH],
            now=self._clock.now(),
            generation=await self._generation(item.key),
        )
        state.given_up = self._is_given_up(outcome, error, state)
        if state.given_up:
            self._queue.forget(item.key)
            delay = self._hooks.pause
        else:
            delay = self._delay(item, outcome, error, state)
        self._export()
        stage: FailureStage = "given up" if state.given_up else "failing"
        return Failure(stage, state.failures, state.message, state.since, delay, error)

    def on_success(self, item: Item[K]) -> Failure | None:
        """Records a success; returns the recovery that has to be reported."""
        self._queue.forget(item.key)
        state = self.tracker.recover(item.key)
        if state is None:
            return None
        recovery: Failure | None = None
        if state.reported is not None and self._hooks.report is not None:
            recovery = Failure("recovered", state.failures, state.message, state.since)
            state.of_generation = 0
            state.given_up = False
            self.tracker.keep(item.key, state)  # until it is reported
        self._export()
        return recovery

    async def _generation(self, key: K) -> int | None:
        if not self._has_limit or self._hooks.generation is None:
            return None
        try:
            return await self._hooks.generation(key)
        except KaitoRuntimeError:
            return None

    def _is_given_up(self, outcome: Outcome, error: Exception, state: FailureState) -> bool:
        leaves = list(leaf_errors(error))
        policies = [policy_of(each, self._options.on_error) for each in leaves]
        if outcome.terminal or all(
            isinstance(leaf, Terminal) or not policy.retry for leaf, policy in zip(leaves, policies, strict=True)
        ):
            return True
        limit = self._options.attempts
        if len(policies) == 1 and policies[0].attempts is not None:
            limit = policies[0].attempts
        return limit is not None and state.of_generation >= limit

    def _delay(self, item: Item[K], outcome: Outcome, error: Exception, state: FailureState) -> float:
        delay = self._queue.count_failure(item.key)
        if outcome.retry_after is not None:
            return outcome.retry_after
        backoffs = [policy_of(each, self._options.on_error).backoff for each in leaf_errors(error)]
        known = [backoff for backoff in backoffs if backoff is not None]
        if known and len(known) == len(backoffs):
            return min(backoff.delay(state.failures - 1, self._jitter) for backoff in known)
        return delay

    def drop(self, key: K) -> None:
        """Forgets a key that another replica reconciles now."""
        if self.tracker.recover(key) is not None:
            self._export()

    def discard(self, match: Callable[[K], bool]) -> None:
        """Drops the matching keys, which do not exist any more."""
        for key in self.tracker.matching(match):
            self.tracker.recover(key)
        self._export()

    def close(self) -> None:
        """Drops all failing keys: nothing reconciles them any more."""
        self.tracker = FailureTracker()
        self._export()

    def _export(self) -> None:
        self._failing.set(len(self.tracker))
        self._given_up.set(self.tracker.given_up)

    # -- reports -----------------------------------------------------------------------------------------------------

    async def report(self, item: Item[K], failure: Failure) -> None:
        """Calls the declared function, if there is one and this stage has not been reported."""
        function, state = self._hooks.report, self.tracker.get(item.key)
        if function is None or state is None or state.reported == failure.stage:
            return
        if failure.stage == "failing" and failure.attempts < self._hooks.after:
            return
        try:
            with self._deadlines.limit(REPORT_SECONDS):
                await function(item, failure)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the process stops
                raise
            self._on_report_error(item, failure, state, error)
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign code; it must not change the outcome
            self._on_report_error(item, failure, state, error)
        else:
            state.reported = failure.stage
            state.failed_reports = 0
            if failure.recovered:
                self.tracker.recover(item.key)
                self._export()

    def _on_report_error(self, item: Item[K], failure: Failure, state: FailureState, error: BaseException) -> None:
        self._report_errors.inc()
        self._log.error("failure report failed", stage=failure.stage, error=describe(error), exc_info=error)
        if failure.retry_in is not None:
            return
        delay = _REPORT_BACKOFF.delay(state.failed_reports, self._jitter)
        state.failed_reports += 1
        cause = Cause("", str(item.key), "retry", f"the report of stage {failure.stage!r} failed")
        self._queue.add(item.key, priority=item.priority, after=delay, cause=cause)
