"""Evaluates windows of time: a cron expression with five fields, in UTC, and a duration.

`spec.autoUpgrade.maintenanceWindow` of InferenceSets and `spec.autoscaling.schedule` use them.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_DURATION: Final = re.compile(r"(?:(\d{1,6}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,6}(?:\.\d+)?)s)?")
_FIELDS: Final = 5
_EXAMPLE: Final = "0 2 * * 6"


class Window(Protocol):
    """A window as an object declares it."""

    @property
    def schedule(self) -> str:
        """When the window opens."""
        ...

    @property
    def duration(self) -> str:
        """How long it stays open."""
        ...


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


def schedule_problem(schedule: str) -> str:
    """Explains why a text is not a schedule, with the remedy; returns an empty text if it is one."""
    if len(schedule.split()) != _FIELDS:
        return f"{schedule[:80]!r} does not have five fields: use minute hour day month weekday, such as {_EXAMPLE!r}"
    try:
        found = _next(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    except ValueError as error:
        return f"{schedule[:80]!r} is not a cron expression ({error}): use one such as {_EXAMPLE!r}"
    return "" if found is not None else f"{schedule[:80]!r} is never reached: use one such as {_EXAMPLE!r}"


def is_open(window: Window, now: datetime) -> bool:
    """Returns whether the window is open.

    Raises:
        ValueError: the schedule or the duration is not valid.
    """
    opened = _last(window.schedule, now)
    return opened is not None and now < opened + parse_duration(window.duration)


def next_opening(window: Window, now: datetime) -> datetime | None:
    """Returns when the window opens next; None if it never does.

    Raises:
        ValueError: the schedule is not valid.
    """
    return _next(window.schedule, now)


def _next(schedule: str, after: datetime) -> datetime | None:
    return _step(schedule, after.astimezone(UTC), backwards=False)


def _last(schedule: str, until: datetime) -> datetime | None:
    """Returns the last time of the schedule that is not after a moment."""
    minute = until.astimezone(UTC).replace(second=0, microsecond=0)
    return _step(schedule, minute + timedelta(minutes=1), backwards=True)


def _step(schedule: str, start: datetime, *, backwards: bool) -> datetime | None:
    from cronsim import CronSim, CronSimError  # imported here, because few sets have a window

    try:
        return next(CronSim(schedule, start, reverse=backwards), None)
    except CronSimError as error:
        raise ValueError(str(error)) from error
