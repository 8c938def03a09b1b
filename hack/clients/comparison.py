"""Compares responses of two servers.

Compared are the status, the names and values of the fields, log probabilities within `TOLERANCE`, and of streams what a
client has at the end: text, tokens, log probabilities, finish reason and usage of each choice. The boundaries of chunks
and the words of errors may differ.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

TOLERANCE: Final = 1e-3
VOLATILE: Final = frozenset(
    {"id", "created", "owned_by", "permission", "root", "parent", "request_id", "system_fingerprint"}
)
"""Fields that describe the server, the time or the request."""

Json = dict[str, Any]


def is_object(value: object) -> TypeGuard[Json]:
    """Returns whether a value of JSON is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Returns whether a value of JSON is a list."""
    return isinstance(value, list)


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered, reduced to what a client has at the end."""

    status: int
    content: Any


def joined(text: str) -> Json:
    """Joins the events of a stream to what a client has at the end."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    result: Json = {"done": events[-1:] == ["[DONE]"], "choices": {}, "usages": 0}
    for event in events:
        if event == "[DONE]":
            continue
        document: Json = json.loads(event)
        if usage := document.get("usage"):
            result["usage"] = usage
            result["usages"] += 1
        result |= {name: value for name, value in document.items() if name not in ("choices", "usage")}
        for choice in document.get("choices", []):
            _join(result["choices"].setdefault(str(choice["index"]), {}), choice)
    # A chunk with usage belongs to each chunk of text, whose number is not determined.
    result["usages"] = min(result["usages"], 2)
    return result


def _join(whole: Json, part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        before = whole.get(name)
        if value is None or name in ("index", "type", "role"):
            if before is None:
                whole[name] = value
        elif is_object(value):
            inner: Json = before or {}
            whole[name] = inner
            _join(inner, value)
        elif name == "tool_calls":
            calls = whole.setdefault(name, {})
            for call in value:
                _join(calls.setdefault(str(call.get("index")), {}), call)
        elif (
            (isinstance(value, str) or is_list(value))
            and before is not None
            and name not in ("finish_reason", "stop_reason", "id")
        ):
            whole[name] = before + value
        else:
            whole[name] = value


def differences(ours: object, theirs: object, path: str = "") -> Iterator[str]:
    """Yields the fields whose values differ; a field that is absent equals null and an empty value."""
    if is_object(ours) and is_object(theirs):
        for name in sorted({*ours, *theirs} - VOLATILE):
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}")
    elif is_list(ours) and is_list(theirs) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif isinstance(ours, float | int) and isinstance(theirs, float | int):
        if not math.isclose(ours, theirs, abs_tol=TOLERANCE, rel_tol=0):
            yield f"{path}: {ours} instead of {theirs}"
    elif ours != theirs and not (_is_empty(ours) and _is_empty(theirs)):
        yield f"{path}: {_short(ours)} instead of {_short(theirs)}"


def _is_empty(value: object) -> bool:
    return value is None or value is False or value == "" or value == [] or value == {}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def compare(ours: Response, theirs: Response) -> Sequence[str]:
    """Returns the differences of two responses."""
    if ours.status != theirs.status:
        return [f"status {ours.status} instead of {theirs.status}"]
    return list(differences(ours.content, theirs.content))
