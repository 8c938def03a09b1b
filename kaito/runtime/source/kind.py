"""`KindSource`: delivers the events of a kind from its informer, through a predicate, to a handler."""

import copy
from collections.abc import Awaitable, Collection
from typing import Any, Final, Generic, Self, TypeVar, final

import msgspec

from kaito.runtime.cache.cache import Cache, InformerRef
from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.delivery import Subscription
from kaito.runtime.cache.event import Event, EventType, Snapshot
from kaito.runtime.cache.jsontext import Path
from kaito.runtime.cache.view import View
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import Enqueue, Handler
from kaito.runtime.meta import Resource
from kaito.runtime.predicate import Predicate, paths_of
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)

FINALIZERS: Final[Path] = ("metadata", "finalizers")

_NAMES: Final = msgspec.json.Decoder(list[str])


@final
class KindSource(Generic[R]):
    """Source of the events of a kind.

    Args:
        kind: The kind.
        handler: Receives the events.
        when: Filter of the events; by default all pass.
        name: Name in logs and metrics; by default the kind in lower case.
        resync: Interval in seconds of a resync, which delivers every object again as an update without change; 0
            disables it. Predicates receive a generic event, because `changed(...)` would reject an update without
            change.
        finalizers: Finalizers of the controller. The event that begins the deletion of an object with one of them
            reaches the handler regardless of `when`: otherwise the clean-up would not run and the object would never be
            deleted. The same applies to the event that removes such an object from the cache.
    """

    def __init__(
        self,
        kind: type[R],
        handler: Handler[R],
        *,
        when: Predicate | None = None,
        name: str = "",
        resync: float = 0.0,
        finalizers: Collection[str] = (),
    ) -> None:
        self.resync = resync
        self.finalizers: frozenset[str] = frozenset(finalizers)
        self.kind = kind
        self.name: str = name or kind.kind.lower()
        self._handler = handler
        self._when = when

    def with_finalizers(self, finalizers: Collection[str]) -> Self:
        """Returns a copy with additional `finalizers`."""
        other = copy.copy(self)
        other.finalizers = self.finalizers | frozenset(finalizers)
        return other

    @property
    def cached(self) -> Cached:
        """Declares the kind in the cache; the options of other declarations apply."""
        return Cached(self.kind)

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedKind[R]":  # noqa: ARG002 -- the protocol's; the informer owns the task
        """Starts to deliver events to `queue`; raises as `deliver`."""
        return self.deliver(cache, queue, View(cache))

    def deliver(self, cache: Cache, queue: Enqueue, view: View) -> "StartedKind[R]":
        """Starts to deliver the events of a cache to `queue`. Handlers receive `view`.

        Raises:
            ConfigurationError: The predicate compares fields that are not cached, so that it would never detect a
                change.
        """
        handler, when, resyncs, finalizers = self._handler, self._when, self.resync > 0, self.finalizers

        def handle(event: Event[R]) -> Awaitable[None] | None:
            if (
                when is None
                or (finalizers and _awaits_clean_up(event, finalizers))
                or when(_as_generic(event) if resyncs and event.unchanged else event)
            ):
                return handler(event, queue, view)
            return None

        ref: InformerRef[R] = cache.acquire(self.kind)
        declaration = ref.informer.declaration
        for path in paths_of(when) if when is not None else ():
            if not declaration.keeps(path):
                ref.release()
                field = ".".join(path)
                raise ConfigurationError(f"{self.name}: {when} compares {field}, which {declaration!r} does not cache")
        return StartedKind(ref, ref.informer.subscribe(handle, name=self.name, resync=self.resync))

    def __repr__(self) -> str:
        return f"KindSource({self.kind.kind}, {self._handler})"


def _awaits_clean_up(event: Event[Any], finalizers: frozenset[str]) -> bool:
    """Whether the object waits for one of the finalizers from this event on."""
    match event.type:
        case EventType.CREATE:
            begins = event.new is not None and event.new.header.deleting
        case EventType.UPDATE:
            begins = event.begins_deletion
        case EventType.DELETE:  # with a finalizer left, it has left the cache's selector and still exists
            begins = True
        case _:
            begins = False
    return begins and event.latest is not None and _carries(event.latest, finalizers)


def _carries(state: Snapshot[Any], finalizers: frozenset[str]) -> bool:
    text = state.text_at(FINALIZERS)
    return text is not None and not finalizers.isdisjoint(_NAMES.decode(text))


def _as_generic(event: Event[R]) -> Event[R]:
    generic = copy.copy(event)
    generic.type = EventType.GENERIC
    return generic


@final
class StartedKind(Generic[R]):
    """Started source of a kind: a subscription and a reference to its informer."""

    def __init__(self, ref: InformerRef[R], subscription: Subscription[R]) -> None:
        self._ref = ref
        self._subscription = subscription

    async def wait_synced(self) -> None:
        """Waits until the handler has processed the initial list."""
        await self._subscription.wait_synced()

    @property
    def synced(self) -> bool:
        """Whether the handler has processed the initial list."""
        return self._subscription.synced

    @property
    def idle(self) -> bool:
        """Whether no event is buffered or being handled; failed events may wait for their retry."""
        return self._subscription.idle

    @property
    def sync_error(self) -> str:
        """Returns the last list or watch error of the informer."""
        return "" if self._ref.informer.synced else str(self._ref.informer.not_synced())

    def replay(self) -> None:
        """Delivers every object again, as in the initial list."""
        self._subscription.replay()

    def stop(self) -> None:
        """Cancels the subscription and releases the informer."""
        self._subscription.cancel()
        self._ref.release()
