"""A connection to a server: a non-blocking socket, with TLS in place, and one request at a time.

`ConnectionPool` owns it. One callback of the event loop reads while the connection is open, so that the end of an idle
connection is noticed at once. A request that fails or is canceled closes the connection.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, final

from kaito.runtime.client.http1.response import MalformedResponse, ResponseParser
from kaito.runtime.client.transport import Reply

READ_BYTES: Final = 2**17
WRITE_BYTES: Final = 2**16
"""Bytes passed to the socket in one call; encryption of more would block the event loop."""


class Disconnected(ConnectionError):
    """The connection ended before the first byte of the response.

    Args:
        message: the reason.
        sent: whether a byte of the request was handed to the operating system, so that the server may have received it.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@final
class Connection:
    """An open connection.

    Args:
        sock: connected, non-blocking, and after the handshake if it is a TLS socket.
        on_close: called once when the connection is closed, by either side.
    """

    __slots__ = ("_done", "_error", "_loop", "_on_close", "_response", "_sock", "is_open")

    def __init__(self, sock: socket.socket, on_close: "Callable[[Connection], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_close: Callable[[Connection], None] | None = on_close
        self._response: ResponseParser | None = None
        self._done: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.is_open: bool = True
        self._loop.add_reader(sock, self._read)

    async def exchange(self, method: str, data: bytes) -> Reply:
        """Sends a request and returns the complete response. Closes the connection unless it can be used again.

        Args:
            method: method of the request.
            data: the whole request.

        Raises:
            Disconnected: the connection ended before the first byte of the response.
            OSError: the connection failed, or the response is malformed.
        """
        if not self.is_open:
            raise Disconnected("server disconnected", sent=False)
        response = self._response = ResponseParser(method)
        done = self._done = self._loop.create_future()
        sent = 0
        try:
            try:
                sent = await self._write(data, done)
                await done
            except OSError as error:
                # A server that rejects a request may close the connection before it has read all of it.
                if not response.complete:
                    self._error = self._error or error
            if not response.complete:
                raise self._failure(response, sent=bool(sent) or response.started)
            if not response.keeps_alive or sent < len(data):
                self.close()
            return response.reply()
        except BaseException:
            self.close()
            raise
        finally:
            self._response = self._done = self._error = None

    def close(self) -> None:
        """Closes the socket; a request that is under way fails."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._finish()
        if self._on_close is not None:
            self._on_close(self)
            self._on_close = None

    def _failure(self, response: ResponseParser, *, sent: bool) -> Exception:
        error = self._error or ConnectionError("the connection is closed")
        if response.started:
            return error
        return Disconnected(str(error) or type(error).__name__, sent=sent)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        error.__traceback__ = None  # its frame refers to this connection
        self._error = error
        self.close()

    # Reading.

    def _read(self) -> None:
        """Reads what the socket has; the callback of the event loop."""
        while self.is_open:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self._loop.add_writer(self._sock, self._read_when_writable)
                return
            except OSError as error:
                self._fail(error)
                return
            if not self._received(data) or self._is_drained(data):
                break

    def _is_drained(self, data: bytes) -> bool:
        """Whether the socket probably has no more bytes. If it has, the event loop calls back again.

        TLS keeps the rest of a record in memory, where the event loop does not see it.
        """
        if isinstance(self._sock, ssl.SSLSocket):
            is_complete = self._response is None or self._response.complete
            return is_complete and not self._sock.pending()
        return len(data) < READ_BYTES

    def _read_when_writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._read()

    def _received(self, data: bytes) -> bool:
        """Passes the bytes to the response; returns whether to read on."""
        response = self._response
        if response is None or response.complete:
            # The end of an idle connection, or bytes that belong to no request.
            self.close()
            return False
        try:
            if data and response.feed(data):
                self._finish()
            elif not data:
                response.feed_end()
        except MalformedResponse as error:
            self._fail(error)
            return False
        if not data:
            self.close()
        return bool(data)

    # Writing.

    async def _write(self, data: bytes, done: "asyncio.Future[None]") -> int:
        """Writes the request until it is complete or the response is; returns the number of bytes written."""
        view, position = memoryview(data), 0
        while position < len(data) and not done.done():
            try:
                position += self._sock.send(view[position : position + WRITE_BYTES])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                await until_writable(self._loop, self._sock, done)
            except ssl.SSLWantReadError:  # a renegotiation: the reader's callback continues it
                await asyncio.sleep(0)
            except OSError as error:
                if position == 0:
                    raise Disconnected(str(error) or type(error).__name__, sent=False) from None
                await self._read_early_response(error)
                return position
        return position

    async def _read_early_response(self, error: OSError) -> None:
        """Reads a response that arrived before the connection broke; raises the error if there is none."""
        self._read()
        if self._response is None or not self._response.complete:
            raise error


async def handshake(sock: socket.socket, context: ssl.SSLContext, server_name: str) -> ssl.SSLSocket:
    """Starts TLS on a connected socket, and returns the TLS socket. Closes the socket on failure.

    Raises:
        OSError: the handshake failed, for example because the certificate is not trusted.
    """
    loop = asyncio.get_running_loop()
    try:
        # A ragged end is an error: it may have been forged to shorten a response that the end delimits.
        secure = context.wrap_socket(
            sock, do_handshake_on_connect=False, suppress_ragged_eofs=False, server_hostname=server_name or None
        )
    except BaseException:
        sock.close()
        raise
    try:
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                await _until_readable(loop, secure)
            except ssl.SSLWantWriteError:
                await until_writable(loop, secure)
            else:
                return secure
    except BaseException:
        secure.close()
        raise


async def _until_readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


async def until_writable(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, done: "asyncio.Future[None] | None" = None
) -> None:
    """Waits until the socket is writable, or `done` is."""
    ready: asyncio.Future[None] = loop.create_future()

    def end(_: object) -> None:
        _set(ready)

    loop.add_writer(sock, _set, ready)
    if done is not None:
        done.add_done_callback(end)
    try:
        await ready
    finally:
        if sock.fileno() >= 0:  # a closed socket has no writer any more
            loop.remove_writer(sock)
        if done is not None:
            done.remove_done_callback(end)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
