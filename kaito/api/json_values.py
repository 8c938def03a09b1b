"""Careful reading of JSON that no schema has checked, such as a pod template as the user wrote it."""

from collections.abc import Iterable
from typing import Any, cast


def json_object(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def json_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return [*cast("Iterable[Any]", value)] if isinstance(value, list) else []


def without_nulls(value: Any) -> Any:
    """The value without members that are null: in the Kubernetes API a null member is an absent one."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: without_nulls(member) for name, member in members.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in cast("Iterable[Any]", value)]
    return value
