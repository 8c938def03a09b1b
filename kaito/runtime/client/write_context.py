"""The run of a controller in whose context a write happens: gives its field manager, takes note of contested fields.

The engine opens one around every run. It is found through the context, so that writes to other clusters and writes of
tasks that a run starts belong to the same controller.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, final

from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey, Resource

FIELD_MANAGER_LENGTH: Final = 128
"""Longest name of a field manager (apimachinery, `ValidateFieldManager`)."""

WINDOW_SECONDS: Final = 600.0
"""An apply counts as undone when the same fields had to be written again within this time."""

FREE_RESTORES: Final = 3
"""Times that fields may be restored without a pause: users revert changes, too."""

FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 60.0

REMEMBERED: Final = 4096
"""Objects remembered, the least recently written forgotten first."""

VARIANTS: Final = 16
"""Different applied documents remembered for one object."""


def field_manager_of(owner: str, controller: str) -> str:
    """`owner/controller`, within the length and the characters that the API server allows."""
    name = "".join(letter if letter.isprintable() else "-" for letter in f"{owner}/{controller}")
    if len(name) <= FIELD_MANAGER_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: FIELD_MANAGER_LENGTH - len(digest) - 1]}-{digest}"


@dataclass(frozen=True, slots=True)
class FieldContention:
    """Fields of an object that had to be restored once more."""

    kind: str
    key: ObjectKey
    field_manager: str
    times: int
    """How often within `WINDOW_SECONDS`."""
    others: tuple[str, ...]
    """Further field managers of the object."""

    @property
    def backoff_seconds(self) -> float:
        """Seconds until the key that restored them may run again."""
        beyond = self.times - FREE_RESTORES
        return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(beyond - 1, 16), LONGEST_BACKOFF_SECONDS) if beyond > 0 else 0.0


@dataclass(slots=True)
class WriteContext:
    """What the writes of one run leave behind."""

    controller: str
    contentions: list[FieldContention] = field(default_factory=list[FieldContention])


_current: ContextVar[WriteContext | None] = ContextVar("controller_run", default=None)


@contextmanager
def writing_as(controller: str) -> Generator[WriteContext]:
    """Writes made inside belong to a run of the controller."""
    run = WriteContext(controller)
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def current_write_context() -> WriteContext | None:
    """The run in whose context this is called; None outside of controllers."""
    return _current.get()


@dataclass(slots=True)
class _Applied:
    at: float
    times: int = 0


@final
class ContentionTracker:
    """What had to be applied again although it had been applied before, by object and by document."""

    def __init__(self) -> None:
        # By the hash of kind and key: no names of objects that are gone are kept, and a collision, one in 2^64, only
        # counts two objects together for ten minutes.
        self._objects: OrderedDict[int, OrderedDict[bytes, _Applied]] = OrderedDict()

    def count(self, kind: type[Resource], key: ObjectKey, document: bytes) -> int:
        """The document (its digest) had to be applied and changed the object; how often it was restored by now."""
        now = monotonic()
        self._forget(now - WINDOW_SECONDS)
        place = hash((kind, key))
        variants = self._objects.setdefault(place, OrderedDict())
        self._objects.move_to_end(place)
        if len(self._objects) > REMEMBERED:
            self._objects.popitem(last=False)
        last = variants.get(document)
        times = last.times + 1 if last is not None and now - last.at <= WINDOW_SECONDS else 0
        variants[document] = _Applied(now, times)
        variants.move_to_end(document)
        if len(variants) > VARIANTS:
            variants.popitem(last=False)
        return times

    def _forget(self, before: float) -> None:
        """Drop objects that were last written before that moment; the least recently written come first."""
        while self._objects:
            place, variants = next(iter(self._objects.items()))
            if next(reversed(variants.values())).at >= before:
                return
            del self._objects[place]
