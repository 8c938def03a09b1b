"""Handlers: from an event to the keys that should be reconciled because of it.

A source calls its handler with every event its predicate let through; the handler adds keys to the controller's queue.
Initial lists and relists get a low priority, changes the normal one (`Event.priority`). Handlers may be async and may
raise: the informer delivers a failed event again later, so no key is lost to a mapper's bad moment.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias, TypeVar, final

from kaito.runtime.cache.event import Event, Snapshot
from kaito.runtime.cache.view import View
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.workqueue import Cause

R = TypeVar("R", bound=Resource)
K = TypeVar("K", bound=Hashable)

Keys: TypeAlias = Iterable[ObjectKey] | ObjectKey | None
Mapper: TypeAlias = Callable[[R, View], Keys | Awaitable[Keys]]
"""From an object to the keys that depend on it; sync or async, may read the cache, may raise."""


KeyMapper: TypeAlias = Callable[[R, View], Iterable[K] | K | Awaitable[Iterable[K] | K | None] | None]
"""As `Mapper`, for keys of another type (`Controller.keyed`)."""


class Enqueue(Protocol):
    """The adding half of the work queue."""

    def add(self, key: ObjectKey, *, priority: int = 0, after: float = 0.0, cause: Cause | None = None) -> None:
        """Queue a key; see `kaito.runtime.workqueue.WorkQueue.add`."""
        ...


class Handler(Protocol[R]):
    """Turns events into keys."""

    def __call__(self, event: Event[R], queue: Enqueue, view: View, /) -> Awaitable[None] | None:
        """Queue whatever the event concerns."""
        ...


def cause_of(event: Event[Any]) -> Cause:
    """What a key queued because of the event is told as its reason."""
    return Cause(event.kind.kind, str(event.key), str(event.type), "initial list" if event.initial else "", event.at)


def _enqueue(keys: Iterable[ObjectKey], event: Event[Any], queue: Enqueue) -> None:
    cause: Cause | None = None
    for key in dict.fromkeys(keys):
        cause = cause or cause_of(event)
        queue.add(key, priority=event.priority, cause=cause)


def enqueue_self(event: Event[Any], queue: Enqueue, _view: View, /) -> None:
    """The object itself: for the kind a controller reconciles."""
    queue.add(event.key, priority=event.priority, cause=cause_of(event))


@final
class _Owner:
    __slots__ = ("_every_owner", "_kind")

    def __init__(self, kind: type[Resource], *, every_owner: bool) -> None:
        self._kind = kind
        self._every_owner = every_owner

    def __call__(self, event: Event[Any], queue: Enqueue, _view: View, /) -> None:
        _enqueue((key for state in event.states for key in self._owners(state)), event, queue)

    def _owners(self, state: Snapshot[Any]) -> Iterable[ObjectKey]:
        namespace = state.header.key.namespace if self._kind.namespaced else ""
        return (
            ObjectKey(namespace, owner.name)
            for owner in state.header.owners
            if owner.kind == self._kind.kind
            and owner.group == self._kind.group()
            and (owner.controller or self._every_owner)
        )

    def __repr__(self) -> str:
        return f"enqueue_owner({self._kind.kind})"


def enqueue_owner(kind: type[Resource], *, every_owner: bool = False) -> Handler[Any]:
    """The owners of that kind (any version of its group), of the old and the new state.

    Only the owner that controls the object, unless `every_owner`. The UID is not compared: a child of an earlier
    object of the same name wakes the present one, which then finds that the child is not its own.
    """
    return _Owner(kind, every_owner=every_owner)


@final
class _Mapped:
    __slots__ = ("_key", "_to")

    def __init__(self, to: KeyMapper[Any, Any], key: type[Hashable]) -> None:
        self._to = to
        self._key = key

    async def __call__(self, event: Event[Any], queue: Enqueue, view: View, /) -> None:
        keys: list[Any] = []
        for state in event.states:
            found = self._to(state.object, view)
            keys.extend(self._listed(await found if isawaitable(found) else found))
        _enqueue(keys, event, queue)

    def _listed(self, found: Any) -> Iterable[Any]:
        if found is None:
            return
        for key in (found,) if isinstance(found, self._key) else found:
            if not isinstance(key, self._key):
                hint = " (`obj.key`)" if self._key is ObjectKey else ""
                message = f"{self!r} named {key!r}: it returns {self._key.__name__}s{hint}, a list of them, or None"
                raise TypeError(message)
            yield key

    def __repr__(self) -> str:
        return f"mapped({getattr(self._to, '__qualname__', self._to)})"


def mapped(to: KeyMapper[R, Any], key: type[Hashable] = ObjectKey) -> Handler[R]:
    """The keys a function names, for the old and the new state, each once; `key` is their type.

    An object that moved from one dependent to another thus wakes both. When the function raises, nothing is queued and
    the event comes again.
    """
    return _Mapped(to, key)


def label_key(name_label: str, namespace_label: str = "") -> Mapper[Any]:
    """A mapper that reads the key from labels: the dependent's name, and its namespace (default: the object's own).

    Raises:
        ConfigurationError: no label for the name.
    """
    if not name_label:
        raise ConfigurationError("label_key() needs the label that holds the name")

    def keys(obj: Resource, _view: View) -> Keys:
        name = obj.labels.get(name_label)
        namespace = obj.labels.get(namespace_label) if namespace_label else obj.namespace
        return ObjectKey(namespace, name) if name and namespace is not None else None

    return keys
