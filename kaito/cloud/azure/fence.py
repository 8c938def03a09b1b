"""The fence for cloud writes: a PUT or DELETE of a former leader does not leave the process.

A process that was stopped (SIGSTOP, a paused virtual machine) continues where it was, which may be between the decision
to write and the write. The fence is therefore checked as late as possible: in the SDK's transport, after retries and
authentication; on sockets when the connection is established and the first byte is about to be sent.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, final

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest

Fence = Callable[[], None]
"""Returns while this process may write; raises otherwise (`kaito.runtime.errors.NotLeader`)."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})


def fenced(transport: Any | None, fence: Fence) -> Any:
    """A transport that checks the fence before each write; None stands for the SDK's own over aiohttp."""
    return FencedSockets(fence) if transport is None else FencedTransport(transport, fence)


@final
class FencedSockets(AioHttpTransport):  # type: ignore[misc]  # mypy does not follow the SDK
    """The SDK's transport over aiohttp, whose requests check the fence when they have their connection."""

    def __init__(self, fence: Fence) -> None:
        super().__init__()
        self.session: aiohttp.ClientSession | None = None

        class FencedRequest(aiohttp.ClientRequest):
            """A request that checks the fence before its first byte is sent."""

            async def send(self, conn: Any) -> aiohttp.ClientResponse:
                if self.method.upper() not in READS:
                    fence()
                return await super().send(conn)

        self._request_class = FencedRequest

    async def open(self) -> None:
        """Open the session with the SDK's own options."""
        if self.session is None and not self._has_been_opened:
            self.session = aiohttp.ClientSession(
                request_class=self._request_class,
                trust_env=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        await super().open()


@final
class FencedTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Checks the fence before each write and hands the request on."""

    def __init__(self, inner: Any, fence: Fence) -> None:
        self._inner, self._fence = inner, fence

    async def send(self, request: HttpRequest, **kwargs: Any) -> AsyncHttpResponse:
        """Send the request; raises what the fence raises."""
        if request.method.upper() not in READS:
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
