"""Serves an `ApiServer` on a socket with aiohttp, and renders a kubeconfig for it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from kaito.apiserver.errors import StatusError
from kaito.apiserver.faults import ConnectionDropped
from kaito.apiserver.server import ApiServer
from kaito.apiserver.wire import HttpRequest, Object, encode

MAX_BODY_BYTES = 3 * 1024 * 1024
"""Largest request body (`--max-resource-write-bytes`, 3 MiB)."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens."""

    url: str
    token: str | None = None

    def kubeconfig(self, *, namespace: str = "default", ca: str = "") -> Object:
        """Returns a kubeconfig for it; `ca` is the base64 of its certificate authority, when it serves TLS."""
        cluster: Object = {"server": self.url}
        if ca:
            cluster["certificate-authority-data"] = ca
        elif self.url.startswith("https"):
            cluster["insecure-skip-tls-verify"] = True
        user: Object = {"token": self.token} if self.token else {}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kaito", "cluster": cluster}],
            "users": [{"name": "kaito", "user": user}],
            "contexts": [{"name": "kaito", "context": {"cluster": "kaito", "user": "kaito", "namespace": namespace}}],
            "current-context": "kaito",
        }


@asynccontextmanager
async def serve(
    server: ApiServer,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> AsyncGenerator[Listening, None]:
    """Serves an API server on a socket; port 0 takes a free one. With a token, requests without it get 401."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", _Adapter(server, token).__call__)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        bound: tuple[str, int] = runner.addresses[0][:2]
        scheme = "http" if tls is None else "https"
        yield Listening(f"{scheme}://{bound[0]}:{bound[1]}", token)
    finally:
        server.cut_watches()
        await runner.cleanup()


class _Adapter:
    def __init__(self, server: ApiServer, token: str | None) -> None:
        self._server = server
        self._token = token

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        if self._token is not None and headers.get("authorization") != f"Bearer {self._token}":
            body = encode(StatusError(401, "Unauthorized", "Unauthorized").status())
            return web.Response(status=401, body=body, content_type="application/json")
        query = tuple((name, value) for name, value in request.query.items())
        body = await request.read()
        received = HttpRequest(request.method, request.rel_url.raw_path, query, headers, body)
        try:
            answer = await self._server.handle(received)
        except ConnectionDropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if isinstance(answer.body, bytes):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        return await self._stream(request, answer.status, answer.headers, answer.body)

    async def _stream(
        self, request: web.Request, status: int, headers: dict[str, str], body: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        forwarded = {name: value for name, value in headers.items() if name != "transfer-encoding"}
        response = web.StreamResponse(status=status, headers=forwarded)
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            async for chunk in body:
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            return response  # the client has closed the connection
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
        return response
