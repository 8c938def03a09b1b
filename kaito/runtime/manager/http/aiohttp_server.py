"""Serves pages together with paths of the program, whose handlers are those of aiohttp."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import final

from aiohttp import web

from kaito.runtime.http_server import Guard, Handler, HttpRequest, Pages
from kaito.runtime.http_server.connection import IDLE_SECONDS
from kaito.runtime.manager.http.routes import HttpHandler


@final
class AiohttpServer:
    """Serves pages and handlers on one address; has the methods of `HttpServer`."""

    def __init__(
        self, pages: Pages, handlers: Mapping[str, HttpHandler], guard: Guard | None, close_seconds: float
    ) -> None:
        app = web.Application(middlewares=[] if guard is None else [_middleware(guard)])
        for path, page in pages.items():
            handler = _handler(page.handler)
            app.router.add_get(f"{path}{{name}}" if path.endswith("/") else path, handler)
        for path, own in handlers.items():
            app.router.add_route("*", path, own)
        self._app = app
        self._close_seconds = close_seconds
        self._runner: web.AppRunner | None = None

    async def start(self, host: str | None, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port. Raises as `HttpServer.start`."""
        self._runner = runner = web.AppRunner(
            self._app,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=self._close_seconds,
            auto_decompress=False,  # signatures are of the bytes that were sent; a small body stays small
        )
        await runner.setup()
        await web.TCPSite(runner, host, port, ssl_context=context).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stops listening, waits for open requests, and closes all connections after the time."""
        if self._runner is not None:
            await self._runner.cleanup()


def _handler(handler: Handler) -> HttpHandler:
    async def handle(request: web.Request) -> web.Response:
        response = await handler(_plain(request))
        headers = {**response.headers, "content-type": response.content_type}
        return web.Response(body=response.body, status=response.status, headers=headers)

    return handle


def _middleware(guard: Guard) -> "Callable[..., Awaitable[web.StreamResponse]]":
    @web.middleware
    async def guarded(request: web.Request, handler: HttpHandler) -> web.StreamResponse:
        refusal = await guard(_plain(request))
        if refusal is None:
            return await handler(request)
        return web.Response(body=refusal.body, status=refusal.status, headers={"content-type": refusal.content_type})

    return guarded


def _plain(request: web.Request) -> HttpRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    query = {name: request.query.getall(name) for name in request.query}
    return HttpRequest(request.method, request.path, query, headers)
