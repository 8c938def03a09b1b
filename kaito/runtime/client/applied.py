"""The memory behind `Api.ensure`: what was applied last, so that the same object twice costs one request."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, final

import msgspec

from kaito.runtime.client.patch import contains
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.meta.model import is_partial

REMEMBERED = 16384
"""Objects remembered, the least recently ensured forgotten first: about 4 MiB. A forgotten one costs one request."""


@dataclass(frozen=True, slots=True)
class _Applied:
    digest: bytes
    uid: str
    generation: int
    resource_version: str


@final
class AppliedObjects:
    """What this process applied, by kind and key, and by field manager."""

    def __init__(self) -> None:
        self._applied: OrderedDict[tuple[type[Resource], ObjectKey], dict[str, _Applied]] = OrderedDict()

    def is_current(self, desired: Resource, document: dict[str, Any], live: Resource, field_manager: str) -> bool:
        """Whether applying `document` again would change nothing.

        True when it is what was applied last, to this very object, and since then either nobody wrote the object, or
        only parts that are not ours: the same generation and our metadata intact, or every field of ours as we said.
        """
        key = (type(desired), desired.key)
        last = self._applied.get(key, {}).get(field_manager)
        if last is None or last.uid != live.uid or last.digest != digest_of(document):
            return False
        self._applied.move_to_end(key)
        if is_partial(live):
            return False  # the cache holds metadata only: what the caller would get back is not the object
        if live.metadata.resource_version == last.resource_version:
            return True
        if live.metadata.generation == last.generation > 0:
            return contains(live.metadata.to_dict(), document.get("metadata", {}))
        return contains(live.to_dict(), document)

    def has(self, kind: type[Resource], key: ObjectKey, field_manager: str) -> bool:
        """Whether this process applied the object under that name."""
        return field_manager in self._applied.get((kind, key), {})

    def remember(self, desired: Resource, document: dict[str, Any], result: Resource, field_manager: str) -> None:
        """`document` was applied and gave `result`."""
        key = (type(desired), desired.key)
        self._applied.setdefault(key, {})[field_manager] = _Applied(
            digest_of(document), result.uid, result.metadata.generation, result.metadata.resource_version
        )
        self._applied.move_to_end(key)
        if len(self._applied) > REMEMBERED:
            self._applied.popitem(last=False)

    def forget(self, kind: type[Resource], key: ObjectKey, field_manager: str = "") -> None:
        """The object was deleted or changed by other means; with a name, only what that one applied is uncertain."""
        if field_manager:
            self._applied.get((kind, key), {}).pop(field_manager, None)
        else:
            self._applied.pop((kind, key), None)


def digest_of(document: dict[str, Any]) -> bytes:
    """Equal for equal documents, whatever the order of their keys."""
    text = msgspec.json.encode(document, order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()
