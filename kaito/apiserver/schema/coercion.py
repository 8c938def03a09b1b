"""Coerces built-in objects as decoding into Go structs does: wrong types rejected, quantities canonical, nulls and
empty values removed.

A real API server decodes these types into Go structs; this module does to plain JSON what that decoding does. Called by
`bodies.decode.prune_and_default` for every write of a built-in type, after pruning.
"""

from __future__ import annotations

import base64
import binascii

from kaito.apiserver.errors import StatusError, bad_request
from kaito.apiserver.schema.durations import parse_time
from kaito.apiserver.schema.quantities import canonical_quantity
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Json, Object, is_list, is_nested, is_object

_JSON_WORDS = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


class Coercer:
    """Coerces one object; holds its name for messages."""

    def __init__(self, kind: str, version: str) -> None:
        self._head = f'{kind} in version "{version}" cannot be handled as a {kind}: '
        self._kind = kind

    def coerce(self, value: Object, schema: Schema) -> None:
        """Coerces an object in place; raises 400 for a value of the wrong type."""
        self._object(value, schema, "", self._kind)

    def _object(self, value: Object, schema: Schema, path: str, owner: str) -> None:
        needed: list[str] = schema.raw.get("required") or []
        for name in list(value):
            if not path and name in {"apiVersion", "kind", "metadata"}:
                continue
            item = value[name]
            if item is None:
                del value[name]
                continue
            child = schema.child(name)
            if child is None or schema.opaque:
                continue
            here = f"{path}.{name}" if path else name
            inner = schema.declares(name)
            coerced = value[name] = self._value(item, child, here if inner else path, owner)
            if is_nested(coerced) and not coerced and name not in needed and not child.declared() and not child.opaque:
                del value[name]

    def _value(self, value: Json, schema: Schema, path: str, owner: str) -> Json:
        if schema.quantity:
            return self._quantity(value, path)
        if schema.opaque and not schema.type:
            return value
        if schema.int_or_string:
            if type(value) not in {int, str}:
                raise self._wrong_type(value, path, "intstr.IntOrString", owner)
            return value
        match schema.type:
            case "array":
                if not is_list(value):
                    raise self._wrong_type(value, path, f"[]{_go_name(schema.items)}", owner)
                return self._list(value, schema.items, path, owner)
            case "object":
                if not is_object(value):
                    raise self._wrong_type(value, path, _go_name(schema), owner)
                self._object(value, schema, path, schema.struct or owner)
                return value
            case _:
                return self._scalar(value, schema, path, owner)

    def _scalar(self, value: Json, schema: Schema, path: str, owner: str) -> Json:
        match schema.type:
            case "string":
                if not isinstance(value, str):
                    raise self._wrong_type(value, path, "string", owner)
                return self._formatted(value, schema.raw.get("format"))
            case "integer":
                if not isinstance(value, int) or isinstance(value, bool):
                    raise self._wrong_type(value, path, str(schema.raw.get("format") or "int64"), owner)
            case "boolean":
                if not isinstance(value, bool):
                    raise self._wrong_type(value, path, "bool", owner)
            case _:
                pass
        return value

    def _list(self, value: list[Json], items: Schema | None, path: str, owner: str) -> list[Json]:
        if items is None:
            return value
        return [self._value(item, items, path, owner) for item in value if item is not None]

    def _quantity(self, value: Json, path: str) -> str:
        try:
            return canonical_quantity(value)
        except (ValueError, TypeError) as error:
            raise bad_request(
                f"{self._head}quantities must match the regular expression "
                f"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' ({path})"
            ) from error

    def _formatted(self, value: str, form: Json) -> str:
        if form == "byte":
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise bad_request(f"{self._head}illegal base64 data at input byte 0") from error
        if form == "date-time" and parse_time(value) is None:
            text = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
            raise bad_request(self._head + text)
        return value

    def _wrong_type(self, value: Json, path: str, wanted: str, owner: str) -> StatusError:
        got = _JSON_WORDS[type(value)]
        where = f"{owner}.{path}"
        return bad_request(f"{self._head}json: cannot unmarshal {got} into Go struct field {where} of type {wanted}")


def _go_name(schema: Schema | None) -> str:
    if schema is None:
        return "interface {}"
    if schema.additional is not None:
        return f"map[string]{_go_name(schema.additional)}"
    names = {"string": "string", "boolean": "bool", "integer": str(schema.raw.get("format") or "int64")}
    if schema.type in names:
        return names[schema.type]
    return f"v1.{schema.struct}"
