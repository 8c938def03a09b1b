"""Checks and prunes `ObjectMeta`, the metadata of every object."""

from __future__ import annotations

from kaito.apiserver import errors
from kaito.apiserver.wire import Json, Object, is_list, is_object

_STRINGS = frozenset(
    {
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    }
)
_MAPS = frozenset({"labels", "annotations"})
_REFERENCE = frozenset({"apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"})


def prune_metadata(metadata: Object, described: str, kind: str) -> list[str]:
    """Removes unknown and null fields, in place, and returns the paths of the unknown ones; 400 for wrong types."""
    try:
        return _prune(metadata)
    except _WrongTypeError as error:
        raise errors.bad_request(f"{described} cannot be handled as a {kind}: {error}") from error


class _WrongTypeError(Exception):
    """A field of the metadata has the wrong type."""


def _prune(metadata: Object) -> list[str]:
    unknown: list[str] = []
    for name in list(metadata):
        value = metadata[name]
        if value is None:
            del metadata[name]
        elif name in _STRINGS:
            _expect(isinstance(value, str), name, "string", value)
        elif name in _MAPS:
            _check_map(metadata, name, value)
        elif name == "ownerReferences":
            unknown += _check_references(value)
        elif name == "finalizers":
            _expect(is_list(value), name, "[]string", value)
        elif name not in {"generation", "deletionGracePeriodSeconds", "managedFields"}:
            del metadata[name]
            unknown.append(f"metadata.{name}")
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    return unknown


def _check_map(metadata: Object, name: str, value: Json) -> None:
    _expect(is_object(value), name, "map[string]string", value)
    entries: Object = value
    for key, item in list(entries.items()):
        if item is None:
            entries[key] = ""
        else:
            _expect(isinstance(item, str), name, "string", item)
    metadata[name] = entries


def _check_references(value: Json) -> list[str]:
    _expect(is_list(value), "ownerReferences", "[]v1.OwnerReference", value)
    references: list[Object] = value
    unknown: list[str] = []
    for index, reference in enumerate(references):
        _expect(is_object(reference), f"ownerReferences[{index}]", "v1.OwnerReference", reference)
        for name in set(reference) - _REFERENCE:
            del reference[name]
            unknown.append(f"metadata.ownerReferences[{index}].{name}")
    return unknown


def _expect(fits: bool, path: str, wanted: str, value: Json) -> None:
    if not fits:
        names: dict[type, str] = {dict: "object", list: "array", str: "string", bool: "bool"}
        seen: type = value.__class__
        kind = names.get(seen, "number")
        raise _WrongTypeError(
            f"json: cannot unmarshal {kind} into Go struct field ObjectMeta.metadata.{path} of type {wanted}"
        )
