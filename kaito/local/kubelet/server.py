"""Serves the part of the kubelet's API that `kubectl logs` needs: `/containerLogs/<namespace>/<pod>/<container>`.

A real kube-apiserver reaches it over TLS at the address and port in the node's status; the in-memory server calls
`read` directly.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, final

from aiohttp import web

from kaito.apiserver import HttpRequest, HttpResponse
from kaito.local.certificate import write_certificate

POLL_SECONDS = 0.2
CHUNK_BYTES = 65536


class Logs(Protocol):
    """Location of a container's log."""

    def log_file(self, namespace: str, pod: str, container: str) -> Path | None:
        """The file, or None when no such container runs here."""
        ...


@final
class KubeletServer:
    """Serves the logs of this machine's pods."""

    def __init__(self, logs: Logs, folder: Path) -> None:
        self._logs = logs
        self._folder = folder
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(write_certificate(self._folder / "kubelet.pem"))
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def answer(self, namespace: str, pod: str, request: HttpRequest) -> HttpResponse | None:
        """Reads a pod's log, for the in-memory API server."""
        query = dict(request.query)
        tail, follow = query.get("tailLines"), query.get("follow") == "true"
        container = query.get("container", "")
        lines = int(tail) if tail else None
        chunks = await self.read(namespace, pod, container, tail_lines=lines, follow=follow)
        return None if chunks is None else HttpResponse(200, {"content-type": "text/plain"}, chunks)

    async def read(
        self, namespace: str, pod: str, container: str, *, tail_lines: int | None = None, follow: bool = False
    ) -> AsyncIterator[bytes] | None:
        """The log as chunks, ending at its end unless followed; None when no such container runs here."""
        path = self._logs.log_file(namespace, pod, container)
        return None if path is None else _chunks(path, tail_lines, follow=follow)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        names = request.match_info
        tail = request.query.get("tailLines")
        chunks = await self.read(
            names["namespace"],
            names["pod"],
            names["container"],
            tail_lines=int(tail) if tail else None,
            follow=request.query.get("follow") == "true",
        )
        if chunks is None:
            raise web.HTTPNotFound(text=f"container {names['container']} of pod {names['pod']} does not run here\n")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in chunks:
            await response.write(chunk)
        return response


async def _chunks(path: Path, tail_lines: int | None, *, follow: bool) -> AsyncIterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        if tail_lines is not None:
            yield b"".join(deque(file, maxlen=tail_lines))
        while True:
            data = file.read(CHUNK_BYTES)
            if data:
                yield data
            elif follow:
                await asyncio.sleep(POLL_SECONDS)
            else:
                return
