"""Reverse proxy of the activator: holds a request until a copy is ready, forwards it, and streams the response.

The body is read before it is forwarded, so that the request can be sent again if a copy ends or refuses it before it
has answered. A response that has begun is not repeated.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, final

import aiohttp
from aiohttp import web
from yarl import URL

from kaito.workspace.activator.gate import Gate, Held, HoldLimits, NotReadyInTime, Removed, TooManyHeld
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.manifests.service import SERVER_PORT

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection (RFC 9110, section 7.6.1), and those that aiohttp sets."""

WAITED_HEADER: Final = "X-Kaito-Waited-Seconds"
READY_IN_HEADER: Final = "X-Kaito-Ready-In-Seconds"

DEFAULT_RETRY_SECONDS: Final = 60
"""Retry-After if the time until the Workspace is ready is unknown."""

REFUSED: Final = frozenset({429, 503})
"""Answers of a server that did not begin the request: its queue is full, it loads its model, or it ends."""

RETRY_SECONDS: Final = 0.5
"""Delay before a request that a copy has refused is sent to another one; `Gate.wait` adds to it if there is none."""

CONNECT_SECONDS: Final = 10.0

CHUNK_BYTES: Final = 64 * 1024


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is known about a Workspace that is not ready."""

    ready_in_seconds: float | None = None
    """Estimated time until a copy is ready; None if unknown."""
    cause: str = ""
    """Why no copy is ready."""


class Destination(Protocol):
    """A Workspace, as the proxy needs it."""

    @property
    def name(self) -> str:
        """Namespace and name."""
        ...

    @property
    def gate(self) -> Gate:
        """The ready copies."""
        ...

    def forecast(self) -> Forecast:
        """Returns when a copy is expected to be ready."""
        ...


class Resolver(Protocol):
    """Finds Workspaces by port."""

    def resolve(self, port: int) -> Destination | None:
        """Returns the Workspace of a local port; None if it has none any more."""
        ...


class _Refused(Exception):
    """A copy did not answer the request; it may be sent again, because inference has no effects besides the answer."""


@final
class ActivatorProxy:
    """Forwards the requests of all Workspaces.

    Args:
        resolver: finds the Workspace of a port.
        limits: of held requests.
        metrics: counts them.
        max_request_bytes: largest body.
        server_port: port of the servers in the pods.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        limits: HoldLimits,
        metrics: ActivatorMetrics,
        max_request_bytes: int = 16 * 2**20,
        server_port: int = SERVER_PORT,
    ) -> None:
        self._resolver = resolver
        self._metrics = metrics
        self._limits = limits
        self._max_request_bytes = max_request_bytes
        self._server_port = server_port
        self._session: aiohttp.ClientSession | None = None
        self.held = Held(limits)
        self.running = 0
        """Requests that are held or forwarded."""

    def application(self) -> web.Application:
        """Builds the application for all ports."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.cleanup_ctx.append(self._sessions)
        return app

    async def _sessions(self, _: web.Application) -> AsyncIterator[None]:
        # No total timeout, because a completion may take minutes.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        # The client decodes nothing: the response keeps its content encoding.
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False)
        yield
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        destination = self._resolver.resolve(_local_port(request))
        if destination is None:
            return _error(404, "not_found", "no Workspace has this port any more")
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = began + self._limits.seconds
        try:
            with self.held.hold() as count:
                self._metrics.held.set(self.held.requests)
                body = await self._read(request, count)
                upstream = await self._open(request, destination, body, until)
        except web.HTTPRequestEntityTooLarge:
            message = f"the request has more than {self._max_request_bytes} bytes"
            return self._counted(_error(413, "request_too_large", message), "too_large")
        except TooManyHeld:
            return self._counted(self._unavailable(destination, "too many requests wait for it"), "full")
        except NotReadyInTime:
            waited = f"it was not ready within {self._limits.seconds:.0f} s"
            return self._counted(self._unavailable(destination, waited), "timeout")
        except Removed:
            return self._counted(self._unavailable(destination, "its Service leads elsewhere now"), "removed")
        finally:
            self._metrics.held.set(self.held.requests)
        waited_seconds = loop.time() - began
        self._metrics.wait_seconds.observe(waited_seconds)
        async with upstream:
            return self._counted(await _stream(request, upstream, waited_seconds), "forwarded")

    def _counted(self, response: web.StreamResponse, result: str) -> web.StreamResponse:
        self._metrics.requests.labels(result).inc()
        return response

    async def _read(self, request: web.Request, count: Callable[[int], None]) -> bytes:
        """Reads the body, and counts its bytes as they arrive.

        Raises:
            HTTPRequestEntityTooLarge: it is larger than a request may be.
            TooManyHeld: with the bodies of the other requests it is.
        """
        body = bytearray()
        if (request.content_length or 0) > self._max_request_bytes:
            raise web.HTTPRequestEntityTooLarge(self._max_request_bytes)
        while chunk := await request.content.readany():
            if len(body) + len(chunk) > self._max_request_bytes:
                raise web.HTTPRequestEntityTooLarge(self._max_request_bytes)
            count(len(chunk))
            body += chunk
        return bytes(body)

    async def _open(
        self, request: web.Request, destination: Destination, body: bytes, until: float
    ) -> aiohttp.ClientResponse:
        """Sends the request to a copy, as soon as one is ready and accepts it; returns its response.

        Raises:
            NotReadyInTime: none did within the time limit.
            Removed: the Workspace does not have its port any more.
        """
        loop = asyncio.get_running_loop()
        address = ""
        while True:
            address = await destination.gate.wait(until, avoid=address)
            try:
                return await self._send(request, address, body)
            except _Refused:
                if loop.time() + RETRY_SECONDS >= until:
                    raise NotReadyInTime from None
                await asyncio.sleep(RETRY_SECONDS)

    async def _send(self, request: web.Request, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Sends the request; returns the response with its headers.

        Raises:
            _Refused: the copy refused the request, or ended before it answered.
        """
        if self._session is None:
            raise AssertionError  # pragma: no cover -- the application is started
        host = f"[{address}]" if ":" in address else address
        try:
            response = await self._session.request(
                request.method,
                URL(f"http://{host}:{self._server_port}{request.rel_url.raw_path_qs}", encoded=True),
                data=body or None,
                headers=_end_to_end(request.headers),
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            raise _Refused from error
        if response.status in REFUSED:
            response.release()
            raise _Refused
        return response

    def _unavailable(self, destination: Destination, problem: str) -> web.Response:
        """Builds the answer to a request that is not held, or not any longer."""
        forecast = destination.forecast()
        ready_in = forecast.ready_in_seconds
        expected = "" if ready_in is None else f"; it is expected to be ready in about {ready_in:.0f} s"
        cause = f" ({forecast.cause})" if forecast.cause else ""
        message = f"workspace {destination.name} is starting, and {problem}{expected}{cause}"
        retry = DEFAULT_RETRY_SECONDS if ready_in is None else max(math.ceil(ready_in), 1)
        headers = {"Retry-After": str(retry)}
        if ready_in is not None:
            headers[READY_IN_HEADER] = str(math.ceil(ready_in))
        return _error(503, "workspace_starting", message, headers)


def _local_port(request: web.Request) -> int:
    sockname: object = request.get_extra_info("sockname")
    return int(sockname[1]) if isinstance(sockname, tuple) else 0  # pyright: ignore[reportUnknownArgumentType]  # of a TCP socket


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the headers without those of the connection, also without those that `Connection` names."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    dropped = HOP_BY_HOP | named
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


async def _stream(request: web.Request, upstream: aiohttp.ClientResponse, waited_seconds: float) -> web.StreamResponse:
    """Copies the response as it arrives. If the copy ends in the middle, the connection of the client ends, too."""
    response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers))
    length = upstream.headers.get("Content-Length")
    if length is not None and length.isdecimal():
        response.content_length = int(length)
    response.headers[WAITED_HEADER] = f"{waited_seconds:.1f}"
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (aiohttp.ClientError, OSError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    return response


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Builds an error as OpenAI's API returns it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response(text=json.dumps({"error": error}), status=status, headers=headers)
