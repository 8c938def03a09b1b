"""The request limits of AKS: token buckets of its own, below those of the resource manager.

Documented (Azure/azure-aks-docs, quotas-skus-regions): GET of an operation's status 200 at once and then 2 a second
for the subscription; PUT of an agent pool 20 at once and then 1 a minute for each pool; every other request 60 at once
and then 1 a second for the subscription and region. A request beyond its bucket is answered with 429, code `Throttled`,
and a `Retry-After`. Buckets refill on the simulated clock: at 60 times the speed, 60 times as fast.
"""

import asyncio
import math
import re
from dataclasses import dataclass
from typing import final

from kaito.cloud.azure.simulator.wire import ArmError

_OPERATION = re.compile(r"/microsoft\.containerservice/locations/[^/]+/operation(s|results|status)/", re.IGNORECASE)
_POOL = re.compile(r"/agentpools/(?P<pool>[^/]+)/?$", re.IGNORECASE)
_CONTAINER_SERVICE = re.compile(r"/providers/microsoft\.containerservice/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limit:
    """One documented bucket."""

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
    """The buckets of one subscription."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._buckets: dict[str, _Bucket] = {}

    def check(self, method: str, path: str) -> None:
        """Take a token for a request.

        Raises:
            ArmError: 429, the bucket is empty.
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

    def forget(self) -> None:
        """Every bucket is full again."""
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
