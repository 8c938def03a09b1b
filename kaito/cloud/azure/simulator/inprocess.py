"""The simulator as a transport of the Azure SDK: no socket between the two, so it also works in virtual time.

Everything else of the SDK's pipeline stays in place: retries, authentication, error mapping, deserialization.
"""

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, final

from azure.core.exceptions import HttpResponseError, ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.core.utils import CaseInsensitiveDict

from kaito.cloud.azure.simulator.wire import Answer, Exchange

READ_TIMEOUT_SECONDS = 300.0
"""The SDK's own default for reading an answer; clients pass `read_timeout`."""


class Handler(Protocol):
    """Whatever answers: the simulator's `ArmApi`, or something between it and the SDK."""

    async def handle(self, exchange: Exchange) -> Answer:
        """The answer to one request."""
        ...


@final
class InProcessTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Hands each request of the SDK to the simulator in the same process."""

    def __init__(self, api: Handler, *, read_timeout: float = READ_TIMEOUT_SECONDS) -> None:
        self._api = api
        self._read_timeout = read_timeout

    async def send(self, request: HttpRequest, **kwargs: Any) -> AsyncHttpResponse:
        """Answer one request.

        Raises:
            ServiceResponseError: the connection was dropped.
            ServiceResponseTimeoutError: no answer in time.
        """
        content = request.content
        body = content.encode() if isinstance(content, str) else content or b""
        exchange = Exchange.parse(request.method, request.url, request.headers, body)
        try:
            async with asyncio.timeout(float(kwargs.get("read_timeout") or self._read_timeout)):
                answer = await self._api.handle(exchange)
        except TimeoutError as error:
            raise ServiceResponseTimeoutError("Timeout on reading data from the simulator") from error
        if answer.drop:
            raise ServiceResponseError("Connection aborted.")
        return InProcessResponse(request, answer)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


@final
class InProcessResponse(AsyncHttpResponse):  # type: ignore[misc]  # mypy does not follow the SDK
    """An answer of the simulator in the SDK's own interface; the body is already there."""

    def __init__(self, request: HttpRequest, answer: Answer) -> None:
        self._request = request
        self._status = answer.status
        self._body = answer.encode()
        headers = {"Content-Type": "application/json; charset=utf-8"} if self._body else {}
        self._headers: MutableMapping[str, str] = CaseInsensitiveDict({**headers, **answer.headers})
        self._encoding: str | None = None

    @property
    def request(self) -> HttpRequest:
        """What this answers."""
        return self._request

    @property
    def status_code(self) -> int:
        """HTTP status."""
        return self._status

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Header names are matched without regard to case."""
        return self._headers

    @property
    def reason(self) -> str:
        """The status in words."""
        return HTTPStatus(self._status).phrase

    @property
    def content_type(self) -> str | None:
        """The body's media type."""
        return self._headers.get("content-type")

    @property
    def is_closed(self) -> bool:
        """There is no connection to close."""
        return True

    @property
    def is_stream_consumed(self) -> bool:
        """The body may be read any number of times."""
        return False

    @property
    def encoding(self) -> str | None:
        """The body's text encoding."""
        return self._encoding or "utf-8"

    @encoding.setter
    def encoding(self, value: str | None) -> None:
        self._encoding = value

    @property
    def url(self) -> str:
        """The URL asked for."""
        return str(self._request.url)

    @property
    def content(self) -> bytes:
        """The body."""
        return self._body

    def text(self, encoding: str | None = None) -> str:
        """The body as text."""
        return self._body.decode(encoding or self.encoding or "utf-8", errors="replace")

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self._body)

    def raise_for_status(self) -> None:
        """Raise on a status of 400 and above.

        Raises:
            HttpResponseError: carrying this response.
        """
        if self._status >= HTTPStatus.BAD_REQUEST:
            raise HttpResponseError(response=self)

    async def read(self) -> bytes:
        """The body."""
        return self._body

    async def iter_raw(self, **_kwargs: Any) -> AsyncIterator[bytes]:
        """The body in one piece."""
        yield self._body

    async def iter_bytes(self, **_kwargs: Any) -> AsyncIterator[bytes]:
        """The body in one piece."""
        yield self._body

    async def close(self) -> None:
        """Nothing to close."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()
