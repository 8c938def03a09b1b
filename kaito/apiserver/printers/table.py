"""`Table` responses: the columns of `kubectl get`.

Custom resources bring their columns as JSON paths (`additionalPrinterColumns`); built-in types have functions in
`printers`; everything else shows NAME and AGE.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib.resources import files

from kaito.apiserver.printers.builtin import PRINTERS
from kaito.apiserver.printers.jsonpath import find_all
from kaito.apiserver.registry.resources import Column, Resource
from kaito.apiserver.schema.durations import age
from kaito.apiserver.wire import Json, Object, decode, encode

_API_DOCS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
NAME = Column(
    "Name",
    "string",
    ".metadata.name",
    "name",
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a "
    "client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
)
AGE = Column(
    "Age",
    "date",
    ".metadata.creationTimestamp",
    "",
    "CreationTimestamp is a timestamp representing the server time when this object was "
    "created. It is not guaranteed to "
    "be set in happens-before order across separate operations. Clients may not set this value. It is represented in "
    "RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    f"{_API_DOCS}#metadata",
)


def _definition(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


@cache
def _builtin_columns() -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = decode((files("kaito.apiserver") / "data" / "builtin-columns.json").read_bytes())
    return found


def table_columns(resource: Resource) -> list[Object]:
    """Returns the `columnDefinitions` of a type."""
    if not resource.custom and resource.storage in PRINTERS:
        return _builtin_columns()[resource.storage]
    return [_definition(NAME), *(_definition(column) for column in resource.columns or (AGE,))]


def table_row(resource: Resource, data: Object, now: datetime) -> list[Json]:
    """Returns the cells of one object."""
    cells = None if resource.custom else PRINTERS.get(resource.storage)
    if cells is not None:
        return cells(data, now)
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
