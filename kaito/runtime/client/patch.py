"""Patches in the formats of the API. The type is always explicit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, TypeGuard, cast, final

from kaito.runtime.meta import Resource

Json = dict[str, Any]


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, Mapping)


def merge_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """Returns the JSON merge patch (RFC 7386) that turns `before` into `after`; `{}` if they are equal.

    The format replaces lists as a whole.
    """
    patch: Json = {name: None for name in before if name not in after}
    for name, new in after.items():
        old = before.get(name)
        if name in before and old == new:
            continue
        patch[name] = merge_diff(old, new) if is_object(old) and is_object(new) else new
    return patch


@final
@dataclass(frozen=True, slots=True)
class MergePatch:
    """JSON merge patch: null removes a field, lists are replaced as a whole."""

    content_type: ClassVar[str] = "application/merge-patch+json"
    document: Json

    @classmethod
    def between(cls, before: Resource, after: Resource, *, lock: bool = False) -> Self:
        """Returns the difference of two states; with `lock` it fails with `Conflict` unless `before` is current."""
        document = merge_diff(before.to_dict(), after.to_dict())
        if lock and document:
            document.setdefault("metadata", {})["resourceVersion"] = before.metadata.resource_version
        return cls(document)

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing; such a patch is never sent."""
        return not self.document


@final
@dataclass(frozen=True, slots=True)
class JsonPatch:
    """JSON patch (RFC 6902): operations that are applied in order, all or none."""

    content_type: ClassVar[str] = "application/json-patch+json"
    document: Sequence[Json]

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing; such a patch is never sent."""
        return not self.document


Patch = MergePatch | JsonPatch


def pointer(*path: str | int) -> str:
    """Returns a JSON pointer (RFC 6901): `pointer("metadata", "annotations", "a/b")` is
    `/metadata/annotations/a~1b`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


_OMITTED: Final = frozenset({"labels", "annotations"})
"""Fields that no kind stores if they are empty. An empty object elsewhere has a meaning, for example `emptyDir`."""


def contains(whole: object, part: object, *, more_items: bool = True) -> bool:
    """Whether `whole` contains `part`: objects may have further fields, and lists further items at the end unless
    `more_items` is False. Empty labels and annotations, which the server does not store, are contained."""
    if is_object(part):
        return is_object(whole) and all(
            contains(whole[name], value, more_items=more_items) if name in whole else name in _OMITTED and value == {}
            for name, value in part.items()
        )
    if isinstance(part, list):
        if not isinstance(whole, list):
            return False
        items, wanted = cast("list[object]", whole), cast("list[object]", part)
        return (len(items) >= len(wanted) if more_items else len(items) == len(wanted)) and all(
            contains(item, each, more_items=more_items) for item, each in zip(items, wanted, strict=False)
        )
    return whole == part
