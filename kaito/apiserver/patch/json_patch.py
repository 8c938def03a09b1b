"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386). Pure functions on JSON values; the input is never mutated."""

from __future__ import annotations

from kaito.apiserver.errors import StatusError, bad_request
from kaito.apiserver.wire import Json, Object, copy_json, is_list, is_object


def merge_patch(target: Json, patch: Json) -> Json:
    """Returns the target with a merge patch applied: null removes, objects merge, the rest replaces."""
    if not is_object(patch):
        return copy_json(patch)
    changes: Object = patch
    base: Object = target if is_object(target) else {}
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Json, operations: Json) -> Json:
    """Returns the target with a JSON patch applied.

    Raises:
        StatusError: 400 for a malformed patch, 422 when an operation cannot be done (a failed `test` included).
    """
    if not is_list(operations):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    steps: list[Object] = operations
    document = copy_json(target)
    # kube-apiserver's library accepts "replace" of a missing key and does not name the operation that failed.
    for step in steps:
        if not is_object(step):
            raise bad_request("json: cannot unmarshal value into Go value of type jsonpatch.Operation")
        try:
            document = _apply(document, step)
        except _PatchError as error:
            text = "the server rejected our request due to an error in our request"
            raise StatusError(422, "Invalid", text, details={}) from error
    return document


class _PatchError(Exception):
    """An operation does not fit the document."""


def _apply(document: Json, step: Object) -> Json:
    kind = step.get("op")
    path = _pointer(str(step.get("path", "")))
    match kind:
        case "test":
            if _tested(document, path) != step.get("value"):
                raise _PatchError(f"testing path {step.get('path')} failed")
            return document
        case "add":
            return _add(document, path, copy_json(step.get("value")))
        case "remove":
            _remove(document, path)
            return document
        case "replace":
            if path and _has(document, path):
                _remove(document, path)
            return _add(document, path, copy_json(step.get("value")))
        case "move":
            source = _pointer(str(step.get("from", "")))
            value = _get(document, source)
            _remove(document, source)
            return _add(document, path, value)
        case "copy":
            return _add(document, path, copy_json(_get(document, _pointer(str(step.get("from", ""))))))
        case _:
            raise _PatchError(f"Unexpected kind: {kind}")


def _pointer(text: str) -> list[str]:
    if not text:
        return []
    if not text.startswith("/"):
        raise _PatchError(f"invalid pointer {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(part: str, size: int, path: list[str], *, insert: bool = False) -> int:
    if part == "-" and insert:
        return size
    try:
        index = int(part)
    except ValueError as error:
        raise _PatchError(f"invalid array index in /{'/'.join(path)}") from error
    if index < 0:
        index += size + insert
    if not 0 <= index < size + insert:
        raise _PatchError(f"array index out of bounds: /{'/'.join(path)}")
    return index


def _step(value: Json, part: str, path: list[str]) -> Json:
    if is_object(value):
        if part not in value:
            raise _PatchError(f"missing path: /{'/'.join(path)}")
        return value[part]
    if is_list(value):
        items: list[Json] = value
        return items[_index(part, len(items), path)]
    raise _PatchError(f"missing path: /{'/'.join(path)}")


def _get(document: Json, path: list[str]) -> Json:
    for part in path:
        document = _step(document, part, path)
    return document


def _tested(document: Json, path: list[str]) -> Json:
    """Returns the value that `test` compares: null for a missing key of an object, as kube-apiserver's library does."""
    parent = _get(document, path[:-1]) if path else None
    return parent.get(path[-1]) if is_object(parent) else _get(document, path)


def _has(document: Json, path: list[str]) -> bool:
    try:
        _get(document, path)
    except _PatchError:
        return is_list(_get(document, path[:-1]))
    return True


def _add(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if is_object(parent):
        parent[path[-1]] = value
    elif is_list(parent):
        items: list[Json] = parent
        items.insert(_index(path[-1], len(items), path, insert=True), value)
    else:
        raise _PatchError(f"missing path: /{'/'.join(path)}")
    return document


def _remove(document: Json, path: list[str]) -> None:
    if not path:
        raise _PatchError("cannot remove the whole document")
    parent = _get(document, path[:-1])
    _step(parent, path[-1], path)
    if is_object(parent):
        del parent[path[-1]]
    else:
        items: list[Json] = parent
        del items[_index(path[-1], len(items), path)]
