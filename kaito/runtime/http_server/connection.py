"""One connection: parses requests with llhttp (httptools), and handles them one after the other."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, final
from urllib.parse import parse_qsl, unquote

import httptools

from kaito.runtime.http_server.messages import MAX_HEAD_BYTES, MAX_HEADERS, HttpRequest, HttpResponse

IDLE_SECONDS: Final = 90.0
"""A connection is closed if no request is complete this long after the last response, as controller-runtime's servers
do; also if the client does not read its response for so long."""


LINGER_SECONDS: Final = 10.0
"""What a client still sends of a request that is too large is read this long after the response, because the system
drops the response with a connection that is closed before."""


class _Rejected(Exception):
    """The request is answered with an error, after which the connection is closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@final
class Connection(asyncio.Protocol):
    """One connection of a client.

    Args:
        respond: returns the response to a request; it does not raise.
        body_limit: returns how many bytes of the body to keep, by method and path.
        opened: called with the connection when it is open.
        closed: called with it when it is closed.
    """

    def __init__(
        self,
        respond: Callable[[HttpRequest], Awaitable[HttpResponse]],
        body_limit: Callable[[str, str], int],
        opened: "Callable[[Connection], None]",
        closed: "Callable[[Connection], None]",
    ) -> None:
        self._respond, self._body_limit, self._opened, self._closed = respond, body_limit, opened, closed
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[HttpRequest, bool]] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_closing = False
        self.idle_since: float = 0.0
        """When it was opened, or when the last response was written, on the clock of the event loop."""
        self._head_bytes = 0  # since the last part of a body, or the end of a request
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_lines = self._hosts = 0
        self._method = self._path = self._query = ""
        self._body: list[bytes] = []
        self._size = self._limit = 0

    # -- of the event loop ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the timer of the first request."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- of the type of the protocol
        self._transport = transport
        self._restart_timer()
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what runs for the connection."""
        del exc
        self._transport = self._parser = None
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            self._closed(self)  # else when the handler has ended: it may have begun to write

    def pause_writing(self) -> None:
        """Holds back the next response."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continues with the next response."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parses the next bytes; complete requests are handled in their order."""
        parser = self._parser
        if parser is None:
            return
        self._head_bytes += len(data)
        try:
            parser.feed_data(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise _Rejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except _Rejected as error:
            self._reject(error.status)
        except httptools.HttpParserUpgrade:
            self._parser = None  # the protocol stays HTTP/1.1, and the connection ends after the response
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._reject(cause.status if isinstance(cause, _Rejected) else HTTPStatus.BAD_REQUEST)
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._handle(), name="http-request")

    # -- of the parser -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begins a request."""
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Adds a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a header; trailers are dropped."""
        if self._method:
            return  # after the body: must not be taken for a header (RFC 9110, 6.5.1)
        self._header_lines += 1
        if self._header_lines > MAX_HEADERS:
            raise _Rejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._hosts += key == "host"
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        """Selects how much of the body is kept."""
        parser = self._parser
        if parser is None:
            return
        self._check_head(parser.get_http_version())
        self._method = parser.get_method().decode("latin-1")
        url = httptools.parse_url(self._url)
        self._path = unquote((url.path or b"").decode("latin-1"))
        self._query = (url.query or b"").decode("latin-1")
        self._limit = self._body_limit(self._method, self._path)
        expects_interim = self._headers.get("expect", "").lower() == "100-continue"
        if expects_interim and parser.get_http_version() != "1.0" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_head(self, version: str) -> None:
        """Rejects what llhttp accepts and RFC 9112 does not (sections 2.3, 3.2, 6.1)."""
        if version not in {"1.0", "1.1"}:
            raise _Rejected(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if self._hosts > 1 or (version == "1.1" and not self._hosts):
            raise _Rejected(HTTPStatus.BAD_REQUEST)
        coding = self._headers.get("transfer-encoding")
        if coding is not None and version == "1.0":
            raise _Rejected(HTTPStatus.BAD_REQUEST)
        if coding is not None and coding.lower() != "chunked":
            raise _Rejected(HTTPStatus.NOT_IMPLEMENTED)

    def on_body(self, body: bytes) -> None:
        """Keeps a part of the body; the request is handled at once if it is larger than the limit."""
        self._head_bytes = 0
        kept = body[: max(self._limit - self._size, 0)]
        if kept:
            self._body.append(kept)
        self._size += len(body)
        if self._size > self._limit:
            self._complete(is_cut=True)
            self._parser = None  # the rest must not be taken for the next request

    def on_message_complete(self) -> None:
        """Ends a request."""
        if self._parser is not None:
            self._complete()

    def _complete(self, *, is_cut: bool = False) -> None:
        parser = self._parser
        if parser is None:
            return
        self._head_bytes = 0
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(self._query, keep_blank_values=True):
            query.setdefault(name, []).append(value)
        body = b"".join(self._body)
        request = HttpRequest(self._method, self._path, query, self._headers, body, is_cut)
        self._waiting.append((request, parser.should_keep_alive() and not is_cut))
        if self._transport is not None and not is_cut:
            self._transport.pause_reading()  # no more requests before this one has its response

    # -- responses -----------------------------------------------------------------------------------------------------

    async def _handle(self) -> None:
        try:
            while self._waiting and await self._handle_one(*self._waiting.popleft()):
                pass
        finally:
            self._task = None
            if self._transport is None:
                self._closed(self)
        if self._transport is not None:
            self._transport.resume_reading()

    async def _handle_one(self, request: HttpRequest, keeps_alive: bool) -> bool:
        """Returns whether the connection stays open."""
        if self._timer is not None:
            self._timer.cancel()
        response = await self._respond(request)
        stays_open = keeps_alive and self._parser is not None and not self._is_closing
        self._write(response, request.method, keeps_alive=stays_open)
        if self._transport is not None:
            self._restart_timer(LINGER_SECONDS if request.is_cut else IDLE_SECONDS)
        await self._writable.wait()
        if not stays_open and not request.is_cut:
            self._end()
        return stays_open

    def _write(self, response: HttpResponse, method: str, *, keeps_alive: bool) -> None:
        if self._transport is None:
            return
        lines = [
            f"HTTP/1.1 {response.status} {_phrase(response.status)}",
            f"content-type: {response.content_type}",
            f"content-length: {len(response.body)}",
            f"date: {formatdate(usegmt=True)}",
            f"connection: {'keep-alive' if keeps_alive else 'close'}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._transport.write(head if method == "HEAD" else head + response.body)

    def _reject(self, status: int) -> None:
        self._parser = None
        if self._task is None and not self._waiting:  # else an earlier request has the last response
            self._write(HttpResponse.of_text(f"{_phrase(status)}\n", status), "", keeps_alive=False)
            self._end()

    def _restart_timer(self, seconds: float = IDLE_SECONDS) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self.idle_since = loop.time()
        self._timer = loop.call_later(seconds, self.abort)

    def _end(self) -> None:
        self._parser = None
        if self._transport is not None:
            self._transport.close()

    # -- of the server -------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a request is being handled, or the rest of the last response is being sent."""
        if self._task is not None or self._transport is None:
            return self._task is not None
        return self._transport.is_closing() or self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """Closes the connection, after the response of the request that is being handled."""
        self._is_closing = True
        if self._task is None:
            self._end()

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def cancel(self) -> None:
        """Closes the connection at once, and cancels the handler of its request."""
        self.abort()
        if self._task is not None:
            self._task.cancel()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
