"""Parses the bounds of a rolling update."""

import math
import re
from typing import Final

_PERCENT: Final = re.compile(r"([0-9]{1,3})%")


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
