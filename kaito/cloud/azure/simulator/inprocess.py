"""Connects the Azure SDK to a simulator in the same process, without sockets; works in virtual time.

The rest of the SDK's pipeline is unchanged: retries, authentication, error mapping, deserialization.
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

from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse

READ_TIMEOUT_SECONDS = 300.0
"""Default of the SDK; clients pass `read_timeout`."""


class Handler(Protocol):
    """Handles requests: the simulator's `ArmApi`, or a wrapper of it."""

    async def handle(self, request: ArmRequest) -> ArmResponse:
        """Returns the response to a request."""
        ...


@final
class InProcessTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Transport of the SDK that passes requests to the simulator."""

    def __init__(self, api: Handler, *, read_timeout: float = READ_TIMEOUT_SECONDS) -> None:
        self._api = api
        self._read_timeout = read_timeout

    async def send(self, request: HttpRequest, **kwargs: Any) -> AsyncHttpResponse:
        """Passes a request to the simulator.

        Raises:
            ServiceResponseError: the connection was dropped.
            ServiceResponseTimeoutError: no response in time.
        """
        content = request.content
        body = content.encode() if isinstance(content, str) else content or b""
        arm_request = ArmRequest.parse(request.method, request.url, request.headers, body)
        try:
            async with asyncio.timeout(float(kwargs.get("read_timeout") or self._read_timeout)):
                response = await self._api.handle(arm_request)
        except TimeoutError as error:
            raise ServiceResponseTimeoutError("Timeout on reading data from the simulator") from error
        if response.drop:
            raise ServiceResponseError("Connection aborted.")
        return InProcessResponse(request, response)

    async def open(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


@final
class InProcessResponse(AsyncHttpResponse):  # type: ignore[misc]  # mypy does not follow the SDK
    """A response of the simulator with the interface of the SDK."""

    def __init__(self, request: HttpRequest, response: ArmResponse) -> None:
        self._request = request
        self._status = response.status
        self._body = response.encode()
        headers = {"Content-Type": "application/json; charset=utf-8"} if self._body else {}
        self._headers: MutableMapping[str, str] = CaseInsensitiveDict({**headers, **response.headers})
        self._encoding: str | None = None

    @property
    def request(self) -> HttpRequest:
        """The request of this response."""
        return self._request

    @property
    def status_code(self) -> int:
        """HTTP status."""
        return self._status

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Headers, with case-insensitive names."""
        return self._headers

    @property
    def reason(self) -> str:
        """Reason phrase of the status."""
        return HTTPStatus(self._status).phrase

    @property
    def content_type(self) -> str | None:
        """The body's media type."""
        return self._headers.get("content-type")

    @property
    def is_closed(self) -> bool:
        """True: there is no connection."""
        return True

    @property
    def is_stream_consumed(self) -> bool:
        """False: the body can be read repeatedly."""
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
        """URL of the request."""
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
        """Raises an error for a status of 400 and above.

        Raises:
            HttpResponseError: has this response.
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
        """Does nothing."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()
