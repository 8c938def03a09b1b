"""The SDK's transport with two guards in front of the wire: requests stay at our endpoint, writes pass the fence.

A process that was stopped (SIGSTOP, a paused virtual machine) continues where it was, which may be between the decision
to write and the write. The fence is therefore checked as late as possible: after retries and authentication, and on
sockets when the connection is established and the first byte is about to be sent.

Every request carries our token, so none goes to another host: not by a redirect, and not by a `nextLink`.
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
"""Returns while this process may write; raises otherwise (`kaito.runtime.errors.NotLeader`)."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ForeignAddress(ValueError):
    """A request to another host was refused; our token is not sent there."""


def guarded(endpoint: str, *, transport: Any | None = None, fence: Fence | None = None) -> Any:
    """A transport that sends to the endpoint only and checks the fence before each write.

    `transport` is what sends; None stands for the SDK's own over aiohttp.
    """
    return GuardedSockets(endpoint, fence) if transport is None else GuardedTransport(transport, endpoint, fence)


def _check_address(url: str, endpoint: str) -> None:
    if not is_same_origin(url, endpoint):
        raise ForeignAddress(f"refused to send a request to {url.partition('?')[0]}: it is not at {endpoint}")


@final
class GuardedSockets(AioHttpTransport):  # type: ignore[misc]  # mypy does not follow the SDK
    """The SDK's transport over aiohttp, whose requests check the fence when they have their connection."""

    def __init__(self, endpoint: str, fence: Fence | None) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.session: Any = None
        self._endpoint = endpoint

        class FencedRequest(aiohttp.ClientRequest):
            """A request that checks the fence before its first byte is sent."""

            async def send(self, conn: Any) -> aiohttp.ClientResponse:
                if fence is not None and self.method.upper() not in READS:
                    fence()
                return await super().send(conn)

        self._request_class = FencedRequest

    async def send(self, request: Any, **config: Any) -> Any:
        """Send the request as the SDK does; raises what the fence raises."""
        _check_address(request.url, self._endpoint)
        return cast("Any", await super().send(request, **config))  # pyright: ignore[reportUnknownMemberType]

    async def open(self) -> None:
        """Open the session with the SDK's own options."""
        if self.session is None and not self._has_been_opened:
            session = aiohttp.ClientSession(
                request_class=self._request_class,
                trust_env=not is_loopback(self._endpoint),  # a simulated Azure is not behind the proxy
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            self.session = ExactSession(session)
        await super().open()  # pyright: ignore[reportUnknownMemberType]


@final
class ExactSession:
    """A session that sends addresses byte for byte: aiohttp would decode and encode parts of a signed query."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.auto_decompress = session.auto_decompress

    async def request(self, method: str, url: str, **options: Any) -> aiohttp.ClientResponse:
        """As `aiohttp.ClientSession.request`."""
        return await self._session.request(method, URL(url, encoded=True), **options)

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def __aenter__(self) -> "ExactSession":
        await self._session.__aenter__()
        return self


@final
class GuardedTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Checks address and fence, and hands the request on."""

    def __init__(self, inner: Any, endpoint: str, fence: Fence | None) -> None:
        self._inner, self._endpoint, self._fence = inner, endpoint, fence

    async def send(self, request: HttpRequest, **kwargs: Any) -> AsyncHttpResponse:
        """Send the request; raises what the fence raises."""
        _check_address(request.url, self._endpoint)
        if self._fence is not None and request.method.upper() not in READS:
            self._fence()
        answer: AsyncHttpResponse = await self._inner.send(request, **kwargs)
        return answer

    async def open(self) -> None:
        """Open the inner transport."""
        await self._inner.open()

    async def close(self) -> None:
        """Close the inner transport."""
        await self._inner.close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()
