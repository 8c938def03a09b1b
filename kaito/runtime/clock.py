"""Time, injected: the monotonic clock is the running loop's, wall time comes from a `Clock`.

Waiting is always `asyncio.sleep` or `asyncio.timeout`: under the virtual-time loop of `kaito.runtime.testing` they
cost nothing, so nothing in the framework needs a second way to wait.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where wall time comes from."""

    def now(self) -> datetime:
        """The current moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current moment, in UTC."""
        return datetime.now(UTC)


class LoopClock:
    """Wall time derived from the running loop: `start` plus the loop's time. Follows virtual time in tests."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start

    def now(self) -> datetime:
        """`start` plus the seconds of the running loop."""
        return self._start + timedelta(seconds=asyncio.get_running_loop().time())


def monotonic() -> float:
    """Seconds of the running loop's clock: monotonic in production, simulated in tests."""
    return asyncio.get_running_loop().time()
