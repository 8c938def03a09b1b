"""`Table` responses: the columns of `kubectl get`.

Custom resources bring their columns as JSON paths (`additionalPrinterColumns`); built-in types have functions in
`printers`; everything else shows NAME and AGE.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kaito.apiserver.jsonpath import find_all
from kaito.apiserver.kinds import Column, Resource
from kaito.apiserver.wire import Json, Object, encode

NAME = Column("Name", "string", ".metadata.name", "name", "Name must be unique within a namespace.")
AGE_TEXT = Column("Age", "string", "")
"""The age column of built-in types, whose cells are computed."""
AGE = Column("Age", "date", ".metadata.creationTimestamp", "", "Creation time of the object.")


def _definition(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def table_columns(resource: Resource) -> list[Object]:
    """Return the `columnDefinitions` of a type."""
    from kaito.apiserver.printers import PRINTERS

    printer = PRINTERS.get(resource.storage)
    if printer is not None:
        return [_definition(column) for column in printer.columns]
    return [_definition(NAME), *(_definition(column) for column in resource.columns or (AGE,))]


def table_row(resource: Resource, data: Object, now: datetime) -> list[Json]:
    """Return the cells of one object."""
    from kaito.apiserver.printers import PRINTERS

    printer = PRINTERS.get(resource.storage)
    if printer is not None:
        return printer.cells(data, now)
    if not resource.columns and not resource.custom:
        return [data["metadata"]["name"], age(data["metadata"].get("creationTimestamp"), now)]
    return [data["metadata"]["name"], *(_cell(column, data, now) for column in resource.columns or (AGE,))]


def _cell(column: Column, data: Object, now: datetime) -> Json:
    found = find_all(data, column.path)
    if not found or found[0] is None:
        return None
    if column.type == "date":
        return age(found[0], now)
    first = found[0]
    if column.type == "string":
        if len(found) > 1:
            return ",".join(_text(item) for item in found)
        return _text(first)
    if column.type == "integer" and isinstance(first, float):
        return int(first)
    return first


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    return encode(value).decode()


def parse_time(text: Json) -> datetime | None:
    """Return a `metav1.Time` or `MicroTime`, or None when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def age(text: Json, now: datetime) -> str:
    """Return the age of a time stamp as kubectl shows it, `<unknown>` without one."""
    moment = parse_time(text)
    return "<unknown>" if moment is None else human_duration((now - moment).total_seconds())


def human_duration(total: float) -> str:
    """Return a duration in at most two units (`apimachinery/pkg/util/duration.HumanDuration`)."""
    seconds = int(total)
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return _days(hours)


def _days(hours: int) -> str:
    days, years = hours // 24, hours // 24 // 365
    if hours < 24 * 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"
