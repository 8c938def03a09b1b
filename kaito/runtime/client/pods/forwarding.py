"""Connections to a port of a pod, and a local port in front of it.

The protocol is the one without SPDY: a WebSocket for each connection with the subprotocol `v4.channel.k8s.io`, whose
channel 0 carries the data and channel 1 an error. The first message of each contains the number of the port. It has no
end of one direction: a connection is closed as a whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, final

from kaito.runtime.client.transport import WebSocket
from kaito.runtime.errors import KaitoRuntimeError, TransportError
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskScope

MESSAGE_BYTES: Final = 2**15
LINGER_SECONDS: Final = 5.0
"""After the local side has ended its direction, the connection is closed when the pod sends nothing for this time."""

_DATA, _ERROR = b"\x00", b"\x01"
_PORT_BYTES: Final = 2

_log = get_logger(__name__)


@final
class PodConnection:
    """A connection to a port of a pod; made by `Pods.connect`."""

    def __init__(self, socket: WebSocket, what: str) -> None:
        self._socket = socket
        self._what = what
        self._begun: set[bytes] = set()

    async def send(self, data: bytes) -> None:
        """Sends data; waits while the pod reads more slowly. Raises `TransportError` if the connection was lost."""
        for position in range(0, len(data), MESSAGE_BYTES):
            await self._socket.send(_DATA + data[position : position + MESSAGE_BYTES])

    async def receive(self) -> bytes:
        """Returns the next part of the data; empty at its end.

        Raises:
            TransportError: the connection was lost, or the port does not accept connections.
        """
        while True:
            message = await self._socket.receive()
            if message is None:
                return b""
            channel, data = message[:1], message[1:]
            if channel not in self._begun:
                self._begun.add(channel)
                data = data[_PORT_BYTES:]
            if channel == _ERROR and data:
                raise TransportError(f"{self._what}: {data.decode(errors='replace').strip()}")
            if channel == _DATA and data:
                return data


@asynccontextmanager
async def local_port(
    connect: Callable[[], AbstractAsyncContextManager[PodConnection]], host: str, port: int
) -> AsyncGenerator[int]:
    """Listens on a local port, and connects every connection to the pod; yields the number of the port."""
    open_connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            open_connections.add(task)
            task.add_done_callback(open_connections.discard)
        try:
            await _serve(connect, reader, writer)
        except asyncio.CancelledError:
            pass  # the scope has ended; asyncio would report the cancellation of a handler
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tuple(open_connections):
            task.cancel()
        if open_connections:
            await asyncio.wait(open_connections)


async def _serve(
    connect: Callable[[], AbstractAsyncContextManager[PodConnection]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Connects one local connection to the pod; failures are logged."""
    try:
        async with connect() as connection:
            await _copy_both(connection, reader, writer)
    except* KaitoRuntimeError as group:  # both directions may fail at once
        _log.warning("forwarded connection failed", error=str(group.exceptions[0]))


async def _copy_both(connection: PodConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies in both directions until the pod closes, or a while after the local side has ended its direction."""
    received = 0

    async def upload() -> None:
        with suppress(OSError):  # the local side was reset
            while data := await reader.read(MESSAGE_BYTES):
                await connection.send(data)

    async def download() -> None:
        nonlocal received
        with suppress(OSError):
            while data := await connection.receive():
                received += len(data)
                writer.write(data)
                await writer.drain()

    async with TaskScope("forward") as scope:
        uploading, downloading = scope.spawn(upload(), name="upload"), scope.spawn(download(), name="download")
        await asyncio.wait([uploading, downloading], return_when=asyncio.FIRST_COMPLETED)
        before = -1
        while not downloading.done() and before != received:
            before = received
            await asyncio.wait([downloading], timeout=LINGER_SECONDS)
