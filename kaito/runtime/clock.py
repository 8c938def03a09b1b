"""Time sources: the monotonic clock is the running loop's, wall time comes from a `Clock`.

The framework waits with `asyncio.sleep` and `asyncio.timeout` only. With the virtual-time loop of
`kaito.runtime.testing` they take no real time.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of wall time."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...


class SystemClock:
    """The system clock."""

    def now(self) -> datetime:
        """The current time, in UTC."""
        return datetime.now(UTC)


class LoopClock:
    """Wall time derived from the running loop: `start` plus the loop's time. Follows virtual time in tests."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start

    def now(self) -> datetime:
        """`start` plus the seconds of the running loop."""
        return self._start + timedelta(seconds=asyncio.get_running_loop().time())


def suspend_proof_clock() -> float:
    """Seconds since boot, without jumps. Includes suspended time where the system counts it: a lease expires during
    suspension."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def monotonic() -> float:
    """Seconds of the running loop's clock: monotonic in production, simulated in tests."""
    return asyncio.get_running_loop().time()
