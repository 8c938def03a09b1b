"""JSON values: times, amounts."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from kaito.runtime.meta import format_time

Json: TypeAlias = dict[str, object]
"""A JSON object."""


def time_text(time: datetime | None) -> str | None:
    """Returns a time as RFC 3339 in UTC."""
    return format_time(time.astimezone(UTC)) if time is not None else None


def number(amount: Decimal | str | None) -> float | None:
    """Returns an amount as a number; None if it is unknown or is not a finite number."""
    if amount is None:
        return None
    try:
        found = Decimal(amount)
    except InvalidOperation:
        return None
    return round(float(found), 6) if found.is_finite() else None


def to_json(value: object) -> str:
    """Formats a value without spaces."""
    return json.dumps(value, separators=(",", ":"))
