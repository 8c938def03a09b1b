"""Records what `Api.ensure` applied last, so that applying the same object again sends no request."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar, final

import msgspec

from kaito.runtime.client.patch import contains
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.meta.model import is_partial

R = TypeVar("R", bound=Resource)

MAX_OBJECTS = 16384
"""Size of the LRU cache in objects, about 4 MiB. An evicted object costs one request."""


@dataclass(frozen=True, slots=True)
class _Applied:
    digest: bytes
    uid: str
    generation: int
    resource_version: str


@final
class AppliedObjects:
    """LRU cache of the documents that this process applied, by kind, key and field manager."""

    def __init__(self) -> None:
        self._applied: OrderedDict[tuple[type[Resource], ObjectKey], dict[str, _Applied]] = OrderedDict()

    def is_current(self, desired: Resource, document: dict[str, Any], live: Resource, field_manager: str) -> bool:
        """Whether applying `document` again would change nothing.

        True if it was the last applied document of the object with this UID, and either the object has not been written
        since (same resourceVersion), or only fields outside the document were: its spec is unchanged (same generation)
        and its metadata contains the document's, or the object contains the whole document and its lists no other item.
        """
        key = (type(desired), desired.key)
        last = self._applied.get(key, {}).get(field_manager)
        if last is None or last.uid != live.uid or last.digest != digest_of(document):
            return False
        self._applied.move_to_end(key)
        if is_partial(live):
            return False  # only the metadata is cached, and the caller expects the whole object
        if live.metadata.resource_version == last.resource_version:
            return True
        if live.metadata.generation == last.generation > 0:
            return contains(live.metadata.to_dict(), document.get("metadata", {}))
        return contains(live.to_dict(), document, more_items=False)

    def is_recorded(
        self,
        desired: Resource,
        document: dict[str, Any],
        live: Resource,
        field_manager: str,
        annotation: str,
        appliers: Collection[str],
        former: Collection[str],
    ) -> bool:
        """Whether an earlier process has applied `document`, and applying it again would change nothing; this is then
        recorded like an apply.

        True if the annotation with the digest, which is a part of the document, is equal, so that no field of an
        earlier document remains; the field manager has applied fields, and no former manager has; and the object
        contains the whole document, so that no field was changed by others. What this process has applied is compared
        by `is_current` instead.

        Args:
            desired: the object to apply.
            document: its manifest.
            live: the cached object.
            field_manager: the field manager.
            annotation: name of the annotation with the digest.
            appliers: managers that have applied fields of the cached object.
            former: former field managers.
        """
        is_recorded = (
            not self.has(type(desired), desired.key, field_manager)
            and live.annotations.get(annotation) == desired.annotations[annotation]
            and field_manager in appliers
            and not any(name in appliers for name in former if name != field_manager)
            and not is_partial(live)
            and contains(live.to_dict(), document, more_items=False)
        )
        if is_recorded:
            self.remember(desired, document, live, field_manager)
        return is_recorded

    def has(self, kind: type[Resource], key: ObjectKey, field_manager: str) -> bool:
        """Whether this process applied the object with the field manager."""
        return field_manager in self._applied.get((kind, key), {})

    def remember(self, desired: Resource, document: dict[str, Any], result: Resource, field_manager: str) -> None:
        """Records that `document` was applied with `result`."""
        key = (type(desired), desired.key)
        self._applied.setdefault(key, {})[field_manager] = _Applied(
            digest_of(document), result.uid, result.metadata.generation, result.metadata.resource_version
        )
        self._applied.move_to_end(key)
        if len(self._applied) > MAX_OBJECTS:
            self._applied.popitem(last=False)

    def forget(self, kind: type[Resource], key: ObjectKey, field_manager: str = "") -> None:
        """Drops the records of an object that was deleted or written by other means, or those of one field manager."""
        if field_manager:
            self._applied.get((kind, key), {}).pop(field_manager, None)
        else:
            self._applied.pop((kind, key), None)


def digest_of(document: dict[str, Any]) -> bytes:
    """Returns a digest that does not depend on the order of keys."""
    text = msgspec.json.encode(document, order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()


def with_digest(desired: R, document: dict[str, Any], annotation: str, field_manager: str) -> tuple[R, dict[str, Any]]:
    """Returns the object and its manifest with an annotation that contains the digest of the manifest and of the field
    manager.

    The manifest is completed instead of made again: `Api.ensure` is called in each reconcile.
    """
    digest = digest_of({"manager": field_manager, "document": document}).hex()
    annotations = {**desired.annotations, annotation: digest}
    metadata = {**document["metadata"], "annotations": annotations}
    return desired.with_metadata(annotations=annotations), {**document, "metadata": metadata}
