"""Continuous batching over a bounded queue: one thread that owns the model and advances every live row token
by token.

Called by the service, from the event loop; the thread calls back into the loop. Guarantees: at most
`queue_limit` rows wait (more are refused with 429 at once); a row joins the running batch between two steps,
as soon as the model has room, and leaves it the moment it ends or its client is gone; a failing step fails
the rows of that batch and nothing else; a slow reader delays nobody, because tokens are handed over without
waiting.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from kaito_presets.errors import GenerationFailed, Overloaded, RequestError, Unavailable
from kaito_presets.inference.language_model import Emission, LanguageModel, OutOfMemory, Row, TokenLogprob

log = logging.getLogger(__name__)

MAX_JOINING_TOKENS: Final = 4096
"""Prompt tokens read between two steps of the batch, so that long prompts do not starve rows under way."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens of a row; `finish` is set on the last one of them ("stop", "length", or "abort")."""

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprob] = ()
    finish: str | None = None
    sequences: Sequence[Sequence[int]] = ()
    """All returned sequences of a row that ran alone."""
    at: float = 0.0
    """Clock reading of the first token in `tokens`."""


class Observer(Protocol):
    """Learns what the scheduler does; implemented by the metrics."""

    def queue_changed(self, waiting: int, live: int) -> None:
        """Rows waiting and rows in the batch."""
        ...

    def step_done(self, rows: int, seconds: float) -> None:
        """One decode step produced `rows` tokens."""
        ...


@final
@dataclass(slots=True, eq=False)
class Ticket:
    """A row's way back to its request: an async iterator of `Tokens` and the means to abandon it."""

    row: Row
    incremental: bool
    """Deliver every token at once (streaming, stop strings) instead of all of them at the end."""
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Tokens | RequestError] = field(default_factory=asyncio.Queue[Tokens | RequestError])
    first_token_at: float | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def cancel(self) -> None:
        """Stop generating; the row leaves the batch before the next step."""
        self.row.cancelled = True

    async def next(self) -> Tokens:
        """The next tokens.

        Raises:
            RequestError: the row failed.
        """
        event = await self.events.get()
        if isinstance(event, RequestError):
            raise event
        return event


