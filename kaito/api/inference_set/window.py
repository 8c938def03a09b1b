"""Evaluates maintenance windows: cron expressions with five fields, in UTC, and a duration."""

from datetime import UTC, datetime, timedelta
from typing import Final

from kaito.api.inference_set.bounds import parse_duration
from kaito.api.inference_set.spec import MaintenanceWindow

_FIELDS: Final = 5
_EXAMPLE: Final = "0 2 * * 6"


def schedule_problem(schedule: str) -> str:
    """Explains why a text is not a schedule, with the remedy; returns an empty text if it is one."""
    if len(schedule.split()) != _FIELDS:
        return f"{schedule[:80]!r} does not have five fields: use minute hour day month weekday, such as {_EXAMPLE!r}"
    try:
        found = _next(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    except ValueError as error:
        return f"{schedule[:80]!r} is not a cron expression ({error}): use one such as {_EXAMPLE!r}"
    return "" if found is not None else f"{schedule[:80]!r} is never reached: use one such as {_EXAMPLE!r}"


def is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Returns whether the window is open.

    Raises:
        ValueError: the schedule or the duration is not valid.
    """
    opened = _last(window.schedule, now)
    return opened is not None and now < opened + parse_duration(window.duration)


def next_opening(window: MaintenanceWindow, now: datetime) -> datetime | None:
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
