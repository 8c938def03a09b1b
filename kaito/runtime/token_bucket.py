"""Token bucket: bounds the rate of requests to a server.

The client uses it for `kube-client-qps`, the work queue for `BucketLimiter`. Other programs use it for any API with a
rate limit:

    bucket = TokenBucket(rate=1, burst=60)
    await bucket.take()    # waits until a request may be sent
    bucket.pause(30.0)     # after a 429 with Retry-After: no request for 30 s
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, final

from kaito.runtime.clock import monotonic

SMALLEST_SECONDS: Final = 1e-5
"""A shorter wait counts as 0: rounding errors of sums are below the resolution of clocks."""


class BucketPaused(Exception):
    """The bucket is paused for longer than `take` waits."""

    def __init__(self, remaining_seconds: float) -> None:
        super().__init__(f"requests are paused for {remaining_seconds:.1f} s")
        self.remaining_seconds = remaining_seconds


@final
class TokenBucket:
    """Allows `burst` requests at once and `rate` per second afterwards, in the order of `take`."""

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        max_wait: float = math.inf,
        paused_error: Callable[[float], Exception] = BucketPaused,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """Creates a full bucket.

        Args:
            rate: tokens per second.
            burst: tokens of a full bucket.
            max_wait: longest pause, in seconds, that `take` waits for.
            paused_error: builds the error for a longer pause from its remaining seconds.
            now: clock in seconds.

        Raises:
            ValueError: the rate is not positive, or the burst is less than one request.
        """
        if rate <= 0 or burst < 1:
            message = f"a token bucket needs a rate above 0 and a burst of at least 1, not {rate}/s and {burst}"
            raise ValueError(message)
        self._rate = rate
        self._burst = burst
        self._max_wait = max_wait
        self._paused_error = paused_error
        self._now = now
        self._tokens = float(burst)
        self._filled_at: float | None = None
        self._paused_until = -math.inf
        self._queue: list[asyncio.Event] = []

    @property
    def tokens(self) -> float:
        """Requests that can be sent at once now."""
        self._fill()
        return self._tokens

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self._rate

    @property
    def waiting(self) -> int:
        """Number of callers that wait for a token."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether no token is missing, no caller waits, and there is no pause."""
        return not self._queue and self.tokens >= self._burst and self._paused_until <= self._now()

    async def take(self, *, first: bool = False) -> float:
        """Waits for a token; returns the seconds waited.

        Args:
            first: go before the callers that wait already.

        Raises:
            BucketPaused: the pause is longer than `max_wait` (or what `paused_error` builds).
        """
        started, has_waited = self._now(), False
        turn = asyncio.Event()
        self._queue.insert(0 if first else len(self._queue), turn)
        try:
            while True:
                self.check_pause()
                wait = self._seconds_until_token() if self._queue[0] is turn else None
                if wait is not None and wait <= 0:
                    break
                has_waited = True
                turn.clear()
                try:
                    async with asyncio.timeout(wait):
                        await turn.wait()
                except TimeoutError:
                    continue
            self._tokens -= 1
        finally:
            self._queue.remove(turn)
            self._wake_first()
        return self._now() - started if has_waited else 0.0

    def reserve(self) -> float:
        """Takes a token on credit; returns the seconds until it is available, as golang.org/x/time/rate does."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def pause(self, seconds: float) -> None:
        """Stops all requests for `seconds` and empties the bucket: other clients have used the server's tokens."""
        self._fill()
        self._tokens = min(self._tokens, 0.0)
        self._paused_until = max(self._paused_until, self._now() + seconds)
        for turn in self._queue:
            turn.set()

    def check_pause(self) -> None:
        """Checks that a request would not have to wait for a long pause.

        Raises:
            BucketPaused: the pause is longer than `max_wait` (or what `paused_error` builds).
        """
        remaining = self._paused_until - self._now()
        if remaining > self._max_wait:
            raise self._paused_error(remaining)

    def set_rate(self, rate: float) -> None:
        """Changes the rate; tokens that are in the bucket stay."""
        self._fill()
        self._rate = rate
        self._wake_first()

    def _seconds_until_token(self) -> float:
        self._fill()
        wait = max((1 - self._tokens) / self._rate, self._paused_until - self._now())
        return wait if wait > SMALLEST_SECONDS else 0.0

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].set()

    def _fill(self) -> None:
        now = self._now()
        elapsed = now - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
