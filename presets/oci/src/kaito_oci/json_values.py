"""Narrows the types of parsed JSON for the type checkers, which cannot infer the key type from `isinstance`."""

from typing import Any, TypeGuard


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Returns whether `value` is a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Returns whether `value` is a JSON array."""
    return isinstance(value, list)
