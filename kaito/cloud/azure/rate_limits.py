"""Client-side rate limits of ARM requests, as documented by Azure, and the pauses that a 429 imposes.

AKS has lower limits than the resource manager (Azure/azure-aks-docs, quotas-skus-regions):

    GET of an operation's status    200 at once, then 2 per second, per subscription
    PUT of an agent pool            20 at once, then 1 per minute, per agent pool
    other requests                  60 at once, then 1 per second, per subscription and region

Microsoft.Compute has separate limits. Requests wait for their limit in the order of arrival. A 429 pauses the limit of
the rejected request and no other.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from kaito.cloud.errors import Throttled
from kaito.runtime.token_bucket import TokenBucket

MAX_WAIT_SECONDS: Final = 5.0
"""Longest pause that a request waits for. During a longer one it fails, so that it does not occupy a worker."""

MAX_PAUSE_SECONDS: Final = timedelta(minutes=2).total_seconds()
"""Upper limit for a `Retry-After`; the next request shows whether Azure still throttles."""

DEFAULT_PAUSE_SECONDS: Final = 5.0
"""Pause after a 429 without `Retry-After`."""

MAX_POOL_LIMITS: Final = 1000
"""Limits of single agent pools that are kept; above this number, unused ones are dropped."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Requests at once, and per second after that."""

    burst: float
    per_second: float


OPERATIONS: Final = RateLimit(200, 2)
PUT_POOL: Final = RateLimit(20, 1 / 60)
POOLS: Final = RateLimit(60, 1)
COMPUTE: Final = RateLimit(40, 4)
"""Azure does not document it; well below the resource manager's 250 at once and 25 reads per second."""


def _throttled(remaining_seconds: float) -> Throttled:
    return Throttled("Azure throttles requests of this kind (429)", retry_after=remaining_seconds)


def _bucket(limit: RateLimit) -> TokenBucket:
    return TokenBucket(limit.per_second, limit.burst, max_wait=MAX_WAIT_SECONDS, paused_error=_throttled)


def pause(bucket: TokenBucket, retry_after: float | None) -> None:
    """Pauses the requests of a bucket after a 429, for the `Retry-After` within the limits above."""
    wait = DEFAULT_PAUSE_SECONDS if retry_after is None else max(retry_after, 0.0)
    bucket.pause(min(wait, MAX_PAUSE_SECONDS))


@final
class RateLimits:
    """The limits of one subscription, and one for all requests of this process together."""

    def __init__(self, overall: RateLimit) -> None:
        self._speed = 1.0
        self._overall_limit = overall
        self.operations = _bucket(OPERATIONS)
        self.pools = _bucket(POOLS)
        """Requests about agent pools and the cluster, except PUTs of agent pools and reads of operations."""
        self.compute = _bucket(COMPUTE)
        self.overall = _bucket(overall)
        self._puts: dict[str, TokenBucket] = {}

    def put(self, pool: str) -> TokenBucket:
        """The limit for PUTs of one agent pool."""
        bucket = self._puts.get(pool)
        if bucket is None:
            if len(self._puts) >= MAX_POOL_LIMITS:
                self._puts = {name: other for name, other in self._puts.items() if not other.is_full}
            bucket = self._puts[pool] = _bucket(PUT_POOL)
            bucket.set_rate(PUT_POOL.per_second * self._speed)
        return bucket

    def set_clock_speed(self, speed: float) -> None:
        """Refills all limits `speed` times as fast, like the limits of a simulator with such a clock."""
        if speed == self._speed:
            return
        self._speed = speed
        for bucket, limit in (
            (self.operations, OPERATIONS),
            (self.pools, POOLS),
            (self.compute, COMPUTE),
            (self.overall, self._overall_limit),
            *((bucket, PUT_POOL) for bucket in self._puts.values()),
        ):
            bucket.set_rate(limit.per_second * speed)
