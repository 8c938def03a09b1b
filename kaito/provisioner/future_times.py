"""`FutureTimes`: ages of times that a process with a wrong clock has written.

A time in the future would keep a deadline from passing for as long as the clock was ahead, for example a day.
"""

from datetime import datetime
from typing import Final, final

from kaito.runtime.clock import monotonic

LIMIT: Final = 1000
"""Times to remember; the oldest one is dropped."""


@final
class FutureTimes:
    """Times in the future, and when this process has first seen each of them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, datetime], float] = {}

    def age_seconds(self, key: str, time: datetime, now: datetime) -> float:
        """Seconds since `time`; since this process has first seen it, if it was in the future."""
        age = (now - time).total_seconds()
        seen = self._seen.get((key, time))
        if seen is None and age < 0:
            seen = self._seen[key, time] = monotonic()
            if len(self._seen) > LIMIT:
                self._seen.pop(next(iter(self._seen)))
        return age if seen is None else max(age, monotonic() - seen)
