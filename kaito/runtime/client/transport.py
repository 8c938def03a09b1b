"""The seam between the framework and the network: one request, one stream.

`Client` and the reflector call it; `kaito.runtime.client.http` implements it over sockets, `kaito.runtime.testing` in
process. A transport knows nothing of Kubernetes' verbs: it adds credentials, moves bytes, and raises `TransportError`
(or `RequestTimeout`) when no answer came. Every HTTP status is an answer, not an error.
"""

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

NO_HEADERS: Mapping[str, str] = {}

REQUEST_SECONDS = 30.0
"""Time limit of one unary request, connecting included."""

CONNECT_SECONDS = 5.0
"""Time limit for opening a connection."""


_guard: ContextVar[Callable[[], None] | None] = ContextVar("send_guard", default=None)


@contextmanager
def sending_guarded_by(guard: Callable[[], None] | None) -> Generator[None]:
    """Requests made inside are stopped by what `guard` raises, up to the moment their first byte leaves.

    A request may wait for a connection, a token or the event loop after its caller checked the lease; only the
    transport knows when it is really sent.
    """
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)


def check_send_guard() -> None:
    """Called by transports right before the first byte of a request; raises what stops it."""
    guard = _guard.get()
    if guard is not None:
        guard()


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class StreamReply(Protocol):
    """An answer whose body is still arriving."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names in lower case."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of any size. Raises `TransportError` when the connection breaks."""
        ...

    async def read(self) -> bytes:
        """The whole rest of the body: for error answers, which end."""
        ...


class Transport(Protocol):
    """Moves requests to one API server."""

    @property
    def host(self) -> str:
        """Host and port, for the label of metrics."""
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
        """Send one request and read the whole answer. `target` is the encoded path with its query.

        Calls `check_send_guard` at the last moment before sending.

        Raises:
            RequestTimeout: no complete answer within `timeout` seconds.
            TransportError: refused, reset, TLS failure.
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
        """Open a response that is read piece by piece; leaving the scope closes it.

        `idle` is the longest silence in seconds before the stream fails with `RequestTimeout`. Raises as `request`.
        """
        ...

    async def close(self) -> None:
        """Close every connection. Further requests fail with `TransportError`."""
        ...
