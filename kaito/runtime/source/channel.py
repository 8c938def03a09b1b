"""`Channel`: events that the program sends, from sources outside the cluster such as a webhook, a timer or a cloud.

Every controller that `.receives(channel)` gets every event. `send` waits while a buffer is full; events are not
dropped.
"""

import asyncio
from inspect import isawaitable
from typing import Any, Final, Generic, TypeVar, final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.event import Event, generic, generic_key
from kaito.runtime.cache.view import View
from kaito.runtime.handler import Enqueue, Handler, enqueue_self
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.predicate import Predicate
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)

BUFFER_EVENTS: Final = 1024
"""Events buffered per receiver (controller-runtime's channel source)."""

RETRY_SECONDS: Final = 1.0
RETRY_LONGEST_SECONDS: Final = 60.0

_log = get_logger(__name__)


@final
class Channel(Generic[R]):
    """Delivers generic events of a kind to all receivers."""

    def __init__(self, kind: type[R], *, name: str = "", buffer: int = BUFFER_EVENTS) -> None:
        self.kind = kind
        self.name: str = name or f"{kind.kind.lower()}-channel"
        self._buffer = buffer
        self._receivers: list[asyncio.Queue[Event[R]]] = []

    async def send(self, about: R | ObjectKey) -> None:
        """Sends an event for an object or a key to every receiver. Waits while a receiver's buffer is full."""
        event = generic_key(self.kind, about) if isinstance(about, ObjectKey) else generic(about)
        for receiver in list(self._receivers):
            await receiver.put(event)

    def attach(self) -> "asyncio.Queue[Event[R]]":
        """Adds a receiver and returns its buffer, which gets later events only."""
        receiver: asyncio.Queue[Event[R]] = asyncio.Queue(self._buffer)
        self._receivers.append(receiver)
        return receiver

    def detach(self, receiver: "asyncio.Queue[Event[R]]") -> None:
        """Removes a receiver."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)


@final
class ChannelSource(Generic[R]):
    """Source of a channel's events."""

    def __init__(
        self, channel: Channel[R], handler: Handler[R] = enqueue_self, *, when: Predicate | None = None
    ) -> None:
        self.name: str = channel.name
        self._channel = channel
        self._handler = handler
        self._when = when

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedChannel":
        """Starts to deliver events, in a task of `scope`."""
        receiver = self._channel.attach()
        started = StartedChannel(self._channel, receiver)
        scope.spawn(self._run(receiver, started, queue, View(cache)), name=f"source.{self.name}")
        return started

    async def _run(
        self, receiver: "asyncio.Queue[Event[R]]", started: "StartedChannel", queue: Enqueue, view: View
    ) -> None:
        try:
            while not started.stopped:
                event = await receiver.get()
                started.busy = True
                await self._handle(event, queue, view)
                started.busy = False
        finally:
            started.stop()

    async def _handle(self, event: Event[R], queue: Enqueue, view: View) -> None:
        wait = RETRY_SECONDS
        while True:
            try:
                if self._when is not None and not self._when(event):
                    return
                result = self._handler(event, queue, view)
                if isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 -- handlers are user code; the event is retried
                _log.error(
                    "event handler failed",
                    handler=self.name,
                    object=str(event.key),
                    error=f"{type(error).__name__}: {error}",
                    retry_in_seconds=wait,
                    exc_info=error,
                )
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_LONGEST_SECONDS)
            else:
                return

    def __repr__(self) -> str:
        return f"ChannelSource({self.name})"


@final
class StartedChannel:
    """Started source of a channel."""

    def __init__(self, channel: Channel[Any], receiver: "asyncio.Queue[Event[Any]]") -> None:
        self._channel = channel
        self._receiver = receiver
        self.busy = False
        self.stopped: bool = False

    async def wait_synced(self) -> None:
        """Returns at once: a channel has no initial events."""

    @property
    def synced(self) -> bool:
        """Whether the source is synced: always."""
        return True

    @property
    def idle(self) -> bool:
        """Whether no event is buffered or being handled."""
        return self._receiver.empty() and not self.busy

    @property
    def sync_error(self) -> str:
        """Returns no error: a channel is always synced."""
        return ""

    def stop(self) -> None:
        """Stops receiving; buffered events are dropped."""
        self.stopped = True
        self._channel.detach(self._receiver)
