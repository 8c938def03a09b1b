"""A token bucket shared by every ARM request of the process, and a pause that a 429 imposes on all of them."""

import asyncio
from typing import final

from kaito.cloud.errors import Deferred
from kaito.runtime.clock import monotonic

PATIENCE_SECONDS = 2.0
"""Longest wait inside a call; whoever would have to wait longer goes back to the work queue instead."""


@final
class TokenBucket:
    """Lets `burst` requests through at once and `rate` a second after that, first come first served."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at: float | None = None
        self._paused_until = 0.0

    async def take(self) -> float:
        """Wait for a token; returns the seconds waited.

        Raises:
            Deferred: it would take longer than anybody should hold a worker for.
        """
        now = monotonic()
        self._fill(now)
        wait = max((1 - self._tokens) / self._rate, self._paused_until - now, 0.0)
        if wait > PATIENCE_SECONDS:
            raise Deferred("waiting for our share of the subscription's request limit", retry_after=wait)
        self._tokens -= 1
        if wait > 0:
            await asyncio.sleep(wait)
        return wait

    def pause(self, seconds: float) -> None:
        """Nobody asks for that long: the cloud said so."""
        self._paused_until = max(self._paused_until, monotonic() + seconds)

    def _fill(self, now: float) -> None:
        since = now - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = now
        self._tokens = min(self._burst, self._tokens + since * self._rate)
