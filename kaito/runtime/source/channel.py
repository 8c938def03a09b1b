"""`Channel`: events that the program itself sends, for what the cluster does not show (a webhook, a timer, a cloud).

Every controller that `.receives(channel)` gets every event. A full buffer makes `send` wait; nothing is dropped.
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
    """Carries generic events about a kind to whoever receives them."""

    def __init__(self, kind: type[R], *, name: str = "", buffer: int = BUFFER_EVENTS) -> None:
        self.kind = kind
        self.name: str = name or f"{kind.kind.lower()}-channel"
        self._buffer = buffer
        self._receivers: list[asyncio.Queue[Event[R]]] = []

    async def send(self, about: R | ObjectKey) -> None:
        """Tell every receiver to look at an object, or at a key. Waits while a receiver's buffer is full."""
        event = generic_key(self.kind, about) if isinstance(about, ObjectKey) else generic(about)
        for receiver in list(self._receivers):
            await receiver.put(event)

    def attach(self) -> "asyncio.Queue[Event[R]]":
        """A new receiver's buffer; events sent earlier are not in it."""
        receiver: asyncio.Queue[Event[R]] = asyncio.Queue(self._buffer)
        self._receivers.append(receiver)
        return receiver

    def detach(self, receiver: "asyncio.Queue[Event[R]]") -> None:
        """Send no more to the receiver."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)


@final
class ChannelSource(Generic[R]):
    """Delivers what is sent on a channel."""

    def __init__(
        self, channel: Channel[R], handler: Handler[R] = enqueue_self, *, when: Predicate | None = None
    ) -> None:
        self.name: str = channel.name
        self._channel = channel
        self._handler = handler
        self._when = when

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedChannel":
        """Begin to deliver; a task in `scope` takes events off the channel."""
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
            except Exception as error:  # noqa: BLE001 -- a handler is foreign code; the event must not be lost to its bad moment
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
    """A receiver at work."""

    def __init__(self, channel: Channel[Any], receiver: "asyncio.Queue[Event[Any]]") -> None:
        self._channel = channel
        self._receiver = receiver
        self.busy = False
        self.stopped: bool = False

    async def wait_synced(self) -> None:
        """A channel has no past: returns at once."""

    @property
    def synced(self) -> bool:
        """Always."""
        return True

    @property
    def idle(self) -> bool:
        """Nothing is buffered or being handled."""
        return self._receiver.empty() and not self.busy

    @property
    def sync_error(self) -> str:
        """Nothing can go wrong."""
        return ""

    def stop(self) -> None:
        """Receive nothing more; what is buffered is dropped."""
        self.stopped = True
        self._channel.detach(self._receiver)
