"""Listens on an address and serves pages."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import final

from kaito.runtime.http_server.connection import Connection
from kaito.runtime.http_server.messages import HttpRequest, HttpResponse, Pages, find_page
from kaito.runtime.logging import get_logger

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
        self._connections: set[Connection] = set()
        self._idle = asyncio.Event()

    async def start(self, host: str | None, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port, which the system selects if it is 0.

        Raises:
            OSError: the address is in use or does not exist.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.connection, host, port, ssl=context, backlog=128)
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
                while not self._connections.isdisjoint(busy):
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
        self._connections.add(connection)
        if self._server is not None and not self.is_listening:
            connection.close()  # accepted before the stop, with a handshake that has ended after it

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._idle.set()

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
