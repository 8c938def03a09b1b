"""Stores fields that a version cannot represent in an annotation, so that round trips lose nothing.

Pure functions over JSON, called by `Conversion`. Cluster API's conversion helpers (`MarshalData`) store the whole
object; here only the lost fields are stored, found by converting there and back. A stored value is restored only while
the field still has the value that the conversion gave it: otherwise the field was changed since, and the change is
newer.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kaito.runtime.client.patch import Json, is_object, merge_diff

_IDENTITY: Final = ("apiVersion", "kind", "metadata")
_PREFIX: Final = "kept-from-"


def preserved_annotation(group: str, version: str) -> str:
    """The annotation with the fields that only that version can represent."""
    return f"{group}/{_PREFIX}{version}"


def take_preserved(document: Mapping[str, Any], *annotations: str) -> tuple[Json, str]:
    """The object without these annotations, and the value of the first."""
    present = _annotations(document)
    if not any(name in present for name in annotations):
        return dict(document), ""
    others = {name: text for name, text in present.items() if name not in annotations}
    rest = {name: value for name, value in document["metadata"].items() if name != "annotations"}
    text = present.get(annotations[0], "")
    return dict(document) | {"metadata": rest | ({"annotations": others} if others else {})}, text


def carry_preserved(document: Mapping[str, Any], converted: Mapping[str, Any], group: str) -> Json:
    """`converted` with the annotations of other versions, which the conversion functions may have dropped."""
    preserved = {name: text for name, text in _annotations(document).items() if name.startswith(f"{group}/{_PREFIX}")}
    return _annotated(converted, preserved)


def preserve_lost(
    converted: Mapping[str, Any], annotation: str, *, given: Mapping[str, Any], back: Mapping[str, Any]
) -> Json:
    """`converted` with an annotation of the fields that are in `given` but not in `back`, if there are any."""
    lost = merge_diff(_content(back), _content(given))
    if not lost:
        return dict(converted)
    instead = merge_diff(_content(given), _content(back))
    text = msgspec.json.encode({"lost": lost, "instead": instead}).decode()
    return _annotated(converted, {annotation: text})


def restore_preserved(converted: Mapping[str, Any], text: str) -> Json:
    """`converted` with the stored fields that were not changed since. An annotation that is not valid is ignored."""
    try:
        preserved = msgspec.json.decode(text, type=dict[str, dict[str, Any]]) if text else {}
    except msgspec.DecodeError:
        preserved = {}
    return _merged(converted, preserved.get("lost", {}), preserved.get("instead", {}))


def _merged(value: Mapping[str, Any], lost: Mapping[str, Any], instead: Mapping[str, Any]) -> Json:
    result = dict(value)
    for name, preserved in lost.items():
        present, expected = value.get(name), instead.get(name)
        if is_object(present) and is_object(preserved) and is_object(expected):
            result[name] = _merged(present, preserved, expected)
        elif present == expected:
            result.pop(name, None)
            if preserved is not None:
                result[name] = preserved
    return result


def _content(document: Mapping[str, Any]) -> Json:
    return {name: value for name, value in document.items() if name not in _IDENTITY}


def _annotations(document: Mapping[str, Any]) -> Mapping[str, str]:
    metadata: Mapping[str, Any] = document.get("metadata") or {}
    annotations: Mapping[str, str] | None = metadata.get("annotations")
    return annotations or {}


def _annotated(document: Mapping[str, Any], more: Mapping[str, str]) -> Json:
    if not more:
        return dict(document)
    annotations = {**_annotations(document), **more}
    return dict(document) | {"metadata": {**(document.get("metadata") or {}), "annotations": annotations}}
