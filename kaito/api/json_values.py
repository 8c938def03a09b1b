"""Reads JSON that no schema has validated, such as a user's pod template."""

from collections.abc import Iterable
from typing import Any, cast


def json_object(value: object) -> dict[str, Any]:
    """Returns the value if it is an object, else an empty object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def json_list(value: object) -> list[Any]:
    """Returns the value if it is a list, else an empty list."""
    return [*cast("Iterable[Any]", value)] if isinstance(value, list) else []


def without_nulls(value: Any) -> Any:
    """Returns the value without null members, which are equal to absent members in the Kubernetes API."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: without_nulls(member) for name, member in members.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in cast("Iterable[Any]", value)]
    return value
