"""`ProcessClock`: the wall clock of a simulated process, which may differ from the real time.

Monotonic time does not jump, as in Linux: only what reads the wall clock is affected.
"""

from datetime import datetime, timedelta
from typing import final

from kaito.runtime.clock import Clock


@final
class ProcessClock:
    """Wall clock of the machine of one process.

    Args:
        right: the right time, which the API server has.
    """

    def __init__(self, right: Clock) -> None:
        self.offset_seconds: float = 0.0
        """How much the clock is ahead of the right time; negative if it is behind."""
        self._right = right

    def now(self) -> datetime:
        """The time that the process reads."""
        return self._right.now() + timedelta(seconds=self.offset_seconds)
