"""Parses one response with llhttp (httptools), which rejects ambiguous framing.

`Connection` feeds it. A response ends where its framing ends: after its length, after the last chunk, or with the
connection if it has neither.
"""

import zlib
from typing import Final, final

import httptools

from kaito.runtime.client.transport import Reply

MAX_HEAD_BYTES: Final = 2**18
"""Largest head of a response, with all interim (1xx) responses before it."""

_SWITCHING_PROTOCOLS: Final = 101


class MalformedResponse(ConnectionError):
    """The bytes are not a response of HTTP/1.1, or the connection ended before the end of the response."""


@final
class ResponseParser:
    """Collects one response.

    Args:
        method: method of the request; a response to HEAD has no body.
    """

    __slots__ = (
        "_body",
        "_head_bytes",
        "_headers",
        "_in_body",
        "_is_delimited",
        "_method",
        "_parser",
        "_status",
        "complete",
        "keeps_alive",
        "started",
    )

    def __init__(self, method: str) -> None:
        self.started: bool = False
        """Whether a byte has arrived."""
        self.complete: bool = False
        self.keeps_alive: bool = False
        """Whether the connection can be used again. Valid when the response is complete."""
        self._method = method
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._head_bytes = 0
        self._in_body = False
        self._is_delimited = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bool:
        """Parses the next bytes; returns whether the response is complete.

        Raises:
            MalformedResponse: they are not a response, or more than one.
        """
        self.started = True
        parser = self._parser
        if parser is None:
            raise MalformedResponse("data after the end of the response")
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._parser = None
            # An exception of a callback is the context of the parser's.
            cause = error.__context__ if isinstance(error.__context__, MalformedResponse) else None
            raise cause or MalformedResponse(f"malformed response: {error}") from None
        if not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
            self._parser = None
            raise MalformedResponse(f"the head of the response exceeds {MAX_HEAD_BYTES} bytes")
        if self.complete:
            self._parser = None  # the parser refers to this object
        return self.complete

    def feed_end(self) -> None:
        """Handles the end of the connection.

        Raises:
            MalformedResponse: the response is incomplete.
        """
        self._parser = None
        if self._in_body and not self._is_delimited:
            self.complete = True
        if not self.complete:
            part = "body" if self._in_body else "head" if self.started else ""
            raise MalformedResponse(
                f"the server closed the connection in the {part} of the response" if part else "server disconnected"
            )

    def stop(self) -> None:
        """Drops the parser, which refers to this object."""
        self._parser = None

    @property
    def has_head(self) -> bool:
        """Whether status and headers are known."""
        return self._in_body

    @property
    def status(self) -> int:
        """HTTP status, once the head has arrived."""
        return self._status

    @property
    def headers(self) -> dict[str, str]:
        """Headers with lower-case names, once the head has arrived."""
        return self._headers

    def take_body(self) -> list[bytes]:
        """Returns the parts of the body that arrived since the last call, and forgets them."""
        body, self._body = self._body, []
        return body

    def reply(self) -> Reply:
        """Returns the complete response, with a compressed body unpacked.

        Raises:
            MalformedResponse: the body cannot be unpacked.
        """
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if body and encoding in {"gzip", "deflate"}:  # not requested, but some proxies compress nevertheless
            try:
                body = zlib.decompress(body, wbits=47 if encoding == "gzip" else 15)
            except zlib.error as error:
                raise MalformedResponse(f"the body is not valid {encoding}: {error}") from None
        return Reply(self._status, self._headers, body)

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        """Rejects a second response."""
        if self.complete:
            raise MalformedResponse("data after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Stores a header; repeated ones are joined."""
        key, text = name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")
        present = self._headers.get(key)
        self._headers[key] = text if present is None else f"{present}, {text}"

    def on_headers_complete(self) -> None:
        """Stores the status and the framing of the body."""
        if self._parser is None:
            return
        self._status = self._parser.get_status_code()
        if self._status == _SWITCHING_PROTOCOLS:
            raise MalformedResponse("the server switched protocols")
        if self._status < 200:
            return
        self._in_body = True
        self._is_delimited = "content-length" in self._headers or "transfer-encoding" in self._headers
        self.keeps_alive = self._parser.should_keep_alive()
        if self._method == "HEAD":
            self.complete = True

    def on_body(self, data: bytes) -> None:
        """Stores a part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Ends the response, or drops an interim one."""
        if self._in_body:
            self.complete = True
        else:
            self._headers = {}
