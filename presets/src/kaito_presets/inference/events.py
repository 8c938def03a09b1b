"""What the scheduler delivers: tokens to the request of a row, and measurements to an observer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from kaito_presets.errors import RequestError
from kaito_presets.inference.language_model import PrefixUsage, Row, TokenLogprob


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New tokens of a row; `finish_reason` is "stop", "length" or "abort" in the last event of a row, else None."""

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None
    sequences: Sequence[Sequence[int]] = ()
    """All returned sequences of a row that ran outside the batch."""
    at: float = 0.0
    """Clock reading of the first token in `tokens`."""


class Observer(Protocol):
    """Receives measurements; `Metrics` implements it. The scheduler's thread calls it, so it must not block."""

    def queue_changed(self, waiting: int, live: int) -> None:
        """Called when the number of waiting or running rows has changed."""
        ...

    def step_done(self, rows: int, seconds: float) -> None:
        """Called after a decode step, which produced one token for each of `rows` rows."""
        ...

    def prefix_cache_changed(self, usage: PrefixUsage) -> None:
        """Called after a slice of prompts, with the use of stored prefixes since the start."""
        ...

    def unbatched_started(self, reasons: Sequence[str]) -> None:
        """Called when a row starts outside the batch; `reasons` are the options that require it."""
        ...

    def unbatched_finished(self, tokens: int) -> None:
        """Called when a row outside the batch ends; `tokens` counts the tokens of all its sequences."""
        ...


@final
@dataclass(slots=True, eq=False)
class RowHandle:
    """Connects a submitted row with its request: delivers the token events and cancels the row."""

    row: Row
    incremental: bool
    """Whether each token is delivered immediately (for streams and stop strings) or all of them at the end."""
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[TokenEvent | RequestError] = field(default_factory=asyncio.Queue[TokenEvent | RequestError])
    order: int = 0
    """Sequence number of the submission."""
    first_token_at: float | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def cancel(self) -> None:
        """Requests that the row ends; the scheduler removes it before the next step."""
        self.row.cancelled = True

    async def next(self) -> TokenEvent:
        """Waits for the next tokens of the row.

        Raises:
            RequestError: the row failed.
        """
        event = await self.events.get()
        if isinstance(event, RequestError):
            raise event
        return event