@final
class Scheduler:
    """Owns the model's thread. `submit` from the event loop; `drain` then `stop` to end."""

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
        self._waiting: deque[Ticket] = deque()
        self._live: dict[Row, Ticket] = {}
        self._alone: Ticket | None = None
        self._closed = False
        self._stopping = False
        self._step_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, rows: Sequence[Row], *, incremental: bool) -> list[Ticket]:
        """Queue rows of one request, all or none.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the server is draining.
        """
        loop = asyncio.get_running_loop()
        tickets = [Ticket(row, incremental, loop) for row in rows]
        with self._wake:
            if self._closed:
                raise Unavailable("the server is shutting down")
            room = self._batch_limit - len(self._live) + self._queue_limit - len(self._waiting)
            if len(rows) > room:
                raise Overloaded(
                    f"the queue is full ({len(self._waiting)} waiting, {len(self._live)} being generated)",
                    retry_after_seconds=self._retry_after(),
                )
            self._waiting.extend(tickets)
            self._wake.notify()
        self._report()
        return tickets

    @property
    def busy(self) -> bool:
        """Whether any row waits or runs."""
        return bool(self._waiting or self._live or self._alone)

    def close(self) -> None:
        """Refuse new rows; those accepted go on."""
        with self._wake:
            self._closed = True

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End the thread; rows still under way fail with 503."""
        with self._wake:
            self._closed = self._stopping = True
            for row in self._live:
                row.cancelled = True
            if self._alone:
                self._alone.cancel()
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _retry_after(self) -> int:
        """A guess in whole seconds: the longest row under way at the pace of the last steps."""
        longest = max((row.max_new_tokens - len(row.produced) for row in self._live), default=0)
        return max(1, min(60, round(longest * self._step_seconds)))

    # The thread. Only it touches the model's stepping methods and `_live`.

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._live or self._stopping):
                    self._wake.wait()
                if self._stopping:
                    break
            self._turn()
        self._fail([*self._live.values(), *self._waiting], Unavailable("the server is shutting down"))
        self._live.clear()
        self._waiting.clear()

    def _turn(self) -> None:
        """Let gone rows leave, let waiting rows join, advance the batch by one token."""
        self._drop_cancelled()
        joining = self._next_to_join()
        if joining and joining[0].row.plan.alone:
            self._run_alone(joining[0])
            return
        if joining:
            self._begin(joining)
        if self._live:
            self._step()

    def _next_to_join(self) -> list[Ticket]:
        """Waiting tickets that fit now, in order; a ticket that runs alone waits for an empty batch and
        holds the line."""
        joining: list[Ticket] = []
        tokens = 0
        with self._wake:
            while self._waiting:
                ticket = self._waiting[0]
                live = [*self._live, *(other.row for other in joining)]
                if ticket.row.cancelled:
                    self._waiting.popleft()
                    self._deliver([(ticket, Tokens((), finish="abort"))])
                    continue
                if ticket.row.plan.alone:
                    if not live:
                        self._alone = self._waiting.popleft()
                        joining.append(ticket)
                    break
                tokens += len(ticket.row.prompt)
                if len(live) >= self._batch_limit or (joining and tokens > MAX_JOINING_TOKENS):
                    break
                # An empty batch takes any row: its prompt was checked against the context when it was accepted.
                if live and not self._model.fits(live, ticket.row):
                    break
                joining.append(self._waiting.popleft())
        return joining

    def _begin(self, joining: Sequence[Ticket]) -> None:
        try:
            emissions = self._model.begin([ticket.row for ticket in joining])
        except Exception as error:  # the boundary: whatever the libraries raise fails these rows only
            log.exception("reading %d prompt(s) failed", len(joining))
            self._fail(joining, _failure(error))
            return
        self._live.update((ticket.row, ticket) for ticket in joining)
        self._report()
        self._accept(emissions)

    def _step(self) -> None:
        started = self._clock()
        count = len(self._live)
        try:
            emissions = self._model.step()
        except Exception as error:  # the same boundary; the state of the batch is unknown now
            log.exception("generation failed; %d request(s) answered with an error", count)
            lost = list(self._live.values())
            self._live.clear()
            self._model.reset()
            self._report()
            self._fail(lost, _failure(error))
            return
        self._step_seconds = self._clock() - started
        if self._observer:
            self._observer.step_done(count, self._step_seconds)
        self._accept(emissions)

    def _accept(self, emissions: Sequence[Emission]) -> None:
        now = self._clock()
        news: list[tuple[Ticket, Tokens | RequestError]] = []
        ended: list[Row] = []
        for emission in emissions:
            row = emission.row
            ticket = self._live[row]
            row.produced.append(emission.token)
            if ticket.first_token_at is None:
                ticket.first_token_at = now
            if emission.logprob is not None:
                ticket.logprobs.append(emission.logprob)
            finish = _finish(row, emission.token)
            if ticket.incremental:
                found = (emission.logprob,) if emission.logprob else ()
                news.append((ticket, Tokens((emission.token,), found, finish, at=now)))
            elif finish:
                news.append((ticket, Tokens(row.produced, ticket.logprobs, finish, at=ticket.first_token_at)))
            if finish:
                ended.append(row)
        if ended:
            self._leave(ended)
        if news:
            self._deliver(news)

    def _drop_cancelled(self) -> None:
        gone = [row for row in self._live if row.cancelled]
        if gone:
            tickets = [self._live[row] for row in gone]
            self._leave(gone)
            self._deliver([(ticket, Tokens((), finish="abort")) for ticket in tickets])

    def _leave(self, rows: Sequence[Row]) -> None:
        self._model.leave(rows)
        with self._wake:
            for row in rows:
                del self._live[row]
        self._report()

    def _run_alone(self, ticket: Ticket) -> None:
        self._report()
        row = ticket.row
        try:
            sequences = self._model.run_alone(row, lambda: row.cancelled)
        except RequestError as error:
            self._fail([ticket], error)
        except Exception as error:
            log.exception("generation failed")
            self._model.reset()
            self._fail([ticket], _failure(error))
        else:
            tokens = sequences[0]
            row.produced.extend(tokens)
            finish = "stop" if tokens and tokens[-1] in row.plan.end_tokens else "length"
            self._deliver([(ticket, Tokens(tokens, (), finish, sequences, self._clock()))])
        finally:
            self._alone = None
            self._report()

    def _fail(self, tickets: Sequence[Ticket], error: RequestError) -> None:
        self._deliver([(ticket, error) for ticket in tickets])

    def _deliver(self, news: Sequence[tuple[Ticket, Tokens | RequestError]]) -> None:
        """Hand over in one call per step: waking the event loop costs more than the queues do."""
        loop = news[0][0].loop if news else None
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(_hand_over, list(news))

    def _report(self) -> None:
        if self._observer:
            self._observer.queue_changed(len(self._waiting), len(self._live) + (self._alone is not None))


def _hand_over(news: Sequence[tuple[Ticket, Tokens | RequestError]]) -> None:
    for ticket, event in news:
        ticket.events.put_nowait(event)


def _finish(row: Row, token: int) -> str | None:
    if token in row.plan.end_tokens:
        return "stop"
    return "length" if len(row.produced) >= row.max_new_tokens else None


def _failure(error: Exception) -> RequestError:
    if isinstance(error, OutOfMemory):
        failure = GenerationFailed(
            "out of memory while generating; ask for fewer tokens or send fewer requests at once"
        )
    else:
        failure = GenerationFailed(f"generation failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
