"""HTTP transport for processes that run for months.

The manager creates one per process (leader election a second one, in a separate event loop). Requests and watches use
separate connection pools, so that requests never wait for watches: requests use the connections of `http1`, watches and
requests through a proxy those of aiohttp. Every request has a time limit, every stream an idle limit. Credentials are
read per request and renewed on 401. When a CA or client certificate changes on disk, new requests use a new pool, and
the old one closes after its last response. Exceptions of connections are converted to `TransportError`.
"""

import asyncio
import base64
import io
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, final

import aiohttp
import yarl
from aiohttp.abc import ResolveResult
from multidict import CIMultiDict

from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.fencing import FencedConnector
from kaito.runtime.client.http1 import ConnectionPool, Endpoint
from kaito.runtime.client.http1.request import request_bytes
from kaito.runtime.client.sockets import keepalive_socket
from kaito.runtime.client.tls import client_context, fingerprint
from kaito.runtime.client.transport import CONNECT_SECONDS, NO_HEADERS, REQUEST_SECONDS, Reply, without_tracebacks
from kaito.runtime.clock import monotonic
from kaito.runtime.deadlines import Deadlines
from kaito.runtime.errors import ConfigurationError, RequestTimeout, TransportError
from kaito.runtime.logging import get_logger

UNARY_CONNECTIONS = 64
"""Maximum number of connections for requests; further requests wait for one, within their time limit."""

HEADER_SECONDS = 30.0
"""Time limit for the response headers of a stream, to detect a server that accepts connections and does not respond."""

KEEPALIVE_SECONDS = 90.0
"""Idle connections are closed after this time (Go's default transport)."""

TLS_CHECK_SECONDS = 60.0
"""Interval of checking certificate files for changes."""

WHOLE_BODY_BYTES = 2**16
"""Longest body that is written in one call; longer ones are split, so that writing does not block the event loop."""

DIRECT = True
"""Whether requests without a proxy use `http1`, which takes less CPU than aiohttp. Tests run with both."""

_REQUEST_ERRORS = (aiohttp.ClientError, OSError)
"""Exceptions of failed requests; `TimeoutError` and `ssl.SSLError` are `OSError`s."""

_log = get_logger(__name__)


class _TimedResolver(aiohttp.ThreadedResolver):
    """Resolver that reports the duration of lookups. Numeric hosts, as in pods, are not resolved."""

    def __init__(self, on_lookup: Callable[[str, float], None]) -> None:
        super().__init__()
        self._on_lookup = on_lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        began = monotonic()
        try:
            return await super().resolve(host, port, family)
        finally:
            self._on_lookup(host, monotonic() - began)


@final
class _Pool:
    """The sessions for requests and watches that use one version of the certificates."""

    def __init__(self, endpoint: Endpoint, tls_digest: bytes, *, direct: bool) -> None:
        self.tls_digest = tls_digest
        self.connection_waits = 0
        self.unary = ConnectionPool(endpoint) if direct else self._session(endpoint.tls, endpoint.on_lookup)
        self.watches = self._session(endpoint.tls, endpoint.on_lookup)
        self.users = 0
        self._slots = asyncio.Semaphore(UNARY_CONNECTIONS)

    @staticmethod
    def _session(context: ssl.SSLContext | None, on_lookup: Callable[[str, float], None]) -> aiohttp.ClientSession:
        connector = FencedConnector(
            limit=0,  # `slot` limits requests; watches are not limited
            ssl=context if context is not None else True,
            keepalive_timeout=KEEPALIVE_SECONDS,
            socket_factory=keepalive_socket,
            resolver=_TimedResolver(on_lookup),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # would read ~/.netrc in a thread for every request; `ClusterConfig` names the proxy
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            read_bufsize=2**18,
        )

    def slot(self) -> asyncio.Semaphore:
        """Return the semaphore that limits connections for requests; hold it during a request."""
        self.connection_waits += self._slots.locked()
        return self._slots

    @contextmanager
    def used(self) -> Generator[None]:
        """Keep the pool open for the duration of the scope."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def close(self) -> None:
        """Close all connections at once; readers get an error."""
        if isinstance(self.unary, ConnectionPool):
            self.unary.close()
        else:
            await self.unary.close()
        await self.watches.close()


@final
@dataclass(frozen=True, slots=True)
class _HttpStream:
    """Response whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    _content: aiohttp.StreamReader
    _what: str

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        while True:
            try:
                chunk = await self._content.readany()
            except _REQUEST_ERRORS as error:
                raise _translated(self._what, error) from without_tracebacks(error)
            if not chunk:
                return
            yield chunk

    async def read(self) -> bytes:
        """Read the rest of the body."""
        return b"".join([chunk async for chunk in self.chunks()])


