"""Continuous batching over a bounded queue: one thread owns the model and advances all running rows token by token.

`GenerationService` submits rows from the event loop; the thread delivers tokens back to the loop. Guarantees:

* At most `queue_limit` rows wait. A request for more is rejected with 429, or with 400 if it exceeds what an idle
  server accepts. The rows of one request are accepted together or not at all.
* A row is admitted between two steps as soon as the memory suffices, and removed as soon as it ends or its client
  disconnects.
* Prompts are computed in slices, and the batch makes a step after each: running rows wait for about `SLICE_SECONDS` at
  most, however long a prompt is. Every second slice is for the shortest prompt, so that a short one does not wait for
  the end of a long one.
* A row that fails does not affect other rows. A step that fails affects the rows of the batch only.
* One row at a time runs outside the batch; the thread alternates between it and the batch, one token each.
* A slow reader does not delay other requests: tokens are delivered to unbounded queues. (A row produces at most
  `max_new_tokens` tokens, so a queue cannot grow without a limit.)
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast, final

from kaito_presets.errors import BadRequest, GenerationFailed, Overloaded, RequestError, Unavailable
from kaito_presets.inference.events import Observer, RowHandle, TokenEvent
from kaito_presets.inference.language_model import (
    LanguageModel,
    OutOfMemory,
    Row,
    RowOutput,
    UnbatchedGeneration,
    UnbatchedProgress,
)

log = logging.getLogger(__name__)

SLICE_SECONDS: Final = 0.4
"""Time that one slice of a prompt should take. Shorter slices make the stream of running rows smoother, longer ones
use the device better."""
STEPS_PER_SLICE: Final = 3.0
"""A slice may take as long as this many steps of the batch, if that is more than `SLICE_SECONDS`."""
MIN_SLICE_TOKENS: Final = 32
MAX_SLICE_TOKENS: Final = 2048
FIRST_SLICE_TOKENS: Final = 256
"""Length of a slice before the duration of one is known."""

Clock = Callable[[], float]
Result = TypeVar("Result")


@final
class Scheduler:
    """Runs the model on a thread. `submit` is called on the event loop; `close`, then `stop`, end the thread."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        queue_limit: int,
        batch_limit: int,
        observer: Observer | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._model = model
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._observer = observer
        self._clock = clock
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._waiting: deque[RowHandle] = deque()
        self._joining: dict[Row, RowHandle] = {}
        """Admitted rows whose prompts are not complete."""
        self._live: dict[Row, RowHandle] = {}
        self._waiting_unbatched: deque[RowHandle] = deque()
        self._queues = (self._waiting, self._waiting_unbatched)
        self._unbatched: RowHandle | None = None
        self._unbatched_run: UnbatchedGeneration | None = None
        self._logged_reasons: set[str] = set()
        self._arrivals = 0
        self.is_broken = False
        """Whether the model failed and could not be reset; the process has to be restarted."""
        self._closed = False
        self._stopping = False
        self._step_seconds = 0.0
        self._prompt_token_seconds = 0.0
        """Measured time of one prompt token; 0 before the first slice."""
        self._slices = 0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, rows: Sequence[Row], *, incremental: bool) -> list[RowHandle]:
        """Queues the rows of one request, all or none.

        Raises:
            BadRequest: the request has more rows than an idle server accepts, or a row is too expensive to run outside
                the batch.
            Overloaded: the queue is full.
            Unavailable: the server is draining, or the model could not be reset after a failure.
        """
        loop = asyncio.get_running_loop()
        handles = [RowHandle(row, incremental, loop) for row in rows]
        self.check_count(len(rows))
        limit = self._batch_limit + self._queue_limit
        for row in rows:
            if row.plan.is_unbatched:
                self._model.check_unbatched(row)
        with self._wake:
            if self._closed:
                raise Unavailable("the server is shutting down")
            if self.is_broken:
                raise Unavailable("the model failed and could not be reset; the server has to be restarted")
            # Canceled rows are removed between two steps. Their places are free at once, for clients that send again.
            waiting = sum(not row.cancelled for row in self.waiting_rows)
            unbatched = (self._unbatched.row,) if self._unbatched is not None else ()
            running = sum(not row.cancelled for row in (*self._joining, *self._live, *unbatched))
            if len(rows) > limit - running - waiting:
                raise Overloaded(
                    f"the queue is full ({waiting} waiting, {running} being generated)",
                    retry_after_seconds=self._retry_after(),
                )
            for handle in handles:
                self._arrivals += 1
                handle.order = self._arrivals
                (self._waiting_unbatched if handle.row.plan.is_unbatched else self._waiting).append(handle)
            self._wake.notify()
        self._report_queue()
        return handles

    def check_count(self, rows: int) -> None:
        """Rejects a number of rows that even an idle server does not accept.

        Raises:
            BadRequest: `rows` exceeds batch and queue together.
        """
        limit = self._batch_limit + self._queue_limit
        if rows > limit:
            raise BadRequest(
                f"the request needs {rows} sequences (prompts x n), more than the {limit} that this server accepts at "
                "once: send fewer prompts in one request",
                param="prompt",
            )

    async def run_between_steps(self, command: Callable[[], Result]) -> Result:
        """Runs a command on the thread, between two steps of the model, and returns its result.

        Raises:
            Unavailable: the thread ended before it.
            Exception: what the command raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def run() -> None:
            try:
                if self._stopping:
                    raise Unavailable("the server is shutting down")
                result = command()
            except Exception as error:  # noqa: BLE001 - raised by the waiting task
                _settle(loop, future, error=error)
            else:
                _settle(loop, future, result)

        with self._wake:
            if self._stopping:
                raise Unavailable("the server is shutting down")
            self._commands.append(run)
            self._wake.notify()
        return await future

    def adapters_in_use(self) -> set[str | None]:
        """Returns the versions of adapters that waiting and running rows use; for commands between steps."""
        with self._wake:
            handles = [*self._waiting, *self._waiting_unbatched, *([self._unbatched] if self._unbatched else [])]
            return {handle.row.adapter for handle in (*handles, *self._joining.values(), *self._live.values())}

    @property
    def waiting_rows(self) -> list[Row]:
        """The rows that wait, in the batch and outside it; canceled ones until the end of the step."""
        with self._wake:
            return [handle.row for queue in self._queues for handle in queue]

    @property
    def is_busy(self) -> bool:
        """Whether a row is waiting or running."""
        with self._wake:  # a row that moves from one to the other is always in one of them
            running = self._joining or self._live or self._unbatched
            return bool(running or self._waiting or self._waiting_unbatched)

    def close(self) -> None:
        """Rejects new rows; accepted rows continue."""
        with self._wake:
            self._closed = True

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ends the thread; rows that are still waiting or running fail with 503."""
        with self._wake:
            self._closed = self._stopping = True
            for row in (*self._joining, *self._live):
                row.cancelled = True
            if self._unbatched:
                self._unbatched.cancel()
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _retry_after(self) -> int:
        """Estimates the seconds until the longest running row ends, at the duration of the last step."""
        longest = max((row.max_new_tokens - len(row.output_tokens) for row in self._live), default=0)
        return max(1, min(60, round(longest * self._step_seconds)))

    # The thread. Only the thread changes `_joining` and `_live` and calls the methods of the model that compute, so
    # these need no lock. `_wake` protects the queues and the flags, and is never held while the model computes, because
    # `submit` runs on the event loop and must not wait for a step.

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self.is_busy or self._stopping or self._commands):
                    self._wake.wait()
                commands = [*self._commands]
                self._commands.clear()
            for command in commands:
                command()
            if self._stopping:
                break
            try:
                self._run_iteration()
            except Exception as error:
                # If this thread ended, every later request would wait without a response.
                log.exception("scheduler iteration failed; all running requests fail")
                self._fail_running(_failure(error))
        self._fail_running(Unavailable("the server is shutting down"))
        with self._wake:
            waiting = [*self._waiting, *self._waiting_unbatched]
            self._waiting.clear()
            self._waiting_unbatched.clear()
        self._fail(waiting, Unavailable("the server is shutting down"))

    def _run_iteration(self) -> None:
        """Removes canceled rows, admits waiting ones, computes a slice of their prompts, and advances the batch by one
        token, then the row outside it.

        Canceled rows are removed first, so that their memory is available to waiting rows.
        """
        self._remove_cancelled()
        self._admit()
        if self._joining:
            self._prefill(self._next_joining())
        if self._live:
            self._step()
        self._advance_unbatched()

    def _fail_running(self, error: RequestError, *, keep_joining: bool = False) -> None:
        """Fails all running rows and resets the model; with `keep_joining`, prompts begin again if that succeeds."""
        failed, unbatched, run = list(self._live.values()), self._unbatched, self._unbatched_run
        with self._wake:
            self._live.clear()
            self._unbatched = self._unbatched_run = None
        try:
            if run is not None:
                run.cancel()
            self._model.reset()
        except Exception:
            log.exception("resetting the model failed; the server has to be restarted")
            self.is_broken = True
        with self._wake:
            if keep_joining and not self.is_broken:
                for row in self._joining:
                    row.prompt_tokens_read = row.cached_tokens = 0
            else:
                failed += self._joining.values()
                self._joining.clear()
        self._report_queue()
        self._fail([*failed, *([unbatched] if unbatched else [])], error)

    def _admit(self) -> None:
        """Admits the waiting rows for which the memory suffices now, in the order of their submission.

        Only the head of the queue is considered: a smaller row behind it would be faster, but a large row could wait
        indefinitely.
        """
        beside = [self._unbatched.row] if self._unbatched else []
        admitted = False
        with self._wake:
            while self._waiting:
                handle = self._waiting[0]
                live = [*self._live, *self._joining]
                if handle.row.cancelled:
                    self._waiting.popleft()
                    self._deliver([(handle, TokenEvent((), finish_reason="abort"))])
                    continue
                if len(live) >= self._batch_limit:
                    break
                # A row alone in memory always fits, because its length was checked against the context on submission.
                # Without this exception a pessimistic estimate could keep the row in the queue indefinitely.
                if (live or beside) and not self._model.can_admit([*live, *beside], handle.row):
                    break
                if live and self._must_wait_for_unbatched(handle, live):
                    break
                self._joining[handle.row] = self._waiting.popleft()
                admitted = True
        if admitted:
            self._report_queue()

    def _next_joining(self) -> list[RowHandle]:
        """Returns the admitted rows in the order in which their prompts are computed."""
        self._slices += 1
        joining = list(self._joining.values())
        if self._slices % 2 == 0:
            joining.sort(key=lambda handle: len(handle.row.prompt) - handle.row.prompt_tokens_read)
        return joining

    def _slice_tokens(self) -> int:
        """Computes how many prompt tokens the next slice may have."""
        if not self._prompt_token_seconds:
            return FIRST_SLICE_TOKENS
        seconds = max(SLICE_SECONDS, STEPS_PER_SLICE * self._step_seconds * bool(self._live))
        return max(MIN_SLICE_TOKENS, min(MAX_SLICE_TOKENS, round(seconds / self._prompt_token_seconds)))

    def _must_wait_for_unbatched(self, handle: RowHandle, live: Sequence[Row]) -> bool:
        """Returns whether a row outside the batch was submitted before `handle` and still lacks memory.

        Rows of the batch would otherwise overtake it as long as the batch is not empty, and it could wait indefinitely.
        """
        if self._unbatched is not None or not self._waiting_unbatched:
            return False
        first = self._waiting_unbatched[0]
        return first.order < handle.order and not self._model.can_admit(live, first.row)

    def _prefill(self, joining: Sequence[RowHandle]) -> None:
        """Computes one slice of prompts."""
        rows = [handle.row for handle in joining]
        before = sum(row.prompt_tokens_read - row.cached_tokens for row in rows)
        started = self._clock()
        try:
            outputs = self._model.prefill(rows, self._slice_tokens())
        except Exception as error:
            # A failed prefill changes nothing (`LanguageModel.prefill`), so only these rows are affected.
            if len(joining) > 1:
                # One row is the cause, for example a prompt that exceeds the memory. The others succeed separately.
                for handle in joining:
                    self._prefill([handle])
                return
            log.exception("prefill failed")
            self._model.remove(rows)
            with self._wake:
                del self._joining[joining[0].row]
            self._report_queue()
            self._fail(joining, _failure(error))
            return
        computed = sum(row.prompt_tokens_read - row.cached_tokens for row in rows) - before
        if computed >= MIN_SLICE_TOKENS:
            self._prompt_token_seconds = (self._clock() - started) / computed
        with self._wake:
            for output in outputs:
                self._live[output.row] = self._joining.pop(output.row)
        if self._observer:
            self._observer.prefix_cache_changed(self._model.prefix_usage)
        self._process_outputs(outputs)

    def _step(self) -> None:
        started = self._clock()
        count = len(self._live)
        try:
            outputs = self._model.step()
        except Exception as error:
            # A step that fails half way leaves rows with different numbers of tokens: the batch cannot be continued.
            log.exception("decode step failed; %d rows fail", count)
            self._fail_running(_failure(error), keep_joining=True)
            return
        self._step_seconds = self._clock() - started
        if self._observer:
            self._observer.step_done(count, self._step_seconds)
        self._process_outputs(outputs)

    def _process_outputs(self, outputs: Sequence[RowOutput]) -> None:
        now = self._clock()
        events: list[tuple[RowHandle, TokenEvent | RequestError]] = []
        ended: list[Row] = []
        for output in outputs:
            row = output.row
            handle = self._live[row]
            if output.error is not None:
                events.append((handle, output.error))
                ended.append(row)
                continue
            row.output_tokens.append(output.token)
            if handle.first_token_at is None:
                handle.first_token_at = now
            if output.logprob is not None:
                handle.logprobs.append(output.logprob)
            finish_reason = _finish_reason(row, output.token)
            if handle.incremental:
                found = (output.logprob,) if output.logprob else ()
                events.append((handle, TokenEvent((output.token,), found, finish_reason, at=now)))
            elif finish_reason:
                events.append(
                    (handle, TokenEvent(row.output_tokens, handle.logprobs, finish_reason, at=handle.first_token_at))
                )
            if finish_reason:
                ended.append(row)
        if ended:
            self._remove(ended)
        if events:
            self._deliver(events)

    def _remove_cancelled(self) -> None:
        with self._wake:
            queued = [handle for queue in self._queues for handle in queue if handle.row.cancelled]
            for queue in self._queues if queued else ():
                kept = [handle for handle in queue if not handle.row.cancelled]
                queue.clear()
                queue.extend(kept)
        if queued:
            self._deliver([(handle, TokenEvent((), finish_reason="abort")) for handle in queued])
            self._report_queue()
        running = self._joining | self._live
        cancelled = [row for row in running if row.cancelled]
        if cancelled:
            handles = [running[row] for row in cancelled]
            self._remove(cancelled)
            self._deliver([(handle, TokenEvent((), finish_reason="abort")) for handle in handles])

    def _remove(self, rows: Sequence[Row]) -> None:
        self._model.remove(rows)
        with self._wake:
            for row in rows:
                self._joining.pop(row, None)
                self._live.pop(row, None)
        self._report_queue()

    # The row outside the batch.

    def _advance_unbatched(self) -> None:
        """Advances the row outside the batch by one token, after starting the next waiting one if none runs."""
        if self._unbatched is None and not self._take_unbatched():
            return
        handle, run = self._unbatched, self._unbatched_run
        if handle is None:
            return
        row = handle.row
        try:
            if row.cancelled:
                self._finish_unbatched([(handle, TokenEvent((), finish_reason="abort"))])
                return
            if run is None:
                run = self._unbatched_run = self._model.start_unbatched(row)
            progress = run.advance()
        except RequestError as error:
            self._finish_unbatched([(handle, error)])
        except Exception as error:
            log.exception("generation outside the batch failed")
            self._finish_unbatched([(handle, _failure(error))])
        else:
            self._deliver_unbatched(handle, progress)

    def _take_unbatched(self) -> bool:
        """Takes the next row to run outside the batch, if the memory suffices; returns whether one was taken."""
        with self._wake:
            if not self._waiting_unbatched:
                return False
            handle = self._waiting_unbatched[0]
            live = [*self._live, *self._joining]
            if live and not handle.row.cancelled and not self._model.can_admit(live, handle.row):
                return False
            self._unbatched = self._waiting_unbatched.popleft()
        self._report_queue()
        reasons = handle.row.plan.unbatched_reasons
        if self._observer:
            self._observer.unbatched_started(reasons)
        new = set(reasons) - self._logged_reasons
        if new:
            self._logged_reasons |= new
            log.warning(
                "a request runs outside the batch because of %s; later ones are not logged, see the metric "
                "kaito_generation_unbatched_total",
                ", ".join(sorted(new)),
            )
        return True

    def _deliver_unbatched(self, handle: RowHandle, progress: UnbatchedProgress) -> None:
        now = self._clock()
        row = handle.row
        if handle.first_token_at is None:
            handle.first_token_at = now
        row.output_tokens.extend(progress.tokens)
        if progress.sequences is None:
            if handle.incremental and progress.tokens:
                self._deliver([(handle, TokenEvent(progress.tokens, at=now))])
            return
        tokens = progress.sequences[0]
        finish_reason = "stop" if tokens and tokens[-1] in row.plan.end_tokens else "length"
        rest = tokens[len(row.output_tokens) - len(progress.tokens) :] if handle.incremental else tokens
        if self._observer:
            self._observer.unbatched_finished(sum(len(sequence) for sequence in progress.sequences))
        self._finish_unbatched(
            [(handle, TokenEvent(rest, (), finish_reason, progress.sequences, handle.first_token_at))]
        )

    def _finish_unbatched(self, events: Sequence[tuple[RowHandle, TokenEvent | RequestError]]) -> None:
        run = self._unbatched_run
        with self._wake:
            self._unbatched = self._unbatched_run = None
        if run is not None:
            run.cancel()
        self._report_queue()
        self._deliver(events)

    def _fail(self, handles: Sequence[RowHandle], error: RequestError) -> None:
        self._deliver([(handle, error) for handle in handles])

    def _deliver(self, events: Sequence[tuple[RowHandle, TokenEvent | RequestError]]) -> None:
        """Delivers events to their requests, in one call of the event loop.

        Waking the loop (a write to its pipe) costs more than filling the queues, so a step wakes it once and not once
        per row.
        """
        loop = events[0][0].loop if events else None
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(_hand_over, list(events))

    def _report_queue(self) -> None:
        if self._observer:
            waiting = len(self._waiting) + len(self._waiting_unbatched)
            running = len(self._live) + len(self._joining) + (self._unbatched is not None)
            self._observer.queue_changed(waiting, running)


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: "asyncio.Future[Result]",
    result: Result | None = None,
    *,
    error: Exception | None = None,
) -> None:
    """Completes a future of the event loop from another thread."""

    def complete() -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("Result", result))

    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
        loop.call_soon_threadsafe(complete)


def _hand_over(events: Sequence[tuple[RowHandle, TokenEvent | RequestError]]) -> None:
    for handle, event in events:
        handle.events.put_nowait(event)


def _finish_reason(row: Row, token: int) -> str | None:
    if token in row.plan.end_tokens:
        return "stop"
    return "length" if len(row.output_tokens) >= row.max_new_tokens else None


def _failure(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, OutOfMemory):
        failure = GenerationFailed(
            "out of memory while generating; request fewer tokens or send fewer requests at once"
        )
    else:
        failure = GenerationFailed(f"generation failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
