"""Parses the bounds of a rolling update and durations."""

import math
import re
from datetime import timedelta
from typing import Final

_PERCENT: Final = re.compile(r"([0-9]{1,3})%")
_DURATION: Final = re.compile(r"(?:(\d{1,6}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,6}(?:\.\d+)?)s)?")


def bound(value: int | str, total: int) -> int:
    """Returns the number of a bound, a percentage of `total` rounded up.

    Raises:
        ValueError: the value is neither a number of 0 or more nor a percentage.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative: use a number of 0 or more, or a percentage such as 25%")
        return value
    found = _PERCENT.fullmatch(value.strip())
    if found is None or int(found[1]) > 100:
        raise ValueError(f"{value[:40]!r} is not a bound: use a number of 0 or more, or a percentage such as 25%")
    return math.ceil(total * int(found[1]) / 100)


def parse_duration(text: str) -> timedelta:
    """Parses a duration of hours, minutes and seconds, such as `4h`, `1h30m` or `90m`.

    Raises:
        ValueError: the text is not such a duration, or not longer than zero.
    """
    found = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found is not None else (0.0, 0.0, 0.0)
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if length <= timedelta(0):
        raise ValueError(
            f"{text[:40]!r} is not a duration longer than zero: use hours and minutes, such as 4h or 1h30m"
        )
    return length
