"""`Link`: the transport of a cluster whose connection is replaced when its credentials are rotated.

Client, cache and recorder of a cluster keep their `Link`. After `replace`, new requests use the new connection. The old
one is closed when its requests have ended; its watches end then, and resume on the new one. After `revoke` everything
fails with `ClusterRemoved` at once, requests in progress included.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NoReturn, final

from kaito.runtime.client.transport import (
    CONNECT_SECONDS,
    NO_HEADERS,
    REQUEST_SECONDS,
    Reply,
    StreamReply,
    Transport,
    WebSocket,
    WebSocketTransport,
)
from kaito.runtime.errors import ClusterRemoved, ConfigurationError

DRAIN_SECONDS: Final = 5.0
"""Time in which requests on a replaced connection may end."""


@final
class _Connection:
    """A transport, and how many requests use it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def used(self) -> Generator[Transport]:
        """Counts a request."""
        self._requests += 1
        self._idle.clear()
        try:
            yield self.transport
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def wait_idle(self, seconds: float) -> None:
        """Waits until no request uses it, for some seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return


@final
class Link:
    """A transport that can be replaced and revoked while it is in use.

    Args:
        cluster: name of the cluster, for errors.
        transport: the connection.
    """

    def __init__(self, cluster: str, transport: Transport) -> None:
        self._cluster = cluster
        self._connection = _Connection(transport)
        self._replaced: list[_Connection] = []
        self._requests: set[asyncio.Timeout] = set()
        self._revoked = False

    @property
    def host(self) -> str:
        """Host and port of the server."""
        return self._connection.transport.host

    @property
    def open_connections(self) -> int:
        """Number of transports that are not closed; more than one while requests on a replaced one end."""
        return 1 + len(self._replaced)

    async def replace(self, transport: Transport) -> None:
        """Uses another connection from now on; returns when the old one is closed."""
        old, self._connection = self._connection, _Connection(transport)
        self._replaced.append(old)
        try:
            await old.wait_idle(DRAIN_SECONDS)
        finally:
            if old in self._replaced:
                self._replaced.remove(old)
                await old.transport.close()

    def revoke(self) -> None:
        """Fails all requests, those in progress too."""
        self._revoked = True
        now = asyncio.get_running_loop().time()
        for request in self._requests:
            if not request.expired():
                request.reschedule(now)

    async def close(self) -> None:
        """Closes all connections."""
        self._revoked = True
        connections = [self._connection, *self._replaced]
        self._replaced.clear()
        for connection in connections:
            await connection.transport.close()

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        """Sends one request; raises the errors of `Transport.request`, and `ClusterRemoved`."""
        self._check()
        try:
            with self._connection.used() as transport:
                async with asyncio.timeout(None) as revocation:
                    self._requests.add(revocation)
                    try:
                        return await transport.request(method, target, headers=headers, body=body, timeout=timeout)
                    finally:
                        self._requests.discard(revocation)
        except TimeoutError:
            self._refuse()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AsyncGenerator[StreamReply]:
        """Opens a streamed response, which ends with its connection; raises the errors of `request`."""
        self._check()
        transport = self._connection.transport
        async with transport.stream(method, target, headers=headers, connect=connect, idle=idle) as reply:
            yield reply

    @asynccontextmanager
    async def websocket(
        self,
        target: str,
        *,
        protocols: Sequence[str],
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
    ) -> AsyncGenerator[WebSocket]:
        """Opens a WebSocket, which ends with its connection; raises the errors of `WebSocketTransport.websocket`."""
        self._check()
        transport = self._connection.transport
        if not isinstance(transport, WebSocketTransport):
            message = f"cluster {self._cluster}: its transport has no WebSockets"
            raise ConfigurationError(message)
        async with transport.websocket(target, protocols=protocols, headers=headers, connect=connect) as socket:
            yield socket

    def _check(self) -> None:
        if self._revoked:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise ClusterRemoved(self._cluster, "removed from its set")
