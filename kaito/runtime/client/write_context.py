"""Context of the writes of a reconcile: provides the field manager, and collects contended fields. The engine opens one
around every reconcile. It is a context variable, so that writes to other clusters and writes of tasks that a reconcile
starts belong to the same controller.

Server-side apply takes over fields by force, so that two writers which apply different values overwrite each other and,
through their watches, trigger each other without end. kube-apiserver has no means against it; the framework detects an
apply that restores the same document repeatedly and delays the next reconcile of the key.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)

FIELD_MANAGER_LENGTH: Final = 128
"""Maximum length of a field manager's name (apimachinery, `ValidateFieldManager`)."""

WINDOW_SECONDS: Final = 600.0
"""An apply counts as a restore if it changes the object back to a document applied within this time."""

FREE_RESTORES: Final = 3
"""Restores without a delay: users change fields, too."""

FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 60.0

MAX_OBJECTS: Final = 4096
"""Maximum number of tracked objects (LRU)."""

VARIANTS: Final = 16
"""Maximum number of tracked documents per object."""


def field_manager_of(owner: str, controller: str) -> str:
    """Returns `owner/controller`, with the length and characters that the API server allows."""
    name = "".join(letter if letter.isprintable() else "-" for letter in f"{owner}/{controller}")
    if len(name) <= FIELD_MANAGER_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: FIELD_MANAGER_LENGTH - len(digest) - 1]}-{digest}"


@dataclass(frozen=True, slots=True)
class FieldContention:
    """Restore of fields that another writer changed."""

    kind: str
    key: ObjectKey
    field_manager: str
    times: int
    """Number of restores within `WINDOW_SECONDS`."""
    others: tuple[str, ...]
    """Other field managers of the object."""

    @property
    def backoff_seconds(self) -> float:
        """Delay of the next reconcile of the key, in seconds."""
        beyond = self.times - FREE_RESTORES
        return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(beyond - 1, 16), LONGEST_BACKOFF_SECONDS) if beyond > 0 else 0.0


@dataclass(slots=True)
class WriteContext:
    """Context of the writes of one reconcile."""

    controller: str
    contentions: list[FieldContention] = field(default_factory=list[FieldContention])
    results: dict[tuple[type[Resource], ObjectKey], Resource] = field(
        default_factory=dict[tuple[type[Resource], ObjectKey], Resource]
    )
    """The result of the last write of each object."""

    def latest(self, obj: R) -> R:
        """Returns the object as this reconcile wrote it last, if that is later than the given version of it."""
        written = self.results.get((type(obj), obj.key))
        if not isinstance(written, type(obj)) or written.uid != obj.uid:
            return obj
        versions = (written.metadata.resource_version, obj.metadata.resource_version)
        if not all(version.isdecimal() for version in versions) or int(versions[0]) < int(versions[1]):
            return obj
        return written


_current: ContextVar[WriteContext | None] = ContextVar("controller_run", default=None)


@contextmanager
def writing_as(controller: str) -> Generator[WriteContext]:
    """Attribute writes in the scope to a reconcile of the controller."""
    run = WriteContext(controller)
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def current_write_context() -> WriteContext | None:
    """Returns the context of the current reconcile; None outside of controllers."""
    return _current.get()


@dataclass(slots=True)
class _Applied:
    at: float
    times: int = 0


@final
class ContentionTracker:
    """Counts repeated applies of the same document, by object."""

    def __init__(self) -> None:
        # Keyed by the hash of kind and key, to save memory. A collision (1 in 2^64) only counts two objects together.
        self._objects: OrderedDict[int, OrderedDict[bytes, _Applied]] = OrderedDict()

    def count(self, kind: type[Resource], key: ObjectKey, document: bytes) -> int:
        """Counts an apply that changed the object, by the document's digest; returns the number of restores."""
        now = monotonic()
        self._forget(now - WINDOW_SECONDS)
        place = hash((kind, key))
        variants = self._objects.setdefault(place, OrderedDict())
        self._objects.move_to_end(place)
        if len(self._objects) > MAX_OBJECTS:
            self._objects.popitem(last=False)
        last = variants.get(document)
        times = last.times + 1 if last is not None and now - last.at <= WINDOW_SECONDS else 0
        variants[document] = _Applied(now, times)
        variants.move_to_end(document)
        if len(variants) > VARIANTS:
            variants.popitem(last=False)
        return times

    def _forget(self, before: float) -> None:
        """Drops objects that were last written before that time; the least recently written come first."""
        while self._objects:
            place, variants = next(iter(self._objects.items()))
            if next(reversed(variants.values())).at >= before:
                return
            del self._objects[place]
