"""The interface between the framework and the network: requests and streams.

`Client` and the reflector use it; `kaito.runtime.client.http` implements it over HTTP connections,
`kaito.runtime.testing` in the process. A transport is independent of Kubernetes verbs: it adds credentials, transfers
bytes, and raises `TransportError` (or `RequestTimeout`) if there is no response. It returns responses of every HTTP
status.
"""

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

E = TypeVar("E", bound=BaseException)

NO_HEADERS: Mapping[str, str] = {}

REQUEST_SECONDS = 30.0
"""Time limit of one unary request, including the connection."""

CONNECT_SECONDS = 5.0
"""Time limit for opening a connection."""


_guard: ContextVar[Callable[[], None] | None] = ContextVar("send_guard", default=None)


@contextmanager
def sending_guarded_by(guard: Callable[[], None] | None) -> Generator[None]:
    """Calls `guard` before requests in the scope are sent, until their first byte; an exception prevents the request.

    A request may wait for a connection, a token or the event loop after its caller checked the lease, so only the
    transport can check immediately before sending.
    """
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)


def check_send_guard() -> None:
    """Calls the guard of the current request. Transports call this immediately before the first byte."""
    guard = _guard.get()
    if guard is not None:
        guard()


@dataclass(frozen=True, slots=True)
class Reply:
    """Complete response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class StreamReply(Protocol):
    """Response whose body is still arriving."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers with lower-case names."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, in chunks of any size. Raises `TransportError` if the connection fails."""
        ...

    async def read(self) -> bytes:
        """Reads the rest of the body; for error responses, which end."""
        ...


class Transport(Protocol):
    """Sends requests to one API server."""

    @property
    def host(self) -> str:
        """Host and port, for the `host` label of metrics."""
        ...

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        """Sends one request and reads the complete response.

        `target` is the encoded path with its query. Calls `check_send_guard` immediately before sending.

        Raises:
            RequestTimeout: No complete response within `timeout` seconds.
            TransportError: Connection refused or reset, or TLS failure.
        """
        ...

    def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AbstractAsyncContextManager[StreamReply]:
        """Opens a streamed response, which is closed at the end of the scope.

        `idle` is the time in seconds without data after which the stream fails with `RequestTimeout`. Raises the errors
        of `request`.
        """
        ...

    async def close(self) -> None:
        """Closes all connections. Further requests fail with `TransportError`."""
        ...


class UpgradeRefused(Exception):
    """The server answered a request for a WebSocket with another response."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"HTTP {reply.status} instead of an upgrade")
        self.reply = reply


class WebSocket(Protocol):
    """A connection of binary messages in both directions."""

    @property
    def protocol(self) -> str:
        """The subprotocol that the server has chosen."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends a message; waits while the server reads more slowly. Raises `TransportError` if the connection
        fails."""
        ...

    async def receive(self) -> bytes | None:
        """Returns the next message; None once the server has closed the connection in order.

        The server is held back after a few messages unless it is called.

        Raises:
            TransportError: The connection was lost, or a message is malformed.
        """
        ...


@runtime_checkable
class WebSocketTransport(Protocol):
    """A transport that can open WebSockets."""

    def websocket(
        self,
        target: str,
        *,
        protocols: Sequence[str],
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
    ) -> AbstractAsyncContextManager[WebSocket]:
        """Opens a WebSocket with one of the subprotocols; it is closed at the end of the scope.

        Raises:
            UpgradeRefused: The server answered with another response.
            TransportError: No connection, or no response within `HEADER_SECONDS`.
        """
        ...


def without_tracebacks(error: E) -> E:
    """Removes the tracebacks of the error, its causes and its contexts.

    Frames of a failed connection refer to its buffers (256 KiB with TLS), and a frame of aiohttp's connector refers to
    the error. Such a cycle stays until the garbage collector runs, which counts objects and not bytes: many MiB while a
    server is unreachable.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]
    return error
