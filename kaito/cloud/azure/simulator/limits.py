"""Enforces the rate limits of AKS, which are lower than those of the resource manager.

The limits are those of Azure/azure-aks-docs, quotas-skus-regions: GET of an operation's status 200 at once, then 2 per
second and subscription; PUT of an agent pool 20 at once, then 1 per minute and pool; other requests 60 at once, then 1
per second, subscription and region. Above its limit, a request gets 429 `Throttled` with `Retry-After`. The limits
refill on the simulated clock.

The implementation shares no code with the client's limits (`rate_limits`), so that tests compare the two.
"""

import asyncio
import math
import re
from dataclasses import dataclass
from typing import final

from kaito.cloud.azure.simulator.http import ArmError

_OPERATION = re.compile(r"/microsoft\.containerservice/locations/[^/]+/operation(s|results|status)/", re.IGNORECASE)
_POOL = re.compile(r"/agentpools/(?P<pool>[^/]+)/?$", re.IGNORECASE)
_CONTAINER_SERVICE = re.compile(r"/providers/microsoft\.containerservice/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests at once, and per second after that."""

    burst: float
    per_second: float


OPERATIONS = Limit(200, 2)
PUT_POOL = Limit(20, 1 / 60)
OTHERS = Limit(60, 1)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


@final
class RequestLimits:
    """The rate limits of one subscription."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._buckets: dict[str, _Bucket] = {}

    def check(self, method: str, path: str) -> None:
        """Counts a request.

        Raises:
            ArmError: 429, the rate limit is exceeded.
        """
        found = _bucket_of(method, path)
        if found is None:
            return
        name, limit = found
        now = asyncio.get_running_loop().time() * self._speed
        bucket = self._buckets.setdefault(name, _Bucket(limit.burst, now))
        bucket.tokens = min(limit.burst, bucket.tokens + (now - bucket.filled_at) * limit.per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            wait = (1 - bucket.tokens) / limit.per_second / self._speed
            raise ArmError(
                429,
                "Throttled",
                "The request is being throttled as the limit has been reached for the operation type.",
                flat=True,
                headers={"Retry-After": str(max(1, math.ceil(wait)))},
            )
        bucket.tokens -= 1

    def reset(self) -> None:
        """Refills all buckets."""
        self._buckets.clear()


def _bucket_of(method: str, path: str) -> tuple[str, Limit] | None:
    if _CONTAINER_SERVICE.search(path) is None:
        return None
    if method == "GET" and _OPERATION.search(path):
        return "operations", OPERATIONS
    pool = _POOL.search(path)
    if method == "PUT" and pool is not None:
        return f"put {pool['pool'].lower()}", PUT_POOL
    return "others", OTHERS
