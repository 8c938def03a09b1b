"""Transports for the SDK that send requests to one endpoint only, and check the fence before writes.

A process that is stopped (SIGSTOP, a paused virtual machine) may continue between the decision to write and the write,
and may have lost its lease meanwhile. The fence is therefore checked as late as possible: after retries and
authentication, and with sockets after the connection is established, before the first byte is sent.

Every request contains the token. Therefore no redirect and no `nextLink` may lead to another host.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, cast, final

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from yarl import URL

from kaito.cloud.azure.operations import is_same_origin
from kaito.runtime.client import is_loopback

Fence = Callable[[], None]
"""Raises `kaito.runtime.errors.NotLeader` if this process must not write."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ForeignUrl(ValueError):
    """A request to another host, which must not receive the token."""


CONNECT_SECONDS = 10.0
"""An address that does not answer is left after this time; the SDK waits five minutes."""


def guarded_transport(endpoint: str, *, transport: Any | None = None, fence: Fence | None = None) -> Any:
    """Returns a transport that sends to the endpoint only and checks the fence before each write.

    It wraps `transport`; None is the SDK's transport over aiohttp.
    """
    return (
        GuardedAioHttpTransport(endpoint, fence) if transport is None else GuardedTransport(transport, endpoint, fence)
    )


def _check_url(url: str, endpoint: str) -> None:
    if not is_same_origin(url, endpoint):
        raise ForeignUrl(f"request to {url.partition('?')[0]} rejected: it is not at {endpoint}")


@final
class GuardedAioHttpTransport(AioHttpTransport):  # type: ignore[misc]  # mypy does not follow the SDK
    """The SDK's transport over aiohttp; requests check the fence after they have a connection."""

    def __init__(self, endpoint: str, fence: Fence | None) -> None:
        # The SDK's clients ignore `connection_timeout` among their options if they are given a transport.
        super().__init__(connection_timeout=CONNECT_SECONDS)  # pyright: ignore[reportUnknownMemberType]
        self.session: Any = None
        self._endpoint = endpoint

        class FencedRequest(aiohttp.ClientRequest):
            """Checks the fence before the first byte is sent."""

            async def send(self, conn: Any) -> aiohttp.ClientResponse:
                if fence is not None and self.method.upper() not in READS:
                    fence()
                return await super().send(conn)

        self._request_class = FencedRequest

    async def send(self, request: Any, **config: Any) -> Any:
        """Sends the request; errors of the fence pass through."""
        _check_url(request.url, self._endpoint)
        return cast("Any", await super().send(request, **config))  # pyright: ignore[reportUnknownMemberType]

    async def open(self) -> None:
        """Opens a session with the SDK's options."""
        if self.session is None and not self._has_been_opened:
            session = aiohttp.ClientSession(
                request_class=self._request_class,
                trust_env=not is_loopback(self._endpoint),  # the simulator is not behind the proxy
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            self.session = RawUrlSession(session)
        await super().open()  # pyright: ignore[reportUnknownMemberType]


@final
class RawUrlSession:
    """Session that sends URLs unchanged: aiohttp would decode and encode parts of a signed query."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.auto_decompress = session.auto_decompress

    async def request(self, method: str, url: str, **options: Any) -> aiohttp.ClientResponse:
        """As `aiohttp.ClientSession.request`."""
        return await self._session.request(method, URL(url, encoded=True), **options)

    async def close(self) -> None:
        """Closes the session."""
        await self._session.close()

    async def __aenter__(self) -> "RawUrlSession":
        await self._session.__aenter__()
        return self


@final
class GuardedTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Wraps a transport: checks the URL and the fence, and passes the request on."""

    def __init__(self, inner: Any, endpoint: str, fence: Fence | None) -> None:
        self._inner, self._endpoint, self._fence = inner, endpoint, fence

    async def send(self, request: HttpRequest, **kwargs: Any) -> AsyncHttpResponse:
        """Sends the request; errors of the fence pass through."""
        _check_url(request.url, self._endpoint)
        if self._fence is not None and request.method.upper() not in READS:
            self._fence()
        response: AsyncHttpResponse = await self._inner.send(request, **kwargs)
        return response

    async def open(self) -> None:
        """Opens the inner transport."""
        await self._inner.open()

    async def close(self) -> None:
        """Closes the inner transport."""
        await self._inner.close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()
