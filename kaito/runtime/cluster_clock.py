"""`ClusterClock`: wall time that follows the clock of the API server.

Controllers compare the current time with times that others have recorded: `creationTimestamp` and `deletionTimestamp`
are of the API server. A machine whose clock is a day ahead would find every deadline passed. Each response of an API
server contains its time in `Date`, with a resolution of one second. With the moments at which the request was sent and
the response was received, it bounds the difference between that clock and the steady clock of this process, which
never jumps. `now` is the local wall clock while it is within these bounds, and else the time of the API server. A jump
of the local clock is thus ignored at once, not only after the next response.

API servers of one cluster may differ, and one of them may be wrong. The bounds are therefore those that most of the
last responses share (Marzullo's algorithm, as in NTP). If different bounds have equal shares, those that agree with the
local clock are used.
"""

import asyncio
import calendar
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate
from typing import Final, final

from kaito.runtime.clock import Clock, SystemClock, suspend_proof_clock
from kaito.runtime.logging import get_logger

TOLERANCE_SECONDS: Final = 5.0
"""Difference up to which the local clock is used. NTP keeps clocks within a fraction of a second."""

SAMPLES: Final = 9
"""Number of responses that are compared."""

SAMPLE_INTERVAL_SECONDS: Final = 1.0
"""Minimum time between two of them, so that they are not all of one connection."""

MAX_ROUND_TRIP_SECONDS: Final = 10.0
"""Responses that took longer bound the difference too weakly."""

MARGIN_SECONDS: Final = 0.5
"""Proxies such as Envoy use a value of `Date` for up to half a second."""

_log = get_logger(__name__)


@final
class ClusterClock:
    """Wall clock of this process, corrected by that of the API server.

    Without a response, or with responses without `Date`, it is the local clock.

    Args:
        local: the local wall clock.
    """

    def __init__(self, local: Clock | None = None) -> None:
        self._local = local or SystemClock()
        self._steady: Callable[[], float] = suspend_proof_clock
        """A clock in seconds that never jumps; set with the first response."""
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._bounds: tuple[float, float] | None = None
        """Lowest and highest time of the API server at second 0 of the steady clock."""
        self._next_sample = 0.0
        self._is_reported = False

    def now(self) -> datetime:
        """The current time, in UTC."""
        now = self._local.now()
        skew = self._skew(now)
        return now if abs(skew) <= TOLERANCE_SECONDS else now - timedelta(seconds=skew)

    @property
    def skew_seconds(self) -> float:
        """How much the local clock is ahead of the API server's; negative if it is behind.

        0 if the difference is below the resolution, and without a measurement.
        """
        return self._skew(self._local.now())

    def observe(self, date: str, seconds: float) -> None:
        """Takes the time of a response into account.

        Args:
            date: header `Date`; empty if the response has none.
            seconds: time between the sending of the request and the receipt of the response, which is now.
        """
        if not self._samples:
            self._steady = _steady_clock()
        received = self._steady()
        if received < self._next_sample or not date or seconds > MAX_ROUND_TRIP_SECONDS:
            return
        at = _parse(date)
        if at is None:
            return
        self._next_sample = received + SAMPLE_INTERVAL_SECONDS
        sample = (at - MARGIN_SECONDS - received, at + 1.0 + MARGIN_SECONDS - (received - seconds))
        self._samples.append(sample)
        self._bounds = self._agreed_bounds()
        self._report(sample)

    def _agreed_bounds(self) -> tuple[float, float]:
        """The bounds that most samples share."""
        here = self._local.now().timestamp() - self._steady()
        best, best_rank = self._samples[-1], (0, False, 0)
        for position, (low, _) in enumerate(self._samples):
            sharing = [each for each in self._samples if each[0] <= low <= each[1]]
            shared = low, min(each[1] for each in sharing)
            rank = len(sharing), abs(_outside(here, shared)) <= TOLERANCE_SECONDS, position
            if rank > best_rank:
                best, best_rank = shared, rank
        return best

    def _skew(self, now: datetime) -> float:
        return 0.0 if self._bounds is None else _outside(now.timestamp() - self._steady(), self._bounds)

    def _report(self, sample: tuple[float, float]) -> None:
        """Logs when the local clock becomes wrong or right, if the last response confirms it."""
        here = self._local.now().timestamp() - self._steady()
        last, skew = _outside(here, sample), self.skew_seconds
        is_wrong = abs(skew) > TOLERANCE_SECONDS
        if is_wrong == self._is_reported or (abs(last) > TOLERANCE_SECONDS) != is_wrong:
            return
        self._is_reported = is_wrong
        if is_wrong:
            _log.warning(
                "the clock of this machine differs from the API server's, whose time is used",
                ahead_seconds=round(skew),
                remedy="synchronize the clocks of the nodes, for example with chrony",
            )
        else:
            _log.info("the clock of this machine agrees with the API server's")


def _outside(value: float, bounds: tuple[float, float]) -> float:
    """Returns the difference between a value and the center of the bounds; 0 if it is within the bounds."""
    low, high = bounds
    return 0.0 if low <= value <= high else value - (low + high) / 2


def _parse(date: str) -> float | None:
    """Returns the seconds since 1970 of an HTTP date; None if it is malformed."""
    try:
        parsed = parsedate(date)
        return None if parsed is None else float(calendar.timegm(parsed))
    except (ValueError, OverflowError):
        return None


def _steady_clock() -> Callable[[], float]:
    """Returns a clock that never jumps and counts suspended time where the system does; the loop's if simulated."""
    loop = asyncio.get_running_loop()
    return loop.time if getattr(loop, "simulates_time", False) else suspend_proof_clock