@final
class HttpTransport:
    """Requests to one API server over HTTP/1.1.

    Args:
        config: Address and credentials.
        on_lookup: Called with the host and the duration in seconds of every DNS lookup.
    """

    def __init__(self, config: ClusterConfig, *, on_lookup: Callable[[str, float], None] = lambda _, __: None) -> None:
        """Create a transport without connecting. It is bound to the event loop of its first request."""
        self._config = config
        self._on_lookup = on_lookup
        self._base = config.server.rstrip("/")
        self._server = yarl.URL(self._base)
        self._prefix = self._server.raw_path.rstrip("/")
        self._host = self._server.host_port_subcomponent or ""
        self._secure = self._base.startswith("https:")
        proxy = yarl.URL(config.proxy)
        self._proxy = proxy.with_user(None) if config.proxy else None  # aiohttp shows it in errors
        self._proxy_login = _proxy_login(proxy)
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
        return self._server.authority

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
        """Send one request and read the complete response; raises the errors of `Transport.request`."""
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
        sent = self._headers(headers, authorization)
        pool.users += 1
        try:
            async with pool.slot():
                if isinstance(pool.unary, ConnectionPool):
                    data = request_bytes(method, self._prefix + target, self._host, sent, body)
                    return await pool.unary.request(method, data), authorization
                return await self._proxied(pool.unary, method, target, sent, body), authorization
        except _REQUEST_ERRORS as error:
            raise self._connection_error(f"{method} {target}", error) from without_tracebacks(error)
        finally:
            pool.users -= 1

    async def _proxied(
        self, session: aiohttp.ClientSession, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        """Sends a request with aiohttp, which supports proxies."""
        data = io.BytesIO(body) if body is not None and len(body) > WHOLE_BODY_BYTES else body
        async with session.request(
            method, self._url(target), headers=headers, data=data, **self._options()
        ) as response:
            return Reply(response.status, _lower(response.headers), await response.read())

    def _connection_error(self, what: str, error: Exception) -> TransportError:
        """Convert the error, and check the certificate files before the next connection, in case the CA was rotated."""
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
        """Open a streamed response; raises the errors of `Transport.stream`.

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
        limits = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=idle)
        for final_try in (False, True):
            authorization = await self._config.credentials.header()
            pool = await self._current_pool()
            with pool.used():
                request = pool.watches.request(
                    method, self._url(target), headers=self._headers(headers, authorization), timeout=limits,
                    data=body, **self._options(),
                )  # fmt: skip
                response = await self._open(request, f"{method} {target}", header_seconds)
                try:
                    if response.status != 401 or final_try or not await self._config.credentials.renew(authorization):
                        yield _HttpStream(response.status, _lower(response.headers), response.content, what)
                        return
                finally:
                    response.close()  # a stream is usually not read to its end, so its connection cannot be reused

    async def _open(
        self, request: Awaitable[aiohttp.ClientResponse], what: str, header_seconds: float
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(header_seconds):
                return await request
        except _REQUEST_ERRORS as error:
            raise self._connection_error(what, error) from without_tracebacks(error)

    def _url(self, target: str) -> yarl.URL:
        return yarl.URL(self._base + target, encoded=True)

    def _headers(self, headers: Mapping[str, str], authorization: str) -> Mapping[str, str]:
        made = {"accept-encoding": "identity", **self._config.headers, **headers}
        if authorization:
            made["authorization"] = authorization
        if not self._secure:
            made |= self._proxy_login  # without TLS there is no tunnel: the proxy reads the headers of the request
        if self._config.impersonation:
            return CIMultiDict([*made.items(), *self._config.impersonation])
        return made

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"allow_redirects": False}
        if self._proxy is not None:
            options["proxy"] = self._proxy
            if self._secure and self._proxy_login:
                options["proxy_headers"] = self._proxy_login  # of the CONNECT request
        if self._config.tls.server_name and self._secure:
            options["server_hostname"] = self._config.tls.server_name
        return options

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
        """Return the same pool, or a new one if the certificates changed."""
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
        renewed = _Pool(self._endpoint(context), tls_digest, direct=DIRECT and self._proxy is None)
        self._pool = renewed
        if pool is not None:
            self._retired.append(pool)
            self._past_connection_waits += pool.connection_waits
            _log.info("certificates changed, using new connections", host=self.host)
        return renewed

    def _endpoint(self, context: ssl.SSLContext | None) -> Endpoint:
        host = self._server.host or ""
        return Endpoint(
            host=host,
            port=self._server.port or (443 if self._secure else 80),
            tls=context,
            server_name=self._config.tls.server_name or host,
            connect_seconds=CONNECT_SECONDS,
            idle_seconds=KEEPALIVE_SECONDS,
            on_lookup=self._on_lookup,
        )

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        pools = [*self._retired, *([self._pool] if self._pool is not None else [])]
        self._retired, self._pool = [], None
        for pool in pools:
            await pool.close()
        self._deadlines.close()
        await asyncio.sleep(0)  # asyncio closes the sockets of its transports in the next turn of the loop


def _proxy_login(proxy: yarl.URL) -> dict[str, str]:
    """Return the header for the credentials in the URL of a proxy, if it contains any."""
    if proxy.user is None and proxy.password is None:
        return {}
    login = base64.b64encode(f"{proxy.user or ''}:{proxy.password or ''}".encode()).decode()
    return {"proxy-authorization": f"Basic {login}"}


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    lowered: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
    return lowered


def _translated(what: str, error: Exception) -> TransportError:
    """Convert an exception of aiohttp or the operating system."""
    if isinstance(error, TimeoutError):  # also aiohttp's ServerTimeoutError: connect, sock_read
        return RequestTimeout(f"{what}: {str(error) or 'timed out'}")
    return TransportError(f"{what}: {str(error) or type(error).__name__}")
