"""Listens on an address and serves pages."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, final

from kaito.runtime.http_server.connection import Connection
from kaito.runtime.http_server.messages import HttpRequest, HttpResponse, Pages, find_page
from kaito.runtime.logging import get_logger
from kaito.runtime.tls_buffers import limit_tls_buffers

MAX_CONNECTIONS: Final = 1000
"""Maximum number of open connections. A new one closes the one that is idle for longest, so that clients that only
connect neither take all memory nor keep the API server out."""

HANDSHAKE_SECONDS: Final = 10.0
"""Time limit of a TLS handshake, the longest timeout of a webhook call by default."""

_log = get_logger(__name__)

Guard = Callable[[HttpRequest], Awaitable[HttpResponse | None]]
"""Returns the response to a request that is not served; None if it is."""


@final
class HttpServer:
    """Serves pages on one address.

    Args:
        pages: by path.
        guard: called before each page, and for paths without one.
        close_seconds: time for open requests at the stop.
    """

    def __init__(self, pages: Pages, guard: Guard | None = None, *, close_seconds: float) -> None:
        self._pages = pages
        self._guard = guard
        self._close_seconds = close_seconds
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}
        """In the order of their start."""
        self._idle = asyncio.Event()

    async def start(self, host: str | None, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port, which the system selects if it is 0.

        Raises:
            OSError: the address is in use or does not exist.
        """
        loop = asyncio.get_running_loop()
        limit = None
        if context is not None:
            limit_tls_buffers()
            limit = HANDSHAKE_SECONDS
        self._server = await loop.create_server(
            self.connection, host, port, ssl=context, backlog=128, ssl_handshake_timeout=limit
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def stop(self) -> None:
        """Stops listening, waits for requests that are being handled, and closes all connections after the time."""
        if self._server is None:
            return
        self._server.close()
        # Idle clients are not waited for: one that does not answer the end of its TLS session would take all the time.
        busy = [connection for connection in self._connections if connection.is_busy]
        for connection in list(self._connections):
            connection.close()
        try:
            async with asyncio.timeout(self._close_seconds):
                while not self._connections.keys().isdisjoint(busy):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        for connection in list(self._connections):
            connection.cancel()

    @property
    def open_connections(self) -> int:
        """Number of connections that are open, or whose request is being handled."""
        return len(self._connections)

    def connection(self) -> Connection:
        """Returns the protocol of a new connection."""
        return Connection(self._respond, self._body_limit, self._opened, self._closed)

    def _opened(self, connection: Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > MAX_CONNECTIONS:
            self._close_idle()
        if self._server is not None and not self.is_listening:
            connection.close()  # accepted before the stop, with a handshake that has ended after it

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._idle.set()

    def _close_idle(self) -> None:
        """Closes the connection that is idle for longest; none if all are handling requests."""
        idle = min(
            (each for each in self._connections if not each.is_busy), key=lambda each: each.idle_since, default=None
        )
        if idle is not None:
            _log.warning("too many connections, closing the one that is idle for longest", limit=MAX_CONNECTIONS)
            idle.abort()

    def _body_limit(self, method: str, path: str) -> int:
        page = find_page(self._pages, path)
        return page.max_body if page is not None and method in page.methods else 0

    async def _respond(self, request: HttpRequest) -> HttpResponse:
        try:
            if self._guard is not None and (refusal := await self._guard(request)) is not None:
                return refusal
            page = find_page(self._pages, request.path)
            if page is None:
                return HttpResponse.of_text("404: Not Found", HTTPStatus.NOT_FOUND)
            if request.method not in page.methods:
                allowed = {"allow": ",".join(page.methods)}
                return HttpResponse(b"405: Method Not Allowed", HTTPStatus.METHOD_NOT_ALLOWED, headers=allowed)
            return await page.handler(request)
        except Exception:  # noqa: BLE001 -- the boundary of foreign code; the connection stays usable
            _log.exception("request failed", method=request.method, path=request.path)
            return HttpResponse.of_text("500 Internal Server Error\n", HTTPStatus.INTERNAL_SERVER_ERROR)
