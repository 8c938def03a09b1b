"""The HTTP server of probes, metrics and webhooks, byte for byte, and over TCP where the system matters."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from kaito.runtime.http_server import HttpRequest, HttpResponse, HttpServer, Page
from kaito.runtime.http_server.connection import IDLE_SECONDS, LINGER_SECONDS, Connection
from kaito.runtime.http_server.messages import MAX_HEAD_BYTES, MAX_HEADERS
from kaito.runtime.http_server.server import MAX_CONNECTIONS

pytestmark = pytest.mark.virtual_time

MAX_BODY = 8


class FakeTransport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.reads = True
        self.is_closed = False
        self.is_mute = False
        """Whether the client does not answer the end of the TLS session."""
        self.on_close: Callable[[], None] = lambda: None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if not self.is_mute:
                asyncio.get_running_loop().call_soon(self.on_close)

    def abort(self) -> None:
        self.is_mute = False
        self.is_closed = False
        self.close()


class Client:
    """A server with a page, and one connection to it."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.go = asyncio.Event()
        self.go.set()
        self.pages = {
            "/page": Page(self.handle),
            "/named/": Page(self.handle),
            "/post": Page(self.handle, ("POST",), MAX_BODY),
            "/broken": Page(self.fail),
        }
        self.server = HttpServer(self.pages, close_seconds=5)
        self.connection: Connection = self.server.connection()
        self.transport = FakeTransport()
        self.transport.on_close = lambda: self.connection.connection_lost(None)
        self.connection.connection_made(self.transport)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        await self.go.wait()
        return HttpResponse.of_text(f"{request.method} {request.path} {request.body.decode()}")

    async def fail(self, _: HttpRequest) -> HttpResponse:
        raise LookupError

    async def send(self, data: bytes) -> str:
        """Sends bytes, and returns what was written since, without dates."""
        self.connection.data_received(data)
        await asyncio.sleep(0.01)
        text, self.transport.written = self.transport.written.decode(), b""
        return "\r\n".join(line for line in text.split("\r\n") if not line.startswith("date: "))


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/{version}", "Host: x", *headers, "", "")).encode()


def expected(body: str, status: str = "200 OK", connection: str = "keep-alive", *more: str) -> str:
    head = (
        f"HTTP/1.1 {status}",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {len(body)}",
        f"connection: {connection}",
    )
    return "\r\n".join((*head, *more, "", body))


async def test_requests_of_one_connection() -> None:
    client = Client()
    assert await client.send(get("/page?verbose&exclude=a&exclude=b%20c")) == expected("GET /page ")
    assert client.requests[0].query == {"verbose": [""], "exclude": ["a", "b c"]}
    assert client.requests[0].parameter("exclude") == "a"
    assert client.requests[0].headers == {"host": "x"}
    assert await client.send(get("/named/one%2Dtwo")) == expected("GET /named/one-two ")
    assert await client.send(get("/page", method="HEAD")) == expected("HEAD /page ").removesuffix("HEAD /page ")
    assert await client.send(get("/named/")) == expected("404: Not Found", "404 Not Found")
    assert await client.send(get("/named/one/two")) == expected("404: Not Found", "404 Not Found")
    not_allowed = expected("405: Method Not Allowed", "405 Method Not Allowed", "keep-alive", "allow: GET,HEAD")
    assert await client.send(get("/page", method="DELETE")) == not_allowed
    failed = expected("500 Internal Server Error\n", "500 Internal Server Error")
    assert await client.send(get("/broken")) == failed
    assert not client.transport.is_closed


async def test_requests_arrive_in_any_pieces_and_are_answered_in_their_order() -> None:
    client = Client()
    client.go.clear()
    data = get("/named/a") + get("/named/b")
    for index in range(len(data)):
        assert await client.send(data[index : index + 1]) == ""
    assert [request.path for request in client.requests] == ["/named/a"]
    assert not client.transport.reads, "a client cannot send requests without limit"
    client.go.set()
    assert await client.send(b"") == expected("GET /named/a ") + expected("GET /named/b ")
    assert client.transport.reads


