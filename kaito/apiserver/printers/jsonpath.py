"""The JSONPath dialect of printer columns and selectable fields, as far as CRDs use it (client-go `util/jsonpath`).

Fields, quoted fields, indexes, `[*]` and filters `[?(@.a=="b")]`. Paths are compiled once and cached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from kaito.apiserver.wire import Json, is_list, is_object

Step: TypeAlias = Callable[[Json], list[Json]]

_STEP = re.compile(
    r"""\.?\[\?\(@(?P<filter>[^=!<>)]*?)\s*(?:(?P<op>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[^)]*?))?\s*\)\]"""
    r"""|\.?\[(?P<quoted>'[^']*'|"[^"]*")\]|\.?\[(?P<index>-?\d+)\]|\.?\[\*\]|\.\*|\.?(?P<field>(?:\\.|[^.\[\]\\])+)"""
)


def _field(name: str) -> Step:
    def step(value: Json) -> list[Json]:
        return [value[name]] if is_object(value) and name in value else []

    return step


def _index(position: int) -> Step:
    def step(value: Json) -> list[Json]:
        if not is_list(value):
            return []
        items: list[Json] = value
        return [items[position]] if -len(items) <= position < len(items) else []

    return step


def _each(value: Json) -> list[Json]:
    if is_list(value):
        return list(value)
    return list(value.values()) if is_object(value) else []


def _filter(path: str, operator: str | None, literal: str | None) -> Step:
    inner = compile_path(path) if path else ()
    wanted = (literal or "").strip("\"'")

    def keeps(item: Json) -> bool:
        found = _run(inner, item)
        if operator is None:
            return bool(found)
        text = [str(value).lower() if isinstance(value, bool) else str(value) for value in found]
        return (wanted in text) == (operator == "==")

    return lambda value: [item for item in _each(value) if keeps(item)]


@lru_cache(maxsize=1024)
def compile_path(path: str) -> tuple[Step, ...]:
    """Returns the steps of a path such as `.status.conditions[?(@.type=="Ready")].status`."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or match.end() == position:
            return (lambda _value: [],)
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["filter"] is not None:
        return _filter(match["filter"], match["op"], match["value"])
    if match["quoted"] is not None:
        return _field(match["quoted"][1:-1])
    if match["index"] is not None:
        return _index(int(match["index"]))
    if match["field"] is not None and match["field"] != "*":
        return _field(re.sub(r"\\(.)", r"\1", match["field"]))
    return _each


def _run(steps: tuple[Step, ...], value: Json) -> list[Json]:
    found: list[Json] = [value]
    for step in steps:
        found = [result for item in found for result in step(item)]
    return found


def find_all(value: Json, path: str) -> list[Json]:
    """Returns everything that a path selects."""
    return _run(compile_path(path), value)
