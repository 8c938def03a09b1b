"""The JSON patch (RFC 6902) between two states of an object: only what differs, fields one by one, lists whole."""

from collections.abc import Iterator, Mapping
from typing import Any

from kaito.runtime.client.patch import is_object, pointer

Operation = dict[str, Any]


def json_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    """Operations that turn `before` into `after`.

    Fields are added with `add`, which also replaces: a field that is null in the request and absent in the model's view
    is not there for `replace`.
    """
    return list(_operations(before, after, ()))


def _operations(before: Mapping[str, Any], after: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Operation]:
    for name in before:
        if name not in after:
            yield {"op": "remove", "path": pointer(*path, name)}
    for name, new in after.items():
        old = before.get(name)
        if name in before and old == new:
            continue
        if is_object(old) and is_object(new):
            yield from _operations(old, new, (*path, name))
        else:
            yield {"op": "add", "path": pointer(*path, name), "value": new}
