"""Functions for cells of `kubectl get`: names, ages, numbers, containers, selectors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from kaito.apiserver.schema.durations import age
from kaito.apiserver.wire import Json, Object, lookup, part

Cells: TypeAlias = Callable[[Object, datetime], list[Json]]
"""Fills the row of an object, the columns of `-o wide` included."""


def name_of(data: Object) -> str:
    """Returns an object's name."""
    return str(data["metadata"]["name"])


def age_of(data: Object, now: datetime) -> str:
    """Returns an object's age."""
    return age(data["metadata"].get("creationTimestamp"), now)


def number_at(data: Object, *path: str) -> int:
    """Returns the number at a path, 0 when missing."""
    return int(lookup(data, path) or 0)


def text_at(data: Object, *path: str, default: str = "") -> str:
    """Returns the text at a path, or a default when missing or empty."""
    value = lookup(data, path)
    return default if value is None or value == "" else str(value)


def container_cells(data: Object, *path: str) -> tuple[str, str]:
    """Returns the names and images of the containers of the pod spec at a path."""
    items: list[Object] = lookup(data, (*path, "containers")) or []
    return ",".join(str(item.get("name")) for item in items), ",".join(str(item.get("image", "")) for item in items)


def format_labels(labels: Json) -> str:
    """Returns labels as `a=b,c=d`, `<none>` for none."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) if labels else "<none>"


def format_selector(selector: Json) -> str:
    """Returns a label selector in its textual form."""
    if not selector:
        return "<none>"
    parts = [f"{key}={value}" for key, value in part(selector, "matchLabels").items()]
    for item in selector.get("matchExpressions") or ():
        values = ",".join(item.get("values") or ())
        forms = {
            "In": f"{item['key']} in ({values})",
            "NotIn": f"{item['key']} notin ({values})",
            "Exists": str(item["key"]),
            "DoesNotExist": f"!{item['key']}",
        }
        parts.append(forms.get(str(item.get("operator")), ""))
    return ",".join(sorted(parts)) or "<none>"


def condition_states(data: Object) -> dict[str, str]:
    """Returns the status of each condition by type."""
    listed: list[Object] = lookup(data, ("status", "conditions")) or []
    return {str(item.get("type")): str(item.get("status")) for item in listed}
