"""HTTP transport for processes that run for months.

The manager creates one per process (leader election a second one, in a separate event loop). Requests and watches use
the connections of `http1`; through a proxy they use aiohttp, which is imported only then. A watch has a connection of
its own, so that requests never wait for watches. Every request has a time limit, every stream an idle limit.
Credentials are read per request and renewed on 401. When a CA or client certificate changes on disk, new requests use a
new pool, and the old one closes after its last response. Exceptions of connections are converted to `TransportError`.
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, final
from urllib.parse import unquote, urlsplit

from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.http1 import ConnectionPool, Endpoint, ResponseStream
from kaito.runtime.client.http1.request import request_bytes
from kaito.runtime.client.server_address import ServerAddress
from kaito.runtime.client.tls import client_context, fingerprint
from kaito.runtime.client.transport import (
    CONNECT_SECONDS,
    NO_HEADERS,
    REQUEST_SECONDS,
    Reply,
    UpgradeRefused,
    without_tracebacks,
)
from kaito.runtime.clock import monotonic
from kaito.runtime.deadlines import Deadlines
from kaito.runtime.errors import ConfigurationError, RequestTimeout, TransportError
from kaito.runtime.logging import get_logger

if TYPE_CHECKING:
    from kaito.runtime.client.proxied import ProxiedSession, ProxiedStream
    from kaito.runtime.client.websocket import HttpWebSocket

UNARY_CONNECTIONS = 64
"""Maximum number of connections for requests; further requests wait for one, within their time limit."""

HEADER_SECONDS = 30.0
"""Time limit for the response headers of a stream, to detect a server that accepts connections and does not respond."""

KEEPALIVE_SECONDS = 90.0
"""Idle connections are closed after this time (Go's default transport)."""

TLS_CHECK_SECONDS = 60.0
"""Interval of checking certificate files for changes."""

_COMPRESSED = {"accept-encoding": "gzip"}
"""Header of reads. API servers compress responses of more than 128 KiB, that is lists. Measured with 5,000 pods: 6 to
20 times fewer bytes, and 12 ms more CPU time at most. Streams are not compressed."""

DIRECT = True
"""Whether requests and streams without a proxy use `http1`, which takes less CPU than aiohttp. Tests run with both."""

_log = get_logger(__name__)


_Headers = Sequence[tuple[str, str]]


@final
class _Pool:
    """The connections that use one version of the certificates."""

    def __init__(self, connections: "ConnectionPool | ProxiedSession", endpoint: Endpoint, tls_digest: bytes) -> None:
        self.tls_digest = tls_digest
        self.endpoint = endpoint
        self.connection_waits = 0
        self.connections = connections
        self.users = 0
        self._slots = asyncio.Semaphore(UNARY_CONNECTIONS)

    def slot(self) -> asyncio.Semaphore:
        """Returns the semaphore that limits connections for requests; hold it during a request."""
        self.connection_waits += self._slots.locked()
        return self._slots

    @contextmanager
    def used(self) -> Generator[None]:
        """Keeps the pool open for the duration of the scope."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def close(self) -> None:
        """Closes all connections at once; readers get an error."""
        if isinstance(self.connections, ConnectionPool):
            self.connections.close()
        else:
            await self.connections.close()


@final
@dataclass(frozen=True, slots=True)
class _HttpStream:
    """Response whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    _source: "ResponseStream | ProxiedStream"
    _what: str

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives."""
        while True:
            try:
                chunk = await self._source.next_chunk()
            except OSError as error:
                raise _translated(self._what, error) from without_tracebacks(error)
            if not chunk:
                return
            yield chunk

    async def read(self) -> bytes:
        """Reads the rest of the body."""
        return b"".join([chunk async for chunk in self.chunks()])


@final
class HttpTransport:
    """Requests to one API server over HTTP/1.1.

    Args:
        config: Address and credentials.
        on_lookup: Called with the host and the duration in seconds of every DNS lookup.
    """

    def __init__(self, config: ClusterConfig, *, on_lookup: Callable[[str, float], None] = lambda _, __: None) -> None:
        """Creates a transport without connecting. It is bound to the event loop of its first request."""
        self._config = config
        self._on_lookup = on_lookup
        self._address = ServerAddress.parse(config.server)
        self._secure = self._address.secure
        self._proxy_login = _proxy_login(config.proxy)
        self._pool: _Pool | None = None
        self._retired: list[_Pool] = []
        self._checked_at = 0.0
        self._opening = asyncio.Lock()
        self._closed = False
        self._past_connection_waits = 0
        self._deadlines = Deadlines()

    @property
    def host(self) -> str:
        """Host and port of the server."""
        return self._address.authority

    @property
    def connection_waits(self) -> int:
        """Number of requests that had to wait for a connection; if it grows, reduce the number of workers."""
        return self._past_connection_waits + (self._pool.connection_waits if self._pool is not None else 0)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        """Sends one request and reads the complete response; raises the errors of `Transport.request`."""
        what = f"{method} {target}"
        try:
            with self._deadlines.limit(timeout):
                reply, sent = await self._unary(method, target, headers, body)
                if reply.status == 401 and await self._config.credentials.renew(sent):
                    reply, _ = await self._unary(method, target, headers, body)
                return reply
        except TimeoutError as error:
            message = f"{what}: no response within {timeout:g} s"
            raise RequestTimeout(message) from without_tracebacks(error)

    async def _unary(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[Reply, str]:
        authorization = await self._config.credentials.header()
        pool = await self._current_pool()
        sent = self._headers(_COMPRESSED | dict(headers) if method == "GET" else headers, authorization)
        pool.users += 1
        try:
            async with pool.slot():
                if isinstance(pool.connections, ConnectionPool):
                    data = self._request_bytes(method, target, sent, body)
                    return await pool.connections.request(method, data), authorization
                return await pool.connections.request(method, target, sent, body), authorization
        except OSError as error:  # also `TimeoutError` and `ssl.SSLError`
            raise self._connection_error(f"{method} {target}", error) from without_tracebacks(error)
        finally:
            pool.users -= 1

    def _request_bytes(self, method: str, target: str, headers: _Headers, body: bytes | None = None) -> bytes:
        return request_bytes(method, self._address.prefix + target, self._address.host_header, headers, body)

    def _connection_error(self, what: str, error: Exception) -> TransportError:
        """Converts the error, and checks the certificate files before the next connection, in case the CA was
        rotated."""
        self._checked_at = -TLS_CHECK_SECONDS
        return _translated(what, error)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
        header_seconds: float = HEADER_SECONDS,
    ) -> AsyncGenerator[_HttpStream]:
        """Opens a streamed response; raises the errors of `Transport.stream`.

        Args:
            method: Method of the request.
            target: Encoded path with its query.
            headers: Headers of the request.
            body: Body of the request, for a POST through the API server's proxy.
            connect: Time limit for opening the connection.
            idle: Time without data after which the stream fails.
            header_seconds: Time limit until the response begins.
        """
        what = f"{method} {target}"
        for final_try in (False, True):
            authorization = await self._config.credentials.header()
            pool = await self._current_pool()
            with pool.used():
                sent = self._headers(headers, authorization)
                begun = self._begin(pool, method, target, sent, body, connect=connect, idle=idle)
                response = await self._open(begun, what, header_seconds)
                try:
                    if response.status != 401 or final_try or not await self._config.credentials.renew(authorization):
                        yield _HttpStream(response.status, response.headers, response, what)
                        return
                finally:
                    response.close()  # a stream is usually not read to its end, so its connection cannot be reused

    async def _open(
        self, begun: Awaitable["ResponseStream | ProxiedStream"], what: str, header_seconds: float
    ) -> "ResponseStream | ProxiedStream":
        try:
            async with asyncio.timeout(header_seconds):
                return await begun
        except OSError as error:
            raise self._connection_error(what, error) from without_tracebacks(error)

    async def _begin(
        self,
        pool: _Pool,
        method: str,
        target: str,
        headers: _Headers,
        body: bytes | None,
        *,
        connect: float,
        idle: float | None,
    ) -> "ResponseStream | ProxiedStream":
        if isinstance(pool.connections, ConnectionPool):
            data = self._request_bytes(method, target, headers, body)
            return await pool.connections.stream(method, data, connect=connect, idle=idle)
        return await pool.connections.stream(method, target, headers, body, connect=connect, idle=idle)

    @asynccontextmanager
    async def websocket(
        self,
        target: str,
        *,
        protocols: Sequence[str],
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
    ) -> AsyncGenerator["HttpWebSocket"]:
        """Opens a WebSocket; raises the errors of `WebSocketTransport.websocket`."""
        from kaito.runtime.client.websocket import open_websocket

        what = f"GET {target.partition('?')[0]}"
        for final_try in (False, True):
            authorization = await self._config.credentials.header()
            pool = await self._current_pool()
            async with AsyncExitStack() as stack:
                stack.enter_context(pool.used())
                opening = open_websocket(
                    self._config,
                    pool.endpoint,
                    target,
                    protocols=protocols,
                    headers=self._headers(headers, authorization),
                    login=self._proxy_login,
                    connect=connect,
                    header_seconds=HEADER_SECONDS,
                )
                try:
                    socket = await stack.enter_async_context(opening)
                except UpgradeRefused as refused:
                    if (
                        refused.reply.status != 401
                        or final_try
                        or not await self._config.credentials.renew(authorization)
                    ):
                        raise
                    continue
                except OSError as error:
                    raise self._connection_error(what, error) from without_tracebacks(error)
                yield socket
                return

    def _headers(self, headers: Mapping[str, str], authorization: str) -> _Headers:
        made = {"accept-encoding": "identity", **self._config.headers, **headers}
        if authorization:
            made["authorization"] = authorization
        if not self._secure:
            made |= self._proxy_login  # without TLS there is no tunnel: the proxy reads the headers of the request
        return [*made.items(), *self._config.impersonation]

    async def _current_pool(self) -> _Pool:
        self._check_open()
        for retired in [retired for retired in self._retired if not retired.users]:
            self._retired.remove(retired)
            await retired.close()
        if self._pool is not None and not self._is_check_due():
            return self._pool
        async with self._opening:
            self._check_open()
            pool = self._pool  # another request may have renewed it meanwhile
            if pool is None or self._is_check_due():
                self._checked_at = monotonic()
                pool = await self._renewed_pool(pool)
                self._check_open()
            return pool

    def _check_open(self) -> None:
        if self._closed:
            message = f"{self.host}: the transport is closed"
            raise TransportError(message)

    def _is_check_due(self) -> bool:
        return self._secure and monotonic() - self._checked_at >= TLS_CHECK_SECONDS

    async def _renewed_pool(self, pool: _Pool | None) -> _Pool:
        """Returns the same pool, or a new one if the certificates changed."""
        material = self._config.tls
        tls_digest = await asyncio.to_thread(fingerprint, material) if self._secure else b""
        if pool is not None and pool.tls_digest == tls_digest:
            return pool
        try:
            context = await asyncio.to_thread(client_context, material) if self._secure else None
        except ConfigurationError as error:
            if pool is None:
                raise
            _log.warning("changed certificates are invalid, keeping the previous ones", error=str(error))
            return pool
        self._check_open()
        endpoint = self._endpoint(context)
        renewed = _Pool(self._connections(endpoint), endpoint, tls_digest)
        self._pool = renewed
        if pool is not None:
            self._retired.append(pool)
            self._past_connection_waits += pool.connection_waits
            _log.info("certificates changed, using new connections", host=self.host)
        return renewed

    def _connections(self, endpoint: Endpoint) -> "ConnectionPool | ProxiedSession":
        if DIRECT and not self._config.proxy:
            return ConnectionPool(endpoint)
        from kaito.runtime.client.proxied import ProxiedSession

        return ProxiedSession(self._config, endpoint, self._proxy_login)

    def _endpoint(self, context: ssl.SSLContext | None) -> Endpoint:
        return Endpoint(
            host=self._address.host,
            port=self._address.port,
            tls=context,
            server_name=self._config.tls.server_name or self._address.host,
            connect_seconds=CONNECT_SECONDS,
            idle_seconds=KEEPALIVE_SECONDS,
            on_lookup=self._on_lookup,
        )

    async def close(self) -> None:
        """Closes every connection."""
        self._closed = True
        pools = [*self._retired, *([self._pool] if self._pool is not None else [])]
        self._retired, self._pool = [], None
        for pool in pools:
            await pool.close()
        self._deadlines.close()
        await asyncio.sleep(0)  # asyncio closes the sockets of its transports in the next turn of the loop


def _proxy_login(url: str) -> dict[str, str]:
    """Returns the header for the credentials in the URL of a proxy, if it contains any."""
    proxy = urlsplit(url)
    if proxy.username is None and proxy.password is None:
        return {}
    login = base64.b64encode(f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()).decode()
    return {"proxy-authorization": f"Basic {login}"}


def _translated(what: str, error: Exception) -> TransportError:
    """Converts an exception of a connection."""
    if isinstance(error, TimeoutError):
        return RequestTimeout(f"{what}: {str(error) or 'timed out'}")
    return TransportError(f"{what}: {str(error) or type(error).__name__}")
