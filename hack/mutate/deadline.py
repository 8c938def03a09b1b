"""Ends the process of a mutant when a test takes too long, on a machine that is busy too."""

import os
import signal
import time
from pathlib import Path

_SCHEDSTAT = Path("/proc/self/schedstat")
"""Nanoseconds on a processor, nanoseconds in the queue for one, and number of time slices, of the main thread."""


def queued_seconds() -> float:
    """Returns how long this process has waited for a processor since it started; 0 where Linux does not report it."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Deadline:
    """Limits a test to an amount of processor time, and to a time on the clock without that in the queue for a
    processor.

    The signals end the process: SIGPROF without a chance to catch it, SIGALRM after a look at the queue. Without the
    second limit, a test that waits for something that never happens would not end.
    """

    def __init__(self) -> None:
        self._ends_at = 0.0

    def start(self, processor_seconds: float, clock_seconds: float) -> None:
        """Starts the limits of the next test."""
        self._ends_at = time.monotonic() - queued_seconds() + clock_seconds
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, processor_seconds)
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, clock_seconds)

    def left_seconds(self) -> float:
        """Returns the time on the clock that is left, without that in the queue."""
        return self._ends_at - (time.monotonic() - queued_seconds())

    def _ring(self, *_: object) -> None:
        left = self.left_seconds()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.1))
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGALRM)
