"""The request budgets that Azure documents, as token buckets of this process, and the pauses that a 429 imposes.

AKS limits its own requests below the resource manager's limits (Azure/azure-aks-docs, quotas-skus-regions): GET of an
operation's status 200 at once and then 2 a second for each subscription; PUT of an agent pool 20 at once and then 1 a
minute for each pool; every other request 60 at once and then 1 a second for each subscription and region. Compute
counts apart. Requests wait in their bucket in order; a 429 stops the bucket that it is about and no other.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from kaito.cloud.errors import Throttled
from kaito.runtime.clock import monotonic

PATIENCE_SECONDS: Final = 5.0
"""The longest pause, imposed by a 429, that a request waits for; beyond it the request is not begun."""

LONGEST_PAUSE: Final = timedelta(minutes=2).total_seconds()
"""A longer `Retry-After` is cut to this; the next request shows whether Azure still refuses."""

DEFAULT_PAUSE_SECONDS: Final = 5.0
"""The pause after a 429 without `Retry-After`."""

SMALLEST_SECONDS: Final = 1e-5
"""A shorter wait counts as none: sums of fractions leave rests that no clock shows."""

MANY_POOLS: Final = 1000
"""Buckets of single pools that are kept before the full ones are dropped."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many requests at once, and how many a second after that."""

    burst: float
    rate: float


OPERATIONS: Final = Budget(200, 2)
PUT_POOL: Final = Budget(20, 1 / 60)
POOLS: Final = Budget(60, 1)
COMPUTE: Final = Budget(40, 4)
"""Not documented as a whole; far below the resource manager's 250 and 25 a second for reads."""


@final
class Bucket:
    """Lets `burst` requests through at once and `rate` a second after that, first come first served."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._rate = budget.rate
        self._tokens = float(budget.burst)
        self._filled_at: float | None = None
        self._paused_until = 0.0
        self._queue: list[asyncio.Event] = []

    @property
    def tokens(self) -> float:
        """Requests that could be sent at once now."""
        self._fill()
        return self._tokens

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self._rate

    @property
    def waiting(self) -> int:
        """Requests that wait for a token."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether the bucket is in its initial state: no token is missing, and there is no pause."""
        return not self._queue and self.tokens >= self._budget.burst and self._paused_until <= monotonic()

    async def take(self, *, first: bool = False) -> None:
        """Wait for a token, in order; `first` goes before those that wait already.

        Raises:
            Throttled: a 429 imposed a pause that is longer than a worker is held for.
        """
        turn = asyncio.Event()
        self._queue.insert(0 if first else len(self._queue), turn)
        try:
            while True:
                self.check_pause()
                wait = self._seconds() if self._queue[0] is turn else None
                if wait is not None and wait <= 0:
                    break
                turn.clear()
                try:
                    async with asyncio.timeout(wait):
                        await turn.wait()
                except TimeoutError:
                    continue
            self._tokens -= 1
        finally:
            self._queue.remove(turn)
            self._wake()

    def pause(self, seconds: float | None) -> None:
        """The cloud answered 429: nothing is sent for that long, and its bucket is empty, whatever was counted here.

        Other clients of the subscription use the same budget.
        """
        self._fill()
        self._tokens = min(self._tokens, 0.0)
        wait = min(DEFAULT_PAUSE_SECONDS if seconds is None else max(seconds, 0.0), LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, monotonic() + wait)
        for turn in self._queue:
            turn.set()

    def run_at(self, speed: float) -> None:
        """The clock of the cloud runs that many times as fast as ours."""
        self._fill()
        self._rate = self._budget.rate * speed
        self._wake()

    def check_pause(self) -> None:
        """Raise during a pause that is longer than a worker is held for.

        Raises:
            Throttled: with the rest of the pause.
        """
        left = self._paused_until - monotonic()
        if left > PATIENCE_SECONDS:
            raise Throttled("Azure throttles requests of this kind (429)", retry_after=left)

    def _seconds(self) -> float:
        """Until the next request may be sent."""
        self._fill()
        wait = max((1 - self._tokens) / self._rate, self._paused_until - monotonic())
        return wait if wait > SMALLEST_SECONDS else 0.0

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].set()

    def _fill(self) -> None:
        now = monotonic()
        since = now - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = now
        self._tokens = min(self._budget.burst, self._tokens + since * self._rate)


@final
class Budgets:
    """Every bucket of one subscription, and the limit of this process over all of them."""

    def __init__(self, overall: Budget) -> None:
        self._speed = 1.0
        self.operations = Bucket(OPERATIONS)
        self.pools = Bucket(POOLS)
        """Everything about agent pools and the cluster but the two that have buckets of their own."""
        self.compute = Bucket(COMPUTE)
        self.overall = Bucket(overall)
        self._puts: dict[str, Bucket] = {}

    def put(self, pool: str) -> Bucket:
        """The bucket of one pool's PUTs."""
        found = self._puts.get(pool)
        if found is None:
            if len(self._puts) >= MANY_POOLS:
                self._puts = {name: bucket for name, bucket in self._puts.items() if not bucket.is_full}
            found = self._puts[pool] = Bucket(PUT_POOL)
            found.run_at(self._speed)
        return found

    def run_at(self, speed: float) -> None:
        """The clock of the cloud runs that many times as fast as ours: a simulator's does, and its limits with it."""
        if speed == self._speed:
            return
        self._speed = speed
        for bucket in (self.operations, self.pools, self.compute, self.overall, *self._puts.values()):
            bucket.run_at(speed)
