"""Transport of the client to an `ApiServer` in the same process: without sockets, in any event loop.

`World` creates one for each manager. It implements the guarantees of `Transport` (time limits, typed errors, closing of
streams), and can reset all open streams.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast, final
from urllib.parse import parse_qsl, unquote, urlsplit

from kaito.apiserver import ApiServer, ConnectionDropped, HttpRequest, HttpResponse
from kaito.runtime.client.transport import (
    CONNECT_SECONDS,
    NO_HEADERS,
    REQUEST_SECONDS,
    Reply,
    UpgradeRefused,
    check_send_guard,
)
from kaito.runtime.errors import RequestTimeout, TransportError
from kaito.runtime.testing.pod_streams import PROTOCOLS, InMemoryWebSocket, PodAnswers


@final
class InMemoryTransport:
    """Sends requests to an `ApiServer` in the same process.

    Args:
        server: The server.
        latency: Seconds added to every request.
        headers: Headers that replace those of the client in every request.
        pods: Answers for commands and ports of pods.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        latency: float = 0.0,
        headers: Mapping[str, str] = NO_HEADERS,
        pods: PodAnswers | None = None,
    ) -> None:
        self.server = server
        self.latency: float = latency
        self.reachable: bool = True
        """Set to False to refuse new connections, as in a network partition."""
        self.in_flight: int = 0
        """Number of unary requests without a response."""
        self._headers = headers
        self._closed = False
        self._streams: dict[_InMemoryStream | InMemoryWebSocket, None] = {}
        self._pods = pods or PodAnswers()
        server.serve_upgrades(PROTOCOLS)

    @property
    def host(self) -> str:
        """The `host` label of metrics."""
        return "in-memory"

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def open_streams(self) -> int:
        """Number of open watches and log streams."""
        return len(self._streams)

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
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout):
                response = await self._send(method, target, headers, body)
                return Reply(response.status, _lower(response.headers), await _whole(response.body))
        except TimeoutError as error:
            message = f"{method} {target}: no response within {timeout:g} s"
            raise RequestTimeout(message) from error
        finally:
            self.in_flight -= 1

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AsyncGenerator["_InMemoryStream"]:
        """Opens a streamed response; raises the errors of `Transport.stream`."""
        try:
            async with asyncio.timeout(max(connect, self.latency * 2)):
                response = await self._send(method, target, headers, None)
        except TimeoutError as error:
            message = f"{method} {target}: no connection within {connect:g} s"
            raise RequestTimeout(message) from error
        stream = _InMemoryStream(response, idle, f"{method} {target}")
        self._streams[stream] = None
        try:
            yield stream
        finally:
            self._streams.pop(stream, None)
            await stream.close()

    @asynccontextmanager
    async def websocket(
        self,
        target: str,
        *,
        protocols: Sequence[str],
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
    ) -> AsyncGenerator[InMemoryWebSocket]:
        """Opens a WebSocket to a pod; raises the errors of `WebSocketTransport.websocket`."""
        given = {**headers, "upgrade": "websocket", "sec-websocket-protocol": ",".join(protocols)}
        try:
            async with asyncio.timeout(max(connect, self.latency * 2)):
                response = await self._send("GET", target, given, None)
        except TimeoutError as error:
            message = f"GET {target}: no connection within {connect:g} s"
            raise RequestTimeout(message) from error
        if response.status != 101:
            raise UpgradeRefused(Reply(response.status, _lower(response.headers), await _whole(response.body)))
        parts = urlsplit(target)
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        socket = self._pods.connect(unquote(parts.path), query, response.headers["sec-websocket-protocol"])
        self._streams[socket] = None
        try:
            await socket.begin()
            yield socket
        finally:
            self._streams.pop(socket, None)

    async def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> HttpResponse:
        if self.latency:
            await asyncio.sleep(self.latency)
        if self._closed or not self.reachable:
            message = f"{method} {target}: {'transport is closed' if self._closed else 'connection refused'}"
            raise TransportError(message)
        check_send_guard()
        parts = urlsplit(target)
        request = HttpRequest(
            method,
            unquote(parts.path),
            tuple(parse_qsl(parts.query, keep_blank_values=True)),
            _lower(headers) | _lower(self._headers),
            body or b"",
        )
        try:
            return await self.server.handle(request)
        except ConnectionDropped as error:
            message = f"{method} {target}: connection reset"
            raise TransportError(message) from error

    def break_streams(self) -> None:
        """Resets every open stream, as a failing load balancer does."""
        for stream in tuple(self._streams):
            stream.reset()

    async def close(self) -> None:
        """Resets all streams; further requests fail."""
        self._closed = True
        self.break_streams()


@final
class _InMemoryStream:
    def __init__(self, response: HttpResponse, idle: float | None, request: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _lower(response.headers)
        self._body = response.body
        self._idle = idle
        self._request = request
        self._reset = False
        self._reading: asyncio.Timeout | None = None

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the body as it arrives."""
        if isinstance(self._body, bytes):
            yield self._body
            return
        while (chunk := await self._next(self._body)) is not None:
            yield chunk

    async def read(self) -> bytes:
        """Reads the rest of the body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def _next(self, body: AsyncIterator[bytes]) -> bytes | None:
        self._check()
        try:
            async with asyncio.timeout(self._idle) as self._reading:
                return await anext(body, None)
        except TimeoutError as error:
            self._check()
            message = f"{self._request}: no data for {self._idle} s"
            raise RequestTimeout(message) from error
        finally:
            self._reading = None

    def _check(self) -> None:
        if self._reset:
            message = f"{self._request}: connection reset"
            raise TransportError(message)

    def reset(self) -> None:
        """Resets the connection: a reader that waits for the next chunk fails at once."""
        self._reset = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Closes the response body in the server."""
        if not isinstance(self._body, bytes):
            await cast("AsyncGenerator[bytes]", self._body).aclose()


async def _whole(body: bytes | AsyncIterator[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
