"""JSON patches (RFC 6902) between two states of an object: field by field, lists as a whole."""

from collections.abc import Iterator, Mapping
from typing import Any

from kaito.runtime.client.patch import is_object, pointer

Operation = dict[str, Any]


def json_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    """The operations that turn `before` into `after`.

    `add` is used for new and changed fields. `replace` would fail for a field that the request does not contain
    although the model does, because the model has a default for it.
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
