"""Sets of field paths, the unit of ownership in server-side apply.

A path is a tuple of elements in the notation of `managedFields` (FieldsV1): `f:name` for a field, `k:{...}` for a list
item by its keys, `v:...` for an item of a set. Sets of tuples make the set algebra Python's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kaito.apiserver.wire import Json, Object, decode, encode

Path: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[Path]
EMPTY: FieldSet = frozenset()


def field(name: str) -> str:
    """Returns the element of a field."""
    return f"f:{name}"


def by_key(keys: Object) -> str:
    """Returns the element of a list item, by the values of its keys."""
    return "k:" + encode({name: keys[name] for name in sorted(keys)}).decode()


def by_value(value: Json) -> str:
    """Returns the element of an item of a set."""
    return "v:" + encode(value).decode()


def to_fields(paths: Iterable[Path]) -> Object:
    """Returns the FieldsV1 form of a set: nested objects, "." where an inner node is itself a member."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _tidy(tree)


def _tidy(node: Object) -> Object:
    tidy: Object = {}
    for element in sorted(node):
        child: Object = node[element]
        tidy[element] = {} if element == "." or set(child) == {"."} else _tidy(child)
    return tidy


def from_fields(tree: Object, prefix: Path = ()) -> FieldSet:
    """Returns the set of a FieldsV1 object."""
    found: set[Path] = set()
    for element, child in tree.items():
        if element == ".":
            found.add(prefix)
            continue
        path = (*prefix, element)
        if child:
            found |= from_fields(child, path)
        else:
            found.add(path)
    return frozenset(found)


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Returns paths as the real server lists them: on each level the members first, then what lies below."""
    found = list(paths)
    heads = sorted({path[0] for path in found if path})
    ordered = [(head,) for head in heads if (head,) in found]
    result: list[Path] = list(ordered)
    for head in heads:
        below = [path[1:] for path in found if len(path) > 1 and path[0] == head]
        result += [(head, *rest) for rest in in_order(below)]
    return result


def show(path: Path) -> str:
    """Returns a path as conflicts print it: `.spec.containers[name="x"].image`."""
    return "".join(_show_element(element) for element in path)


def _show_element(element: str) -> str:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        keys: Object = decode(rest.encode())
        return "[" + ",".join(f"{name}={encode(value).decode()}" for name, value in keys.items()) + "]"
    if kind == "v":
        return f"[={rest}]"
    return f"[{rest}]"


def under(paths: Iterable[Path], element: str) -> FieldSet:
    """Returns the subset below an element, relative to it."""
    return frozenset(path[1:] for path in paths if len(path) > 1 and path[0] == element)
