"""An event of one object: created, updated, deleted, or generic (from outside the cluster).

Informers deliver events to handlers; predicates drop them, handlers turn them into keys. An event carries the object
before and after as a `Snapshot`: the header is decoded already, the object on demand and privately for
that event.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar, final

import msgspec

from kaito.runtime.cache.entry import Entry, Header, decode, make_entry
from kaito.runtime.cache.jsontext import Path, value_text
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)
KindOf: TypeAlias = type[R]
"""The class of a kind; named here because `Event.type` hides the builtin."""

LOW_PRIORITY: Final = -100
"""Of events that a restart or a relist causes, not the cluster (controller-runtime's `handler.LowPriority`)."""


class EventType(StrEnum):
    """The four kinds of event, named as controller-runtime names them."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    GENERIC = "generic"


class Change(NamedTuple):
    """An event in a buffer: shared by all handlers, nothing decoded."""

    type: EventType
    key: ObjectKey
    old: Entry | None
    new: Entry | None
    at: float
    initial: bool = False
    state_unknown: bool = False


@final
class Snapshot(Generic[R]):
    """One state of an object: the header, and the object decoded on demand."""

    __slots__ = ("_entry", "_kind", "_metadata_only", "_object")

    def __init__(self, entry: Entry, kind: type[R], *, metadata_only: bool = False) -> None:
        self._entry = entry
        self._kind = kind
        self._metadata_only = metadata_only
        self._object: R | None = None

    @property
    def header(self) -> Header:
        """Key, versions, labels and owners, without decoding anything."""
        return self._entry.header

    @property
    def object(self) -> R:
        """The object, decoded once per event.

        Raises:
            UnreadableObject: it does not fit its model.
        """
        if self._object is None:
            self._object = decode(self._entry, self._kind, metadata_only=self._metadata_only)
        return self._object

    def text_at(self, path: Path) -> bytes | None:
        """The JSON text at a path of wire names, or None; builds no object."""
        return value_text(self._entry.text, path)


@final
class Event(Generic[R]):
    """An event, as handlers receive it."""

    __slots__ = ("at", "initial", "key", "kind", "new", "old", "state_unknown", "type")

    def __init__(self, change: Change, kind: KindOf[R], *, metadata_only: bool = False) -> None:
        self.kind: type[R] = kind
        self.type: EventType = change.type
        self.key: ObjectKey = change.key
        self.at: float = change.at
        """When it was received, in seconds of the running loop's clock."""
        self.initial: bool = change.initial
        """The object existed when the informer (or this handler) started."""
        self.state_unknown: bool = change.state_unknown
        """A deletion that the watch missed: a relist found the object missing; `old` is the last known state and may be
        outdated."""
        self.old: Snapshot[R] | None = (
            Snapshot(change.old, kind, metadata_only=metadata_only) if change.old is not None else None
        )
        """The state before an update; the last state of a deleted object."""
        self.new: Snapshot[R] | None = (
            Snapshot(change.new, kind, metadata_only=metadata_only) if change.new is not None else None
        )
        """The state after a creation or an update; the object of a generic event."""

    @property
    def latest(self) -> Snapshot[R] | None:
        """The newest state in the event: the new one, or the last one of a deleted object."""
        return self.new or self.old

    @property
    def states(self) -> Iterator[Snapshot[R]]:
        """The old and the new state, if they exist."""
        return (state for state in (self.old, self.new) if state is not None)

    @property
    def unchanged(self) -> bool:
        """An update to the same resourceVersion: a relist or a resync, not a change."""
        return (
            self.type is EventType.UPDATE
            and self.old is not None
            and self.new is not None
            and self.old.header.resource_version == self.new.header.resource_version
        )

    @property
    def begins_deletion(self) -> bool:
        """An update that sets `deletionTimestamp`: the object is removed when its finalizers and grace period allow."""
        return (
            self.type is EventType.UPDATE
            and self.new is not None
            and self.new.header.deleting
            and not (self.old is not None and self.old.header.deleting and self.old.header.uid == self.new.header.uid)
        )

    @property
    def priority(self) -> int:
        """-100 for the initial list and for updates without change, else 0 (as controller-runtime's handlers)."""
        return LOW_PRIORITY if self.unchanged or (self.initial and self.type is EventType.CREATE) else 0

    def __repr__(self) -> str:
        flags = "".join(f" {name}" for name in ("initial", "state_unknown") if getattr(self, name))
        return f"<{self.type} {self.kind.kind} {self.key}{flags}>"


def generic(obj: R) -> Event[R]:
    """An event from outside the cluster about an object, for channels."""
    entry = make_entry(msgspec.json.encode(obj.to_dict()), {})
    return Event(Change(EventType.GENERIC, obj.key, None, entry, monotonic()), type(obj))


def generic_key(kind: type[R], key: ObjectKey) -> Event[R]:
    """An event from outside the cluster about a key, without the object."""
    return Event(Change(EventType.GENERIC, key, None, None, monotonic()), kind)
