"""Handlers: map an event to the keys to reconcile (controller-runtime's EventHandler).

A source calls its handler with every event that passes its predicate; the handler adds keys to the controller's queue.
Initial lists and relists have a low priority, changes the normal one (`Event.priority`). Handlers may be async and may
raise: the informer delivers a failed event again, so that no key is lost.
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
"""Maps an object to the keys to reconcile; sync or async, may read the cache, may raise."""


KeyMapper: TypeAlias = Callable[[R, View], Iterable[K] | K | Awaitable[Iterable[K] | K | None] | None]
"""As `Mapper`, for keys of another type (`Controller.keyed`)."""


class Enqueue(Protocol):
    """Adds keys to a work queue."""

    def add(self, key: ObjectKey, *, priority: int = 0, after: float = 0.0, cause: Cause | None = None) -> None:
        """Queues a key; see `kaito.runtime.workqueue.WorkQueue.add`."""
        ...


class Handler(Protocol[R]):
    """Turns events into keys."""

    def __call__(self, event: Event[R], queue: Enqueue, view: View, /) -> Awaitable[None] | None:
        """Queues the keys to reconcile because of the event."""
        ...


def cause_of(event: Event[Any]) -> Cause:
    """Returns the cause of keys that are queued because of the event."""
    return Cause(event.kind.kind, str(event.key), str(event.type), "initial list" if event.initial else "", event.at)


def _enqueue(keys: Iterable[ObjectKey], event: Event[Any], queue: Enqueue) -> None:
    cause: Cause | None = None
    for key in dict.fromkeys(keys):
        cause = cause or cause_of(event)
        queue.add(key, priority=event.priority, cause=cause)


def enqueue_self(event: Event[Any], queue: Enqueue, _view: View, /) -> None:
    """Queues the event's object: for the kind that a controller reconciles."""
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
    """Returns a handler that queues the owners of a kind (any version), of the old and the new state.

    It queues only the controlling owner, unless `every_owner`. UIDs are not compared: a dependent of an earlier owner
    with the same name queues the current one, whose reconcile then compares the UIDs.
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
                message = f"{self!r} returned {key!r}: return {self._key.__name__}s{hint}, a list of them, or None"
                raise TypeError(message)
            yield key

    def __repr__(self) -> str:
        return f"mapped({getattr(self._to, '__qualname__', self._to)})"


def mapped(to: KeyMapper[R, Any], key: type[Hashable] = ObjectKey) -> Handler[R]:
    """Returns a handler that queues the keys that a function returns for the old and the new state; `key` is their
    type.

    If an object changes from one key to another, both are queued. If the function raises, no key is queued and the
    event is delivered again.
    """
    return _Mapped(to, key)


def label_key(name_label: str, namespace_label: str = "") -> Mapper[Any]:
    """Returns a mapper that reads the key from labels: name, and namespace (by default that of the object).

    Raises:
        ConfigurationError: The label of the name is empty.
    """
    if not name_label:
        raise ConfigurationError("label_key() needs the label with the name")

    def keys(obj: Resource, _view: View) -> Keys:
        name = obj.labels.get(name_label)
        namespace = obj.labels.get(namespace_label) if namespace_label else obj.namespace
        return ObjectKey(namespace, name) if name and namespace is not None else None

    return keys
