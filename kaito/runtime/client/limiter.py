"""A token bucket for requests: the client-side limit of the flags `kube-client-qps` and `kube-client-burst`.

Off unless configured: API servers bound their load themselves (API Priority and Fairness).
"""

import asyncio
from typing import final

from kaito.runtime.clock import monotonic


@final
class RequestLimiter:
    """Lets `burst` requests through at once and `qps` a second afterwards, first come first served."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = max(burst, 1)
        self._tokens = float(self._burst)
        self._filled_at: float | None = None

    async def wait(self) -> float:
        """Take a token, sleeping until one is due; the seconds waited.

        Tokens go negative: every waiter reserves its own moment, so nobody overtakes.
        """
        if self._qps <= 0:
            return 0.0
        now = monotonic()
        if self._filled_at is not None:
            self._tokens = min(float(self._burst), self._tokens + (now - self._filled_at) * self._qps)
        self._filled_at = now
        self._tokens -= 1
        if self._tokens >= 0:
            return 0.0
        delay = -self._tokens / self._qps
        await asyncio.sleep(delay)
        return delay
