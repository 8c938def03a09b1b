"""JSON values as CEL sees them: typed by the schema, with only the fields that the schema declares."""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from typing import TypeAlias

from celpy import celtypes

from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Json, is_list, is_object

CelValue: TypeAlias = Json
"""A value of cel-python; its own union type is too wide to be of help."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Optional:
    """CEL's optional type: a value that may be absent, with chained selection."""

    __slots__ = ("present", "value")

    def __init__(self, value: CelValue, *, present: bool = True) -> None:
        self.value = value
        self.present = present

    @classmethod
    def none(cls) -> Optional:
        """Returns the absent value."""
        return cls(None, present=False)

    def field(self, name: str) -> Optional:
        """Returns the optional field of the value."""
        if self.present and isinstance(self.value, celtypes.MapType):
            key = celtypes.StringType(name)
            if key in self.value:
                return Optional(self.value[key])
        return Optional.none()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Optional) or self.present != other.present:
            return False
        return not self.present or bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((self.present, str(self.value)))

    def __getitem__(self, key: CelValue) -> Optional:
        return self.field(str(key))

    def get(self, key: CelValue, default: CelValue = None) -> Optional:
        """Returns the optional field of the value (cel-python selects members with `get`)."""
        del default
        return self.field(str(key))


def go_duration(text: str) -> timedelta | None:
    """Returns a duration such as `1h30m`, or None when it is not one."""
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("+-")
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        return None
    return timedelta(seconds=sign * sum(float(number) * _UNITS[unit] for number, unit in parts))


def to_cel(value: Json, schema: Schema | None, *, root: bool = False) -> CelValue:
    """Returns a JSON value as CEL value.

    The root and embedded objects show apiVersion, kind and of metadata only name and generateName; other fields are
    shown when the schema declares them.
    """
    if is_object(value):
        shown: dict[CelValue, CelValue] = {}
        for name, item in value.items():
            child = schema.child(name) if schema is not None else None
            if (root or (schema is not None and schema.embedded)) and name in {"apiVersion", "kind", "metadata"}:
                if name == "metadata":
                    item = {key: item[key] for key in ("name", "generateName") if key in item}
                child = None
            elif child is None and (schema is None or not schema.int_or_string):
                continue
            if item is None:
                continue
            shown[celtypes.StringType(name)] = to_cel(item, child) if child is not None else plain(item)
        return celtypes.MapType(shown)
    if is_list(value):
        items: list[Json] = value
        inner = schema.items if schema is not None else None
        return celtypes.ListType([to_cel(item, inner) if inner is not None else plain(item) for item in items])
    if isinstance(value, str) and schema is not None:
        return _formatted(value, str(schema.raw.get("format") or ""))
    if isinstance(value, int) and not isinstance(value, bool) and schema is not None and schema.type == "number":
        return celtypes.DoubleType(value)
    return plain(value)


def _formatted(value: str, form: str) -> CelValue:
    if form == "date-time":
        return celtypes.TimestampType(value)
    if form == "byte":
        return celtypes.BytesType(base64.b64decode(value))
    if form == "duration":
        duration = go_duration(value)
        if duration is not None:
            return celtypes.DurationType(duration)
    return celtypes.StringType(value)


def plain(value: Json) -> CelValue:
    """Returns a JSON value as CEL value without a schema."""
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int):
        # JSON numbers beyond 64 bits are decoded as floating point, as in Go.
        return celtypes.IntType(value) if -(2**63) <= value < 2**63 else celtypes.DoubleType(value)
    if isinstance(value, float):
        return celtypes.DoubleType(value)
    if isinstance(value, str):
        return celtypes.StringType(value)
    if is_list(value):
        items: list[Json] = value
        return celtypes.ListType([plain(item) for item in items])
    if is_object(value):
        return celtypes.MapType({celtypes.StringType(name): plain(item) for name, item in value.items()})
    return None
