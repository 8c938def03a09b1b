"""Sends GET requests for price APIs, with limits of time and size.

`azure_retail` depends on the protocol `Fetch`, so that its retries are tested in virtual time; `fetcher` is the
implementation with aiohttp.
"""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    import aiohttp

REQUEST_SECONDS: Final = 15.0
"""Time limit of one request, from the connection to the last byte."""

CONNECT_SECONDS: Final = 5.0

MAX_BODY_BYTES: Final = 16 * 2**20
"""Size limit of one page; those of Azure have up to 1,000 items, about 1 MiB."""


class FetchError(Exception):
    """A request failed without a complete response: no connection, a time limit, or a body that ended early."""


@final
@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    body: bytes = b""
    retry_after: str = ""
    """The header `Retry-After`; empty without it."""


class Fetch(Protocol):
    """Sends a GET request."""

    async def __call__(self, url: str) -> Response:
        """Returns the response, whatever its status.

        Raises:
            FetchError: no complete response arrived.
        """
        ...


@contextlib.asynccontextmanager
async def fetcher(
    *, request_seconds: float = REQUEST_SECONDS, max_body_bytes: int = MAX_BODY_BYTES
) -> AsyncGenerator[Fetch]:
    """Opens a session; it uses the proxy of the environment, and follows no redirects."""
    import aiohttp  # imported here: plans without the price API do not need it

    timeout = aiohttp.ClientTimeout(total=request_seconds, connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True, headers={"User-Agent": "kaito"}) as session:

        async def fetch(url: str) -> Response:
            return await _get(session, url, request_seconds, max_body_bytes)

        yield fetch


async def _get(session: "aiohttp.ClientSession", url: str, seconds: float, max_body_bytes: int) -> Response:
    from aiohttp import ClientError
    from yarl import URL

    try:
        async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_body_bytes:
                    raise FetchError(f"the response is larger than {max_body_bytes >> 20} MiB")
            return Response(response.status, bytes(body), response.headers.get("Retry-After", ""))
    except TimeoutError as error:
        raise FetchError(f"no complete response within {seconds:g} s") from error
    except (ClientError, OSError, ValueError) as error:
        raise FetchError(str(error) or type(error).__name__) from error
