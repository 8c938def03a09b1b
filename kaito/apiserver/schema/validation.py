"""Validation of values against structural schemas, with the messages of the real server.

`validate` returns `FieldError`s with the messages of kube-openapi's validator as `apiextensions-apiserver` translates
them; CEL rules are in `cel`. Called for every write of a custom resource, after defaulting and pruning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from kaito.apiserver.errors import (
    FieldError,
    duplicate,
    invalid_value,
    quote,
    render_value,
    required,
    too_many,
    type_invalid,
)
from kaito.apiserver.schema.formats import matches_format
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Json, Object, encode, is_list, is_object

_MISSING = object()


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """Returns a compiled pattern (RE2 and Python agree on what CRDs use)."""
    return re.compile(pattern)


def type_name(value: Json) -> str:
    """Returns the JSON schema type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if is_list(value) else "object"


def validate(value: Json, schema: Schema, path: str = "", old: Json = _MISSING) -> list[FieldError]:
    """Validates a value.

    With `old` given, a subtree that equals the old one is not checked again (validation ratcheting, on by default in
    the real server since 1.33).
    """
    if old is not _MISSING and path and value == old:
        return []
    errors = _type_errors(value, schema, path)
    if errors:
        return errors
    errors = _enum_errors(value, schema, path) + _combined_errors(value, schema, path)
    if is_object(value):
        errors += _object_errors(value, schema, path, old)
    elif is_list(value):
        errors += _list_errors(value, schema, path, old)
    elif isinstance(value, str):
        errors += _string_errors(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        errors += _number_errors(value, schema, path)
    return errors


def _type_errors(value: Json, schema: Schema, path: str) -> list[FieldError]:
    actual = type_name(value)
    wanted = ["integer", "string"] if schema.int_or_string else ([schema.type] if schema.type else [])
    if not wanted or (value is None and schema.nullable):
        return []
    if actual in wanted or (actual == "integer" and "number" in wanted):
        return []
    if isinstance(value, float) and value.is_integer() and "integer" in wanted:
        return []
    message = f"{path} in body must be of type {','.join(wanted)}: {quote(actual)}"
    return [type_invalid(path or "<nil>", actual, message)]


def _enum_errors(value: Json, schema: Schema, path: str) -> list[FieldError]:
    allowed: list[Json] | None = schema.raw.get("enum")
    if not allowed or any(value == item and type_name(value) == type_name(item) for item in allowed):
        return []
    if value is None and schema.nullable:
        return []
    names = [item if isinstance(item, str) else encode(item).decode() for item in allowed]
    detail = "supported values: " + ", ".join(quote(name) for name in names)
    return [FieldError("FieldValueNotSupported", path, value, detail)]


def _combined_errors(value: Json, schema: Schema, path: str) -> list[FieldError]:
    raw = schema.raw
    errors: list[FieldError] = []
    for part in raw.get("allOf") or ():
        errors += validate(value, Schema(part), path)
    options: list[Object] = raw.get("anyOf") or []
    if options and not schema.int_or_string and all(validate(value, Schema(part), path) for part in options):
        errors.append(invalid_value("<nil>", "", f"{quote(path)} must validate at least one schema (anyOf)"))
        errors += validate(value, Schema(options[0]), path)
    choices: list[Object] = raw.get("oneOf") or []
    if choices:
        valid = sum(not validate(value, Schema(part), path) for part in choices)
        if valid != 1:
            found = "Found none valid" if valid == 0 else f"Found {valid} valid alternatives"
            text = f"{quote(path)} must validate one and only one schema (oneOf). {found}"
            errors.append(invalid_value("<nil>", "", text))
            if valid == 0:
                errors += validate(value, Schema(choices[0]), path)
    negated: Object | None = raw.get("not")
    if negated is not None and not validate(value, Schema(negated), path):
        errors.append(invalid_value("<nil>", "", f"{quote(path)} must not validate the schema (not)"))
    return errors


def _object_errors(value: Object, schema: Schema, path: str, old: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    prefix = f"{path}." if path else ""
    limit = schema.raw.get("maxProperties")
    if limit is not None and len(value) > limit:
        errors.append(too_many(path, len(value), limit))
    least = schema.raw.get("minProperties")
    if least is not None and len(value) < least:
        errors.append(invalid_value(path, value, f"{path} in body should have at least {least} properties"))
    needed: list[str] = [*(schema.raw.get("required") or ()), *(("apiVersion", "kind") if schema.embedded else ())]
    errors += [required(prefix + name) for name in needed if name not in value]
    for name, item in value.items():
        child = schema.child(name)
        if child is None or (not path and name == "metadata"):
            continue
        previous = old.get(name, _MISSING) if is_object(old) else _MISSING
        errors += validate(item, child, prefix + name, previous)
    return errors


def _list_errors(value: list[Json], schema: Schema, path: str, old: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    limit = schema.raw.get("maxItems")
    if limit is not None and len(value) > limit:
        errors.append(too_many(path, len(value), limit))
    least = schema.raw.get("minItems")
    if least is not None and len(value) < least:
        errors.append(invalid_value(path, len(value), f"{path} in body should have at least {least} items"))
    if schema.items is not None:
        matching = _correlator(schema, old)
        for index, item in enumerate(value):
            errors += validate(item, schema.items, f"{path}[{index}]", matching(item))
    return errors + list_key_errors(value, schema, path)


def _correlator(schema: Schema, old: Json) -> Callable[[Json], Json]:
    if schema.list_type != "map" or not is_list(old):
        return lambda _item: _MISSING
    olds: list[Json] = old
    by_key = {item_key(item, schema): item for item in olds}
    return lambda item: by_key.get(item_key(item, schema), _MISSING)


def item_key(item: Json, schema: Schema) -> str:
    """Returns the identity of an item of a list of type map: its keys' values, as compact JSON."""
    if not is_object(item):
        return encode(item).decode()
    keys: Object = {}
    for key in schema.list_keys:
        child = schema.items.child(key) if schema.items is not None else None
        default = child.default if child is not None and child.has_default else None
        keys[key] = item.get(key, default)
    return encode(keys).decode()


def list_key_errors(value: list[Json], schema: Schema, path: str) -> list[FieldError]:
    """Returns the duplicates of a list of type set or map."""
    if schema.list_type not in {"set", "map"}:
        return []
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, item in enumerate(value):
        by_key = schema.list_type == "map" and is_object(item)
        identity = item_key(item, schema) if by_key else encode(item).decode()
        if identity in seen:
            shown: Json = {key: item.get(key) for key in schema.list_keys} if by_key else item
            errors.append(duplicate(f"{path}[{index}]", shown))
        seen.add(identity)
    return errors


def _string_errors(value: str, schema: Schema, path: str) -> list[FieldError]:
    raw = schema.raw
    errors: list[FieldError] = []
    limit = raw.get("maxLength")
    if limit is not None and len(value) > limit:
        errors.append(FieldError("FieldValueTooLong", path, None, f"may not be more than {limit} bytes"))
    least = raw.get("minLength")
    if least is not None and len(value) < least:
        errors.append(invalid_value(path, value, f"{path} in body should be at least {least} chars long"))
    pattern = raw.get("pattern")
    if pattern and not compiled(pattern).search(value):
        errors.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    form = raw.get("format")
    if form and not schema.int_or_string and not matches_format(value, form):
        errors.append(type_invalid(path, value, f"{path} in body must be of type {form}: {quote(value)}"))
    return errors


_INT_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def _number_errors(value: float, schema: Schema, path: str) -> list[FieldError]:
    raw = schema.raw
    errors: list[FieldError] = []
    low, high = _INT_RANGES.get(str(raw.get("format")), (None, None))
    if low is not None and high is not None and not low <= value <= high:
        text = f"Checked value must be of type integer with format {raw['format']} in {path}"
        errors.append(invalid_value(path, value, text))
    minimum = raw.get("minimum")
    if minimum is not None and (value <= minimum if raw.get("exclusiveMinimum") else value < minimum):
        word = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        errors.append(invalid_value(path, value, f"{path} in body should be {word} {render_value(minimum)}"))
    maximum = raw.get("maximum")
    if maximum is not None and (value >= maximum if raw.get("exclusiveMaximum") else value > maximum):
        word = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        errors.append(invalid_value(path, value, f"{path} in body should be {word} {render_value(maximum)}"))
    factor = raw.get("multipleOf")
    if factor and value % factor:
        errors.append(invalid_value(path, value, f"{path} in body should be a multiple of {render_value(factor)}"))
    return errors
