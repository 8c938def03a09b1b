"""One watch stream: opens it, splits it into frames, applies time limits, closes it.

The reflector runs one at a time and handles the frames. The stream ends with an `Ending`, or raises the error with
which the server rejected it. A connection on which nothing arrives for too long is closed: HTTP/1.1 has no ping, and a
half-open connection looks exactly like a quiet one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, final

import msgspec

from kaito.runtime.cache.jsontext import LineSplitter, LineTooLong, Raw, shown
from kaito.runtime.cache.reflector.collection import Collection, refusal
from kaito.runtime.cache.reflector.reconnect import Ending
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.client.transport import without_tracebacks
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import TransportError

YIELD_FRAMES: Final = 64
YIELD_BYTES: Final = 256 * 1024
"""Number of frames or bytes after which the task yields to the event loop: about 3 ms of work. Counted, not timed, so
that simulated runs are repeatable."""

SHORT_SECONDS: Final = 1.0
"""A stream that ends within this time, without a frame, is an error (client-go's "very short watch")."""


class Frame(msgspec.Struct, gc=False):
    """One line of a watch: the type of the event, and the object as text."""

    type: str
    object: Raw


Take = Callable[[Frame], Awaitable[Ending | None]]
"""Handles a frame; an ending stops the stream."""

_FRAME = msgspec.json.Decoder(Frame)


@final
class Turn:
    """Counts work and yields to the event loop after enough of it."""

    __slots__ = ("_bytes", "_items")

    def __init__(self) -> None:
        self._items = 0
        self._bytes = 0

    async def worked(self, size: int) -> None:
        """Records an item of `size` bytes."""
        self._items += 1
        self._bytes += size
        if self._items >= YIELD_FRAMES or self._bytes >= YIELD_BYTES:
            self._items = self._bytes = 0
            await asyncio.sleep(0)


@final
class WatchStream:
    """A watch; runs once.

    Args:
        requests: The network.
        target: The target, from the `Collection`.
        collection: For the headers.
        silence: Returns the seconds without data after which the stream is closed; called after every chunk.
        take: Called with every frame, in order.
        opened: Called once when the server accepted the watch.
    """

    def __init__(
        self,
        requests: Requests,
        target: str,
        collection: Collection,
        *,
        silence: Callable[[], float],
        take: Take,
        opened: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._target = target
        self._headers = collection.watch_headers
        self._silence = silence
        self._take = take
        self._opened = opened
        self._accepted = False
        self._frames = 0
        self._limit: asyncio.Timeout | None = None
        self._given_up: Ending | None = None
        self.error: Exception | None = None
        """The error that broke the stream, for the log and for readiness."""

    async def run(self) -> Ending:
        """Opens the stream and passes its frames on until it ends."""
        started = monotonic()
        try:
            async with asyncio.timeout(self._silence()) as self._limit:
                ending = await self._read(self._limit)
        except TimeoutError:
            return self._given_up or Ending.STALLED
        except TransportError as error:
            self.error = without_tracebacks(error)  # which refer to this stream, and the stream to the error
            return Ending.RESET if self._worked(started) else Ending.BROKEN
        except LineTooLong as error:
            self.error = without_tracebacks(error)
            return Ending.MALFORMED
        return Ending.EMPTY if ending is Ending.CLOSED and not self._worked(started) else ending

    def give_up(self, ending: Ending) -> None:
        """Ends the stream now, from another task."""
        self._given_up = ending
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(monotonic())

    def _worked(self, started: float) -> bool:
        return self._accepted and (self._frames > 0 or monotonic() - started >= SHORT_SECONDS)

    async def _read(self, limit: asyncio.Timeout) -> Ending:
        lines = LineSplitter()
        turn = Turn()
        async with self._requests.stream(self._target, self._headers) as reply:
            if reply.status != 200:
                raise refusal(reply.status, reply.headers, await reply.read(), request=f"GET {self._target}")
            self._accepted = True
            self._opened()
            async with _closing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    limit.reschedule(None)  # Time spent on our own work is not silence of the server.
                    for line in lines.feed(chunk):
                        ending = await self._line(line)
                        if ending is not None:
                            return ending
                        await turn.worked(len(line))
                    if self._given_up is not None:
                        return self._given_up
                    limit.reschedule(monotonic() + self._silence())
            rest = lines.rest()
            ending = await self._line(rest) if rest else None
            return ending or Ending.CLOSED

    async def _line(self, line: bytes) -> Ending | None:
        try:
            frame = _FRAME.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.error = ValueError(f"not a watch event: {shown(line)}: {error}")
            return Ending.MALFORMED
        self._frames += 1
        return await self._take(frame)


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Closes a generator that is left early; otherwise the loop would close it in another task."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
