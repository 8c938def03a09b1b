"""What a version cannot say, kept in an annotation on the way through it: the memory of lossless conversions.

Pure functions over JSON, called by `Conversion`. The idea is that of Cluster API's conversion helpers
(`MarshalData`); here the framework finds out what is lost, by converting there and back, and keeps no more than that. A
kept value comes back only while the field still has the value it took on the way: what somebody changed since then is
newer.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kaito.runtime.client.patch import Json, is_object, merge_diff

_IDENTITY: Final = ("apiVersion", "kind", "metadata")
_KEPT: Final = "kept-from-"


def kept_annotation(group: str, version: str) -> str:
    """The annotation that keeps what only that version can say."""
    return f"{group}/{_KEPT}{version}"


def without_kept(document: Mapping[str, Any], *annotations: str) -> tuple[Json, str]:
    """The object without these annotations, and the text of the first."""
    present = _annotations(document)
    if not any(name in present for name in annotations):
        return dict(document), ""
    others = {name: text for name, text in present.items() if name not in annotations}
    rest = {name: value for name, value in document["metadata"].items() if name != "annotations"}
    text = present.get(annotations[0], "")
    return dict(document) | {"metadata": rest | ({"annotations": others} if others else {})}, text


def carried(document: Mapping[str, Any], converted: Mapping[str, Any], group: str) -> Json:
    """`converted` with what is kept for other versions, although the functions may have dropped all annotations."""
    kept = {name: text for name, text in _annotations(document).items() if name.startswith(f"{group}/{_KEPT}")}
    return _annotated(converted, kept)


def with_lost(
    converted: Mapping[str, Any], annotation: str, *, given: Mapping[str, Any], back: Mapping[str, Any]
) -> Json:
    """`converted` with an annotation of what is in `given` and no longer in `back`, if anything is."""
    lost = merge_diff(_content(back), _content(given))
    if not lost:
        return dict(converted)
    instead = merge_diff(_content(given), _content(back))
    text = msgspec.json.encode({"lost": lost, "instead": instead}).decode()
    return _annotated(converted, {annotation: text})


def restored(converted: Mapping[str, Any], text: str) -> Json:
    """`converted` with what was kept, where nobody has changed it since. A text that was tampered with is ignored."""
    try:
        kept = msgspec.json.decode(text, type=dict[str, dict[str, Any]]) if text else {}
    except msgspec.DecodeError:
        kept = {}
    return _merged(converted, kept.get("lost", {}), kept.get("instead", {}))


def _merged(value: Mapping[str, Any], lost: Mapping[str, Any], instead: Mapping[str, Any]) -> Json:
    result = dict(value)
    for name, kept in lost.items():
        present, expected = value.get(name), instead.get(name)
        if is_object(present) and is_object(kept) and is_object(expected):
            result[name] = _merged(present, kept, expected)
        elif present == expected:
            result.pop(name, None)
            if kept is not None:
                result[name] = kept
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
