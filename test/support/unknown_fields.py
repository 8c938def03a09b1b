"""Finds the fields of an object that its model does not declare."""

from collections.abc import Iterator
from typing import Any

from kaito.runtime.meta import Model, Resource


def unknown_fields(value: Any, path: str, *, omitted: frozenset[str] = frozenset()) -> Iterator[str]:
    """The paths of fields that no model declares, without those named in `omitted`."""
    match value:
        case Model():
            known = omitted | ({"apiVersion", "kind"} if isinstance(value, Resource) else set[str]())
            yield from (f"{path}.{name}" for name in (value.model_extra or {}).keys() - known)
            for name in value.model_fields_set & type(value).model_fields.keys():
                yield from unknown_fields(getattr(value, name), f"{path}.{name}", omitted=omitted)
        case list():
            for item in value:  # pyright: ignore[reportUnknownVariableType] -- JSON
                yield from unknown_fields(item, f"{path}[]", omitted=omitted)
        case dict():
            for key, item in value.items():  # pyright: ignore[reportUnknownVariableType] -- JSON
                yield from unknown_fields(item, f"{path}.{key}", omitted=omitted)
        case _:
            pass