async def test_bodies_are_limited() -> None:
    client = Client()
    assert await client.send(get("/post", "Content-Length: 8", method="POST") + b"01234567") == expected(
        "POST /post 01234567"
    )
    chunked = get("/post", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST")
    assert await client.send(chunked) == "HTTP/1.1 100 Continue\r\n\r\n"
    assert await client.send(b"4\r\nabcd\r\n0\r\n\r\n") == expected("POST /post abcd")
    old = get(
        "/post", "Content-Length: 1", "Connection: keep-alive", "Expect: 100-continue", method="POST", version="1.0"
    )
    assert await client.send(old) == "", "HTTP/1.0 has no interim responses"
    assert await client.send(b"a") == expected("POST /post a")
    cut = get("/post", "Content-Length: 20", method="POST") + b"0123456789"
    assert await client.send(cut) == expected("POST /post 01234567", connection="close")
    assert [request.is_cut for request in client.requests] == [False, False, False, True]
    assert await client.send(b"0123456789" + get("/page")) == "", "what follows is not a request"
    assert not client.transport.is_closed, "the client still sends, and would not read the response"
    await asyncio.sleep(LINGER_SECONDS)
    assert client.transport.is_closed


async def test_trailers_are_limited_and_are_not_headers() -> None:
    client = Client()
    chunked = get("/post", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n0\r\n"
    assert await client.send(chunked + b"Authorization: Bearer x\r\nHost: y\r\n\r\n") == expected("POST /post a")
    assert client.requests[0].headers == {"host": "x", "transfer-encoding": "chunked"}
    assert await client.send(chunked) == ""
    for number in range(MAX_HEAD_BYTES // 1000):
        assert await client.send(b"X%d: %s\r\n" % (number, b"y" * 990)) == ""
    assert (await client.send(b"X: " + b"y" * 1000)).startswith("HTTP/1.1 431 ")
    assert client.transport.is_closed


async def test_a_body_of_many_small_chunks_is_not_taken_for_a_large_head() -> None:
    client = Client()
    client.pages["/post"] = Page(client.handle, ("POST",), 2 * MAX_HEAD_BYTES)
    await client.send(get("/post", "Transfer-Encoding: chunked", method="POST"))
    chunk = b"1\r\na\r\n"
    for _ in range(16):
        assert await client.send(chunk * (MAX_HEAD_BYTES // 16)) == ""
    await client.send(b"0\r\n\r\n")
    assert [len(request.body) for request in client.requests] == [MAX_HEAD_BYTES]


async def test_a_request_before_a_malformed_one_has_its_response() -> None:
    client = Client()
    assert await client.send(get("/page") + b"nonsense\r\n\r\n") == expected("GET /page ", connection="close")
    assert client.transport.is_closed


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (get("/page", "Content-Length: 1", "Transfer-Encoding: chunked"), "400 Bad Request"),
        (get("/page", "X: " + "y" * 70_000)[:-4], "431 Request Header Fields Too Large"),
        (get("/page", *["X:"] * MAX_HEADERS), "431 Request Header Fields Too Large"),
        (get("/page", *[f"X-{number}:" for number in range(60_000)]), "431 Request Header Fields Too Large"),
        (b"GET /page HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (get("/page", "HOST: y"), "400 Bad Request"),
        (get("/page", "Transfer-Encoding: chunked", version="1.0"), "400 Bad Request"),
        (get("/page", "Transfer-Encoding: gzip, chunked"), "501 Not Implemented"),
        (get("/page", version="2.0"), "505 HTTP Version Not Supported"),
        (get("/page", "A: b\r\n c"), "400 Bad Request"),
        (get("/page", "A : b"), "400 Bad Request"),
        (get("/page", "A: b\rC: d"), "400 Bad Request"),
        (b"GET /page HTTP/1.1\nHost: x\n\n", "400 Bad Request"),
        (get("/page", "Content-Length: 1", "Content-Length: 1"), "400 Bad Request"),
        (get("/page", "Content-Length: 1, 1"), "400 Bad Request"),
        (get("/page", "Content-Length: +1"), "400 Bad Request"),
        (get("/page", "Transfer-Encoding: chunked") + b"0x1\r\na\r\n0\r\n\r\n", "400 Bad Request"),
        (get("/page", "Transfer-Encoding: chunked") + b"1\na\r\n0\r\n\r\n", "400 Bad Request"),
        (get("/page", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n", "400 Bad Request"),
    ],
)
async def test_malformed_requests_end_the_connection(data: bytes, status: str) -> None:
    client = Client()
    answer = await client.send(data)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n")
    assert client.transport.is_closed
    assert client.requests == []


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (get("/page", "Connection: close"), "close"),
        (get("/page", version="1.0"), "close"),
        (get("/page", "Connection: keep-alive", version="1.0"), "keep-alive"),
        (get("/page", "Connection: Upgrade", "Upgrade: h2c"), "close"),
    ],
)
async def test_when_a_connection_stays_open(request_: bytes, connection: str) -> None:
    client = Client()
    assert await client.send(request_) == expected("GET /page ", connection=connection)
    assert client.transport.is_closed is (connection == "close")


async def test_http_1_0_needs_no_host() -> None:
    assert await Client().send(b"GET /page HTTP/1.0\r\n\r\n") == expected("GET /page ", connection="close")


async def test_the_connection_that_is_idle_for_longest_is_closed_for_a_new_one() -> None:
    client = Client()
    client.go.clear()
    await client.send(get("/page"))  # busy, and the oldest
    others: list[FakeTransport] = []
    connections: list[Connection] = []
    for number in range(MAX_CONNECTIONS):
        if number == MAX_CONNECTIONS - 1:
            connections[0].data_received(get("/page/none"))
            await asyncio.sleep(0.01)
        connection, transport = client.server.connection(), FakeTransport()
        transport.on_close = partial(connection.connection_lost, None)
        connection.connection_made(transport)
        others.append(transport)
        connections.append(connection)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    assert not client.transport.is_closed
    assert [number for number, each in enumerate(others) if each.is_closed] == [1]
    assert client.server.open_connections == MAX_CONNECTIONS


async def test_idle_and_slow_clients_are_closed_and_a_slow_handler_is_not() -> None:
    client = Client()
    await client.send(get("/page"))
    await asyncio.sleep(IDLE_SECONDS - 1)
    await client.send(get("/page")[:10])
    before = client.transport.is_closed
    await asyncio.sleep(1)
    assert (before, client.transport.is_closed) == (False, True), "the head has not arrived in time"
    slow = Client()
    slow.go.clear()
    await slow.send(get("/page"))
    await asyncio.sleep(10 * IDLE_SECONDS)
    slow.go.set()
    assert await slow.send(b"") == expected("GET /page ")


async def test_a_handler_ends_although_its_client_has_left() -> None:
    client = Client()
    client.go.clear()
    await client.send(get("/page"))
    client.transport.close()
    await asyncio.sleep(1)
    before = client.connection.is_busy
    client.go.set()
    await asyncio.sleep(1)
    assert (before, client.connection.is_busy) == (True, False)
    assert client.server.open_connections == 0


async def test_a_client_that_does_not_read_has_no_second_response() -> None:
    client = Client()
    client.connection.pause_writing()
    first = await client.send(get("/page") + get("/page"))
    assert first == expected("GET /page ")
    client.connection.resume_writing()
    assert await client.send(b"") == expected("GET /page ")


async def test_the_stop_waits_for_the_response() -> None:
    for takes, closed_after in ((2.0, 2.0), (60.0, 5.0)):
        client = Client()
        await client.server.start("127.0.0.1", 0)
        client.go.clear()
        await client.send(get("/page"))
        loop = asyncio.get_running_loop()
        started = loop.time()
        loop.call_later(takes, client.go.set)
        await client.server.stop()
        assert loop.time() - started == pytest.approx(closed_after, abs=0.1)
        assert (b"connection: close" in client.transport.written) is (takes < closed_after + 1)
        assert client.transport.is_closed
        assert not client.server.is_listening


async def test_the_stop_waits_only_for_a_client_that_has_not_received_everything() -> None:
    for unsent, closed_after in ((0, 0.0), (1, 5.0)):
        client = Client()
        await client.server.start("127.0.0.1", 0)
        await client.send(get("/page"))
        client.transport.is_mute, client.transport.unsent = True, unsent
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.server.stop()
        assert loop.time() - started == pytest.approx(closed_after, abs=0.1)
        await asyncio.sleep(1)
        assert client.server.open_connections == 0


async def test_a_connection_whose_handshake_ends_after_the_stop_is_closed() -> None:
    client = Client()
    await client.server.start("127.0.0.1", 0)
    late = client.server.connection()
    transport = FakeTransport()
    transport.on_close = lambda: late.connection_lost(None)
    await client.server.stop()
    late.connection_made(transport)
    late.data_received(get("/page"))
    await asyncio.sleep(1)
    assert transport.is_closed
    assert client.requests == []
    assert client.server.open_connections == 0
