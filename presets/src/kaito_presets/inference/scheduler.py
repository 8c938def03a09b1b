"""Continuous batching over a bounded queue: one thread that owns the model and advances every live row token
by token.

Called by the service, from the event loop; the thread calls back into the loop. Guarantees: at most
`queue_limit` rows wait (more are refused with 429 at once, and a request that could never be accepted with 400); the
rows of one request are accepted together or not at all; a row joins the running batch between two steps, as soon as
the model has room, and leaves it the moment it ends or its client is gone; a row that fails leaves alone; a failing
step fails the rows of the batch and nothing else; one row at a time runs outside the batch and alternates with it,
token by token; a slow reader delays no other request, because tokens are handed over without waiting.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from kaito_presets.errors import BadRequest, GenerationFailed, Overloaded, RequestError, Unavailable
from kaito_presets.inference.language_model import (
    AloneGeneration,
    AloneProgress,
    Emission,
    LanguageModel,
    OutOfMemory,
    Row,
    TokenLogprob,
)

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

    def ran_alone(self, because: Sequence[str]) -> None:
        """A row was started outside the batch, because of these options."""
        ...

    def generated_alone(self, tokens: int) -> None:
        """A row outside the batch ended with `tokens` tokens in all its sequences."""
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
    order: int = 0
    """Position in the order of arrival."""
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
        self._waiting_alone: deque[Ticket] = deque()
        self._alone: Ticket | None = None
        self._run_of_alone: AloneGeneration | None = None
        self._known_reasons: set[str] = set()
        self._arrivals = 0
        self.broken = False
        """The model does not recover from a failure; the process has to be restarted."""
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
            BadRequest: more rows than the server ever takes at once.
            Overloaded: the queue is full.
            Unavailable: the server is draining, or its model is broken.
        """
        loop = asyncio.get_running_loop()
        tickets = [Ticket(row, incremental, loop) for row in rows]
        self.check_count(len(rows))
        most = self._batch_limit + self._queue_limit
        for row in rows:
            if row.plan.alone:
                self._model.check_alone(row)
        with self._wake:
            if self._closed:
                raise Unavailable("the server is shutting down")
            if self.broken:
                raise Unavailable("the model failed and does not recover; the server has to be restarted")
            waiting = len(self._waiting) + len(self._waiting_alone)
            if len(rows) > most - len(self._live) - waiting - (self._alone is not None):
                raise Overloaded(
                    f"the queue is full ({waiting} waiting, {len(self._live)} being generated)",
                    retry_after_seconds=self._retry_after(),
                )
            for ticket in tickets:
                self._arrivals += 1
                ticket.order = self._arrivals
                (self._waiting_alone if ticket.row.plan.alone else self._waiting).append(ticket)
            self._wake.notify()
        self._report()
        return tickets

    def check_count(self, rows: int) -> None:
        """Refuse a request for more rows than the server ever takes at once.

        Raises:
            BadRequest: holds both numbers.
        """
        most = self._batch_limit + self._queue_limit
        if rows > most:
            raise BadRequest(
                f"the request asks for {rows} sequences (prompts x n); this server takes at most {most} in one "
                "request: send fewer prompts at a time",
                param="prompt",
            )

    @property
    def busy(self) -> bool:
        """Whether any row waits or runs."""
        return bool(self._waiting or self._live or self._waiting_alone or self._alone)

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
                while not (self.busy or self._stopping):
                    self._wake.wait()
                if self._stopping:
                    break
            try:
                self._turn()
            except Exception as error:  # the last boundary: this thread must not end while the server answers
                log.exception("the scheduler failed; every request under way is answered with an error")
                self._abandon(_failure(error))
        self._abandon(Unavailable("the server is shutting down"))
        with self._wake:
            waiting = [*self._waiting, *self._waiting_alone]
            self._waiting.clear()
            self._waiting_alone.clear()
        self._fail(waiting, Unavailable("the server is shutting down"))

    def _turn(self) -> None:
        """Let gone rows leave, let waiting rows join, advance the batch by one token, then the row beside it."""
        self._drop_cancelled()
        joining = self._next_to_join()
        if joining:
            self._begin(joining)
        if self._live:
            self._step()
        self._advance_alone()

    def _abandon(self, error: RequestError) -> None:
        """Fail everything that is being generated and empty the model."""
        lost = list(self._live.values())
        alone, run = self._alone, self._run_of_alone
        with self._wake:
            self._live.clear()
            self._alone = self._run_of_alone = None
        try:
            if run is not None:
                run.cancel()
            self._model.reset()
        except Exception:
            log.exception("the model does not recover; the server has to be restarted")
            self.broken = True
        self._report()
        self._fail([*lost, *([alone] if alone else [])], error)

    def _next_to_join(self) -> list[Ticket]:
        """Waiting tickets that fit now, in order."""
        joining: list[Ticket] = []
        tokens = 0
        beside = [self._alone.row] if self._alone else []
        with self._wake:
            while self._waiting:
                ticket = self._waiting[0]
                live = [*self._live, *(other.row for other in joining)]
                if ticket.row.cancelled:
                    self._waiting.popleft()
                    self._deliver([(ticket, Tokens((), finish="abort"))])
                    continue
                tokens += len(ticket.row.prompt)
                if len(live) >= self._batch_limit or (joining and tokens > MAX_JOINING_TOKENS):
                    break
                # An empty batch takes any row: its prompt was checked against the context when it was accepted.
                if (live or beside) and not self._model.fits([*live, *beside], ticket.row):
                    break
                if live and self._alone_waits_longer(ticket, live):
                    break
                joining.append(self._waiting.popleft())
        return joining

    def _alone_waits_longer(self, ticket: Ticket, live: Sequence[Row]) -> bool:
        """Whether a row that runs alone came before `ticket` and lacks memory: without this it could wait without
        end while smaller rows come and go."""
        if self._alone is not None or not self._waiting_alone:
            return False
        first = self._waiting_alone[0]
        return first.order < ticket.order and not self._model.fits(live, first.row)

    def _begin(self, joining: Sequence[Ticket]) -> None:
        try:
            emissions = self._model.begin([ticket.row for ticket in joining])
        except Exception as error:  # the boundary: whatever the libraries raise fails these rows only
            if len(joining) > 1:
                # One of them is the cause: each is tried alone, so that the others are answered.
                for ticket in joining:
                    self._begin([ticket])
                return
            log.exception("reading a prompt failed")
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
            self._abandon(_failure(error))
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
            if emission.error is not None:
                news.append((ticket, emission.error))
                ended.append(row)
                continue
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

    # The row beside the batch.

    def _advance_alone(self) -> None:
        """One token of the row outside the batch; starts the next one that waits."""
        if self._alone is None and not self._take_alone():
            return
        ticket, run = self._alone, self._run_of_alone
        if ticket is None:
            return
        row = ticket.row
        try:
            if row.cancelled:
                self._end_alone([(ticket, Tokens((), finish="abort"))])
                return
            if run is None:
                run = self._run_of_alone = self._model.start_alone(row)
            progress = run.advance()
        except RequestError as error:
            self._end_alone([(ticket, error)])
        except Exception as error:  # whatever the libraries raise fails this row only
            log.exception("generation failed")
            self._end_alone([(ticket, _failure(error))])
        else:
            self._deliver_alone(ticket, progress)

    def _take_alone(self) -> bool:
        """Take the next row that runs alone, if there is memory for it."""
        with self._wake:
            if not self._waiting_alone:
                return False
            ticket = self._waiting_alone[0]
            live = [*self._live]
            if live and not ticket.row.cancelled and not self._model.fits(live, ticket.row):
                return False
            self._alone = self._waiting_alone.popleft()
        self._report()
        because = ticket.row.plan.alone_because
        if self._observer:
            self._observer.ran_alone(because)
        new = set(because) - self._known_reasons
        if new:
            self._known_reasons |= new
            log.warning(
                "a request runs outside the batch because of %s; later ones are counted in "
                "kaito_generation_unbatched_total and not logged",
                ", ".join(sorted(new)),
            )
        return True

    def _deliver_alone(self, ticket: Ticket, progress: AloneProgress) -> None:
        now = self._clock()
        row = ticket.row
        if ticket.first_token_at is None:
            ticket.first_token_at = now
        row.produced.extend(progress.tokens)
        if progress.sequences is None:
            if ticket.incremental and progress.tokens:
                self._deliver([(ticket, Tokens(progress.tokens, at=now))])
            return
        tokens = progress.sequences[0]
        finish = "stop" if tokens and tokens[-1] in row.plan.end_tokens else "length"
        rest = tokens[len(row.produced) - len(progress.tokens) :] if ticket.incremental else tokens
        if self._observer:
            self._observer.generated_alone(sum(len(sequence) for sequence in progress.sequences))
        self._end_alone([(ticket, Tokens(rest, (), finish, progress.sequences, ticket.first_token_at))])

    def _end_alone(self, news: Sequence[tuple[Ticket, Tokens | RequestError]]) -> None:
        run = self._run_of_alone
        with self._wake:
            self._alone = self._run_of_alone = None
        if run is not None:
            run.cancel()
        self._report()
        self._deliver(news)

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
            waiting = len(self._waiting) + len(self._waiting_alone)
            self._observer.queue_changed(waiting, len(self._live) + (self._alone is not None))


def _hand_over(news: Sequence[tuple[Ticket, Tokens | RequestError]]) -> None:
    for ticket, event in news:
        ticket.events.put_nowait(event)


def _finish(row: Row, token: int) -> str | None:
    if token in row.plan.end_tokens:
        return "stop"
    return "length" if len(row.produced) >= row.max_new_tokens else None


def _failure(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, OutOfMemory):
        failure = GenerationFailed(
            "out of memory while generating; ask for fewer tokens or send fewer requests at once"
        )
    else:
        failure = GenerationFailed(f"generation failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
