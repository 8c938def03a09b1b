"""`KindSource`: every event of a kind, from the cache's informer through a predicate to a handler."""

import copy
from collections.abc import Awaitable
from typing import Generic, TypeVar, final

from kaito.runtime.cache.cache import Cache, Hold
from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.delivery import Subscription
from kaito.runtime.cache.event import Event, EventType
from kaito.runtime.cache.view import View
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import Enqueue, Handler
from kaito.runtime.meta import Resource
from kaito.runtime.predicate import Predicate, paths_of
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)


@final
class KindSource(Generic[R]):
    """Watches a kind.

    Args:
        kind: The kind.
        handler: What to do with its events.
        when: Which of them; all by default.
        name: For logs and metrics, default the kind's name in lower case.
        resync: Seconds after which every object is told once more, as an update without change; 0 = never. Predicates
            see it as a generic event: `changed(...)` asks about changes, and would drop all of them.
    """

    def __init__(
        self,
        kind: type[R],
        handler: Handler[R],
        *,
        when: Predicate | None = None,
        name: str = "",
        resync: float = 0.0,
    ) -> None:
        self.resync = resync
        self.kind = kind
        self.name: str = name or kind.kind.lower()
        self._handler = handler
        self._when = when

    @property
    def cached(self) -> Cached:
        """What it needs of the cache: the kind, in whatever form others declare it."""
        return Cached(self.kind)

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedKind[R]":  # noqa: ARG002 -- the protocol's; the informer owns the task
        """Begin to deliver events to `queue`.

        Raises:
            ConfigurationError: the predicate compares fields that the cache does not keep: it would never see a change.
        """
        view = View(cache)
        handler, when, resyncs = self._handler, self._when, self.resync > 0

        def deliver(event: Event[R]) -> Awaitable[None] | None:
            if when is not None and not when(_as_generic(event) if resyncs and event.unchanged else event):
                return None
            return handler(event, queue, view)

        hold: Hold[R] = cache.acquire(self.kind)
        declaration = hold.informer.declaration
        for path in paths_of(when) if when is not None else ():
            if not declaration.keeps(path):
                hold.release()
                field = ".".join(path)
                raise ConfigurationError(f"{self.name}: {when} looks at {field}, which {declaration!r} does not keep")
        return StartedKind(hold, hold.informer.subscribe(deliver, name=self.name, resync=self.resync))

    def __repr__(self) -> str:
        return f"KindSource({self.kind.kind}, {self._handler})"


def _as_generic(event: Event[R]) -> Event[R]:
    generic = copy.copy(event)
    generic.type = EventType.GENERIC
    return generic


@final
class StartedKind(Generic[R]):
    """A subscription at an informer, and a share in it."""

    def __init__(self, hold: Hold[R], subscription: Subscription[R]) -> None:
        self._hold = hold
        self._subscription = subscription

    async def wait_synced(self) -> None:
        """Wait until the handler has processed the initial list."""
        await self._subscription.wait_synced()

    @property
    def synced(self) -> bool:
        """Whether the handler has processed the initial list."""
        return self._subscription.synced

    @property
    def idle(self) -> bool:
        """Nothing is buffered or being handled; failed events may wait for their next try."""
        return self._subscription.idle

    @property
    def trouble(self) -> str:
        """The last list or watch error of the informer."""
        return "" if self._hold.informer.synced else str(self._hold.informer.not_synced())

    def stop(self) -> None:
        """Unsubscribe, and give back the share in the informer."""
        self._subscription.cancel()
        self._hold.release()
