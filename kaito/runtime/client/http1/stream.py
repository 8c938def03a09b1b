"""A response that is read while it arrives, such as a watch, on a connection of its own.

`ConnectionPool.stream` opens it. The callback of the event loop reads until `BUFFER_BYTES` wait for the reader, which
then holds back the server through TCP. The connection is not used again, because a watch is rarely read to its end.
"""

import asyncio
import socket
import ssl
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from kaito.runtime.client.http1.connection import READ_BYTES, until_writable
from kaito.runtime.client.http1.response import MalformedResponse, ResponseParser

BUFFER_BYTES: Final = 2**18
"""Bytes that are kept for a slow reader; the connection is not read while there are more."""

_ENCODINGS: Final = {"gzip": 47, "deflate": 15}
"""Window sizes for zlib by content encoding. None is requested, but some proxies compress nevertheless."""


@final
class ResponseStream:
    """An open connection with one response.

    Args:
        sock: connected, non-blocking, and after the handshake if it is a TLS socket.
        method: method of the request.
        idle: time in seconds without data after which waiting fails; None for no limit.
        on_close: called once when the connection is closed.
    """

    __slots__ = (
        "_chunks",
        "_data",
        "_decompressor",
        "_ended",
        "_error",
        "_idle",
        "_is_paused",
        "_loop",
        "_on_close",
        "_response",
        "_size",
        "_sock",
        "_waiter",
        "is_open",
    )

    def __init__(
        self,
        sock: socket.socket,
        method: str,
        *,
        idle: float | None,
        on_close: "Callable[[ResponseStream], None]",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._idle = idle
        self._on_close: Callable[[ResponseStream], None] | None = on_close
        self._response = ResponseParser(method)
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._error: Exception | None = None
        self._decompressor: Any = None  # zlib's type has no name
        self.is_open: bool = True
        self._loop.add_reader(sock, self._read)

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers with lower-case names."""
        return self._response.headers

    async def begin(self, request: bytes) -> None:
        """Sends the request and waits for the head of the response.

        Raises:
            OSError: the connection failed, or the response is malformed.
            TimeoutError: nothing arrived for too long.
        """
        try:
            try:
                await self._write(request)
            except OSError:
                self._read()  # a server that rejects a request may close the connection before it has read all of it
                if not self._response.has_head:
                    raise
            while not self._response.has_head and self.is_open:
                await self._wait()
            if not self._response.has_head:
                raise self._error or ConnectionError("the connection is closed")
            window = _ENCODINGS.get(self.headers.get("content-encoding", "").strip().lower())
            self._decompressor = None if window is None else zlib.decompressobj(wbits=window)
        except BaseException:
            self.close()
            raise

    async def next_chunk(self) -> bytes:
        """Returns the next part of the body; empty at its end.

        Raises:
            OSError: the connection failed, or the response is malformed. What arrived before is returned first.
            TimeoutError: nothing arrived for too long.
        """
        while True:
            while not self._chunks:
                if not self.is_open:
                    if self._error is not None:
                        raise self._error
                    return b""
                await self._wait()
            chunk = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
            self._chunks.clear()
            self._size = 0
            if self._is_paused and self.is_open:
                self._is_paused = False
                self._loop.add_reader(self._sock, self._read)
                self._loop.call_soon(self._read)  # the rest of a TLS record is in memory, where epoll does not see it
            chunk = self._unpacked(chunk)
            if chunk:
                return chunk

    def close(self) -> None:
        """Closes the connection; what has not been read is dropped."""
        self._chunks.clear()
        self._end(None)

    def abort(self) -> None:
        """Closes the connection, so that the reader gets an error."""
        self._end(ConnectionError("the connection is closed"))

    def _unpacked(self, chunk: bytes) -> bytes:
        if self._decompressor is None:
            return chunk
        try:
            unpacked: bytes = self._decompressor.decompress(chunk)
        except zlib.error as error:
            self.close()
            raise MalformedResponse(f"the body cannot be unpacked: {error}") from None
        return unpacked

    async def _wait(self) -> None:
        """Waits until the state changes."""
        waiter = self._waiter = self._loop.create_future()
        try:
            if self._idle is None:
                await waiter
                return
            limit = asyncio.timeout(self._idle)
            try:
                async with limit:
                    await waiter
            except TimeoutError:
                if limit.expired():
                    raise TimeoutError(f"no data within {self._idle:g} s") from None
                raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if not self.is_open:
            return
        if error is not None:
            error.__traceback__ = None  # its frame refers to this connection
            self._error = error
        self.is_open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._response.stop()
        if not self._ended.done():
            self._ended.set_result(None)
        self._wake()
        if self._on_close is not None:
            self._on_close(self)
            self._on_close = None

    # Reading.

    def _read(self) -> None:
        """Reads what the socket has; the callback of the event loop."""
        while self.is_open and not self._is_paused:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
                break
            except ssl.SSLWantWriteError:
                self._loop.add_writer(self._sock, self._read_when_writable)
                break
            except OSError as error:
                self._end(error)
                return
            self._received(data)
            if len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket):
                break  # if there is more, the event loop calls back again
        self._wake()

    def _read_when_writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._read()

    def _received(self, data: bytes) -> None:
        """Passes the bytes to the parser, and keeps the parts of the body."""
        error: Exception | None = None
        is_complete = not data
        try:
            if data:
                is_complete = self._response.feed(data)
            else:
                self._response.feed_end()
        except MalformedResponse as malformed:
            error = malformed
        for part in self._response.take_body():
            self._chunks.append(part)
            self._size += len(part)
        if error is not None or is_complete:
            self._end(error)
        elif self._size >= BUFFER_BYTES:
            self._is_paused = True
            self._loop.remove_reader(self._sock)

    # Writing.

    async def _write(self, data: bytes) -> None:
        view, position = memoryview(data), 0
        while position < len(data) and self.is_open:
            try:
                position += self._sock.send(view[position:])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                await until_writable(self._loop, self._sock, self._ended)
            except ssl.SSLWantReadError:  # a renegotiation: the reader's callback continues it
                await asyncio.sleep(0)
