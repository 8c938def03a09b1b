"""Requests and streams with aiohttp, which supports proxies. `http` uses it if a proxy is configured."""

import io
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import aiohttp
import yarl
from aiohttp.abc import ResolveResult
from multidict import CIMultiDict

from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.fencing import FencedConnector
from kaito.runtime.client.http1 import Endpoint
from kaito.runtime.client.sockets import keepalive_socket
from kaito.runtime.client.transport import Reply, without_tracebacks
from kaito.runtime.clock import monotonic

WHOLE_BODY_BYTES = 2**16
"""Longest body that is written in one call; longer ones are split, so that writing does not block the event loop."""

BUFFER_BYTES = 2**18


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
class ProxiedStream:
    """A response whose body is still arriving."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status: int = response.status
        self.headers: Mapping[str, str] = _lower(response.headers)

    async def next_chunk(self) -> bytes:
        """Returns the next part of the body; empty at its end. Raises `OSError` if the connection fails."""
        try:
            return await self._response.content.readany()
        except aiohttp.ClientError as error:
            raise _as_os_error(error) from without_tracebacks(error)
        except RuntimeError as error:  # the session was closed meanwhile
            raise ConnectionError(str(error)) from without_tracebacks(error)

    def close(self) -> None:
        """Closes the connection."""
        self._response.close()


@final
class ProxiedSession:
    """A session of aiohttp, with the interface of `ConnectionPool`.

    Args:
        config: address, proxy and headers.
        endpoint: TLS and limits of connections.
        login: headers with the credentials of the proxy.
    """

    def __init__(self, config: ClusterConfig, endpoint: Endpoint, login: Mapping[str, str]) -> None:
        self._base = config.server.rstrip("/")
        proxy = yarl.URL(config.proxy)
        self._options: dict[str, Any] = {"allow_redirects": False}
        if config.proxy:
            self._options["proxy"] = proxy.with_user(None)  # aiohttp shows it in errors
            if endpoint.tls is not None and login:
                self._options["proxy_headers"] = login  # of the CONNECT request
        if config.tls.server_name and endpoint.tls is not None:
            self._options["server_hostname"] = config.tls.server_name
        self._connect_seconds = endpoint.connect_seconds
        connector = FencedConnector(
            limit=0,  # the transport limits requests; streams are not limited
            ssl=endpoint.tls if endpoint.tls is not None else True,
            keepalive_timeout=endpoint.idle_seconds,
            socket_factory=keepalive_socket,
            resolver=_TimedResolver(endpoint.on_lookup),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # would read ~/.netrc in a thread for every request; `ClusterConfig` names the proxy
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=endpoint.connect_seconds),
            read_bufsize=BUFFER_BYTES,
        )

    async def request(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | None) -> Reply:
        """Sends a request and returns the complete response. Raises `OSError`."""
        try:
            async with self._session.request(
                method, self._url(target), headers=CIMultiDict(headers), data=_payload(body), **self._options
            ) as response:
                return Reply(response.status, _lower(response.headers), await response.read())
        except aiohttp.ClientError as error:
            raise _as_os_error(error) from without_tracebacks(error)

    async def stream(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
        *,
        connect: float,
        idle: float | None,
    ) -> ProxiedStream:
        """Sends a request and returns the response once its head has arrived. Raises `OSError`."""
        limits = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=idle)
        try:
            response = await self._session.request(
                method,
                self._url(target),
                headers=CIMultiDict(headers),
                data=_payload(body),
                timeout=limits,
                **self._options,
            )
        except aiohttp.ClientError as error:
            raise _as_os_error(error) from without_tracebacks(error)
        return ProxiedStream(response)

    async def close(self) -> None:
        """Closes all connections at once; readers get an error."""
        await self._session.close()

    def _url(self, target: str) -> yarl.URL:
        return yarl.URL(self._base + target, encoded=True)


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if body is not None and len(body) > WHOLE_BODY_BYTES else body


def _as_os_error(error: aiohttp.ClientError) -> OSError:
    """Converts an exception of aiohttp; its timeouts and connection errors are exceptions of the system already."""
    return error if isinstance(error, OSError) else ConnectionError(str(error) or type(error).__name__)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    lowered: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
    return lowered
