"""Records what `Api.ensure` applied last, so that applying the same object again sends no request."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, final

import msgspec

from kaito.runtime.client.patch import contains
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.meta.model import is_partial

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
        and its metadata contains the document's, or the object contains the whole document.
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
        return contains(live.to_dict(), document)

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
