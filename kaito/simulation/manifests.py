"""Typed access to fields of the API server's JSON objects; missing fields are empty."""

from collections.abc import Mapping
from typing import Any, cast

Object = dict[str, Any]


def section(obj: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Returns an object below a path of fields."""
    found: Any = obj
    for name in path:
        found = found.get(name) or {}
    return cast("Mapping[str, Any]", found)


def entries(obj: Mapping[str, Any], *path: str) -> list[Mapping[str, Any]]:
    """Returns the objects of a list below a path of fields."""
    *sections, last = path
    return list(section(obj, *sections).get(last) or [])


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns the labels of an object."""
    return section(obj, "metadata", "labels")


def is_terminating(obj: Mapping[str, Any]) -> bool:
    """Whether an object has a deletion timestamp."""
    return "deletionTimestamp" in obj["metadata"]


def has_condition(obj: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition of the object is True."""
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Returns the condition of a type."""
    return next((each for each in entries(obj, "status", "conditions") if each["type"] == kind), None)


def name_of(obj: Mapping[str, Any]) -> str:
    """Returns kind, namespace and name, for messages."""
    metadata = obj["metadata"]
    namespace = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{obj.get('kind', '')} {namespace}{metadata['name']}"
