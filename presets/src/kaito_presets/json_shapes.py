"""Narrows parsed JSON and YAML for the type checkers, which cannot know what `isinstance(value, dict)` holds.

Used wherever a document from outside is looked into.
"""

from typing import Any, TypeGuard


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is a JSON object (JSON's keys are strings)."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether `value` is a JSON array."""
    return isinstance(value, list)
