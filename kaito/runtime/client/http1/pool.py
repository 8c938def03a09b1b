"""Pool of connections to one server: the connection that was used last is used first, idle ones are closed.

`kaito.runtime.client.http` has one pool per version of the certificates and limits the number of requests.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import aiohappyeyeballs

from kaito.runtime.client.http1.connection import Connection, Disconnected, handshake
from kaito.runtime.client.http1.stream import ResponseStream
from kaito.runtime.client.sockets import keepalive_socket
from kaito.runtime.client.transport import Reply, check_send_guard, without_tracebacks
from kaito.runtime.clock import monotonic

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that are sent again if an idle connection turns out to be closed (RFC 9110, section 9.2.2)."""

_NEXT_ADDRESS_SECONDS: Final = 0.25
"""Time after which a connection to the next address of a host is started in parallel (RFC 8305)."""


Address = tuple[int, int, int, str, tuple[Any, ...]]
"""Address as `getaddrinfo` returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how to connect."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    """Context of TLS; None for plain TCP."""
    server_name: str
    """Name that the server's certificate must contain."""
    connect_seconds: float
    """Time limit of a connection with its handshake."""
    idle_seconds: float
    """Time after which an idle connection is closed."""
    on_lookup: Callable[[str, float], None]
    """Called with the host and the duration in seconds of every DNS lookup."""


@final
class ConnectionPool:
    """Connections to one endpoint, bound to the event loop of the first request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[tuple[float, Connection]] = []
        self._open: set[Connection] = set()
        self._streams: set[ResponseStream] = set()
        self._expiry: asyncio.TimerHandle | None = None

    async def request(self, method: str, data: bytes) -> Reply:
        """Sends a request and returns the complete response.

        A connection that was idle may have been closed by the server at the same moment. The request is then repeated
        on another one, unless the server may have received it and the method is not idempotent.

        Args:
            method: method of the request.
            data: the whole request.

        Raises:
            OSError: the connection could not be opened or failed, or the response is malformed.
        """
        while True:
            connection = self._take_idle()
            was_idle = connection is not None
            if connection is None:
                connection = Connection(await self._connect(self._endpoint.connect_seconds), self._open.discard)
                self._open.add(connection)
            try:
                # Waiting for DNS and TLS may take seconds, and the process may be suspended meanwhile.
                check_send_guard()
            except BaseException:
                self._put_idle(connection)
                raise
            try:
                reply = await connection.exchange(method, data)
            except Disconnected as error:
                if was_idle and (method in IDEMPOTENT or not error.sent):
                    continue
                raise
            self._put_idle(connection)
            return reply

    async def stream(self, method: str, data: bytes, *, connect: float, idle: float | None) -> ResponseStream:
        """Sends a request on a new connection and returns the response once its head has arrived.

        Args:
            method: method of the request.
            data: the whole request.
            connect: time limit of the connection in seconds.
            idle: time in seconds without data after which the stream fails; None for no limit.

        Raises:
            OSError: the connection could not be opened or failed, or the response is malformed.
        """
        sock = await self._connect(connect)
        try:
            check_send_guard()
        except BaseException:
            sock.close()
            raise
        stream = ResponseStream(sock, method, idle=idle, on_close=self._streams.discard)
        self._streams.add(stream)
        await stream.begin(data)
        return stream

    def close(self) -> None:
        """Closes all connections; requests that are under way fail."""
        self._idle.clear()
        for stream in list(self._streams):
            stream.abort()
        for connection in list(self._open):
            connection.close()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _take_idle(self) -> Connection | None:
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    def _put_idle(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        self._idle.append((monotonic(), connection))
        if self._expiry is None:
            self._schedule_expiry(self._endpoint.idle_seconds)

    def _schedule_expiry(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Closes connections that were idle too long; they are the first ones of the list."""
        self._expiry = None
        oldest = monotonic() - self._endpoint.idle_seconds
        expired = [connection for since, connection in self._idle if since <= oldest or not connection.is_open]
        self._idle = [entry for entry in self._idle if entry[1] not in expired]
        for connection in expired:
            connection.close()
        if self._idle:
            self._schedule_expiry(self._idle[0][0] - oldest)

    async def _connect(self, seconds: float) -> socket.socket:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._connected_socket()
        except TimeoutError as error:
            if not limit.expired():  # the operating system's
                raise
            message = f"no connection to {self._endpoint.host}:{self._endpoint.port} within {seconds:g} s"
            raise TimeoutError(message) from without_tracebacks(error)

    async def _connected_socket(self) -> socket.socket:
        addresses = await self._resolve()
        sock = await aiohappyeyeballs.start_connection(  # pyright: ignore[reportUnknownMemberType]
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, socket_factory=keepalive_socket
        )
        if self._endpoint.tls is None:
            return sock
        return await handshake(sock, self._endpoint.tls, self._endpoint.server_name)

    async def _resolve(self) -> Sequence[Address]:
        """Returns the addresses of the host. Numeric hosts, as in pods, need no lookup."""
        host, port = self._endpoint.host, self._endpoint.port
        family = _family_of(host)
        if family is not None:
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", _numeric(family, host, port))]
        began = monotonic()
        try:
            return await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_ADDRCONFIG
            )
        finally:
            self._endpoint.on_lookup(host, monotonic() - began)


def _family_of(host: str) -> int | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return family
    return None


def _numeric(family: int, host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if family == socket.AF_INET:
        return host, port
    address, _, zone = host.partition("%")
    return address, port, 0, socket.if_nametoindex(zone) if zone else 0
