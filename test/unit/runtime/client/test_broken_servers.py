"""Servers that break off, lie about lengths, are slow, or close connections: both clients have the same outcome."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.http1.request import request_bytes
from kaito.runtime.client.http1.response import MAX_HEAD_BYTES, MalformedResponse, ResponseParser
from kaito.runtime.client.transport import Reply, sending_guarded_by
from kaito.runtime.errors import NotLeader, RequestTimeout, TransportError

SIZED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n" + b'{"a": 42}'
CHUNKED = (
    b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
    b"5;name=value\r\n"
    b'{"a":\r\n4\r\n 42}\r\n0\r\nx-sum: 7\r\n\r\n'
)
UNTIL_CLOSE = b'HTTP/1.1 200 OK\r\n\r\n{"a": 42}'
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + SIZED
CLOSING = SIZED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
OLD = b'HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{"a": 42}'
RESPONSES = {"sized": SIZED, "chunked": CHUNKED, "interim": INTERIM, "closing": CLOSING, "empty": EMPTY, "old": OLD}


Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers the nth request of all connections with the nth script: pieces to send, then None to close."""

    def __init__(self, *scripts: Sequence[bytes | float | None]) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.scripts:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            self.requests.append(head + body)
            for step in self.scripts.pop(0):
                if step is None:
                    return
                if not isinstance(step, bytes):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
        await reader.read()


@asynccontextmanager
async def client_of(handle: Connection) -> AsyncGenerator[HttpTransport]:
    """A client of a server that runs `handle` for every connection."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handled, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials()))
    try:
        yield transport
    finally:
        await transport.close()
        listening.close()
        for task in filter(None, tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def outcome(server: Server, *, method: str = "GET", requests: int = 1) -> list[str]:
    """Requests one after the other: status and body of each, or the class of its error."""
    found: list[str] = []
    async with client_of(server.handle) as transport:
        for _ in range(requests):
            try:
                reply = await transport.request(method, "/x", body=b"{}" if method != "GET" else None, timeout=5)
            except TransportError as error:
                found.append(type(error).__name__)
            else:
                found.append(f"{reply.status} {reply.body.decode()}")
    return found


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("name", RESPONSES)
async def test_complete_responses(name: str) -> None:
    response = RESPONSES[name]
    status, body = (204, "") if name == "empty" else (201 if name == "chunked" else 200, '{"a": 42}')
    assert await outcome(Server([response], [response]), requests=2) == [f"{status} {body}"] * 2


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_may_arrive_byte_by_byte(name: str) -> None:
    response = RESPONSES[name]
    pieces = [response[at : at + 1] for at in range(len(response))]
    [found] = await outcome(Server(pieces))
    assert found.startswith("20")


@pytest.mark.usefixtures("direct")
async def test_the_end_of_the_connection_may_end_a_body() -> None:
    assert await outcome(Server([UNTIL_CLOSE, None])) == ['200 {"a": 42}']


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("name", ["sized", "chunked", "interim"])
async def test_a_response_that_is_cut_at_any_byte_is_an_error(name: str) -> None:
    response = RESPONSES[name]
    for length in range(len(response)):
        assert await outcome(Server([response[:length], None]), method="POST") == ["TransportError"], length


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9x\r\n\r\n" + b"x" * 9,
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_malformed_responses_are_errors(response: bytes) -> None:
    assert await outcome(Server([response, None]), method="POST") == ["TransportError"]


@pytest.mark.usefixtures("direct")
async def test_a_response_that_stops_is_a_timeout() -> None:
    for length in (0, 5, len(SIZED) - 1):
        async with client_of(Server([SIZED[:length], 60.0]).handle) as transport:
            with pytest.raises(RequestTimeout):
                await transport.request("GET", "/x", timeout=0.05)


@pytest.mark.usefixtures("direct")
async def test_a_canceled_request_closes_its_connection() -> None:
    server = Server([0.01, 60.0], [SIZED])
    async with client_of(server.handle) as transport:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transport.request("GET", "/slow")
        assert (await transport.request("GET", "/next")).status == 200
    assert server.connections == 2


@pytest.mark.usefixtures("direct")
async def test_connections_are_used_again_unless_the_server_closes_them() -> None:
    server = Server([SIZED], [CHUNKED], [EMPTY], [CLOSING], [SIZED], [OLD], [SIZED])
    found = await outcome(server, requests=7)
    assert [text[:3] for text in found] == ["200", "201", "204", "200", "200", "200", "200"]
    assert server.connections == 3


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    ("method", "repeated"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)]
)
async def test_only_idempotent_requests_are_repeated_after_the_server_closed_an_idle_connection(
    method: str, repeated: bool
) -> None:
    # The server closes the connection when the second request arrives: the client cannot know whether it was handled.
    server = Server([SIZED], [None], [SIZED])
    found = await outcome(server, method=method, requests=2)
    assert found[0].startswith("200")
    assert found[1].startswith("200") == repeated
    assert len(server.requests) == (3 if repeated else 2)


@pytest.mark.usefixtures("direct")
async def test_an_idle_connection_that_the_server_closed_is_not_used() -> None:
    server = Server([SIZED, None], [SIZED])
    async with client_of(server.handle) as transport:
        assert (await transport.request("POST", "/x", body=b"{}")).status == 200
        await asyncio.sleep(0.05)  # the end of the connection arrives
        assert (await transport.request("POST", "/x", body=b"{}")).status == 200


@pytest.mark.usefixtures("direct")
async def test_bytes_after_a_response_are_not_the_next_response() -> None:
    server = Server([SIZED + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong"], [SIZED])
    async with client_of(server.handle) as transport:
        with suppress(TransportError):  # aiohttp's parser rejects the first response as well
            await transport.request("GET", "/x")
        await asyncio.sleep(0.02)
        reply = await transport.request("GET", "/x")
    assert reply.body == b'{"a": 42}'


@pytest.mark.usefixtures("direct")
async def test_a_response_before_the_whole_request_was_read_is_returned() -> None:
    async def rejects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(60)

    async with client_of(rejects) as transport:
        reply = await transport.request("POST", "/x", body=b"x" * 30_000_000, timeout=10)
    assert reply.status == 413


@pytest.mark.usefixtures("direct")
async def test_requests_at_once_get_their_own_responses() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1]
            await asyncio.sleep(random.Random(path).random() / 200)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))

    async with client_of(echo) as transport:
        replies: list[Reply] = await asyncio.gather(*(transport.request("GET", f"/{number}") for number in range(300)))
    assert [reply.body.decode() for reply in replies] == [f"/{number}" for number in range(300)]


@pytest.mark.usefixtures("direct")
async def test_a_rejected_guard_sends_nothing_and_keeps_the_connection() -> None:
    server = Server([SIZED], [SIZED])

    def reject() -> None:
        message = "lease lost"
        raise NotLeader(message)

    async with client_of(server.handle) as transport:
        await transport.request("GET", "/x")
        with sending_guarded_by(reject), pytest.raises(NotLeader):
            await transport.request("POST", "/x", body=b"{}")
        await transport.request("GET", "/x")
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET", b"GET"]


# The parser.


@pytest.mark.sample(20)
@pytest.mark.parametrize("seed", range(200))
def test_the_pieces_of_a_response_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    response = rng.choice([SIZED, CHUNKED, INTERIM, CLOSING, OLD])
    parser = ResponseParser("GET")
    position = 0
    while position < len(response):
        size = rng.randint(1, 40)
        parser.feed(response[position : position + size])
        position += size
    assert parser.complete
    assert parser.reply().body == b'{"a": 42}'
    assert parser.keeps_alive == (response not in (CLOSING, OLD))


@pytest.mark.sample(50)
@pytest.mark.parametrize("seed", range(500))
def test_changed_bytes_never_raise_another_error(seed: int) -> None:
    rng = random.Random(seed)
    response = bytearray(rng.choice([SIZED, CHUNKED, INTERIM, UNTIL_CLOSE]))
    for _ in range(rng.randint(1, 4)):
        response[rng.randrange(len(response))] = rng.randrange(256)
    parser = ResponseParser("GET")
    with suppress(MalformedResponse):
        parser.feed(bytes(response))
        if not parser.complete:
            parser.feed_end()
        parser.reply()


def test_an_endless_head_is_an_error() -> None:
    parser = ResponseParser("GET")
    parser.feed(b"HTTP/1.1 200 OK\r\n")
    for _ in range(MAX_HEAD_BYTES // 6 - 3):
        parser.feed(b"x: y\r\n")
    with pytest.raises(MalformedResponse, match="head of the response exceeds"):
        parser.feed(b"x: y\r\n" * 3)


def test_a_response_to_head_has_no_body() -> None:
    parser = ResponseParser("HEAD")
    parser.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    assert parser.complete
    assert parser.reply() == Reply(200, {"content-length": "9"}, b"")


def test_a_switch_of_protocols_is_an_error() -> None:
    with pytest.raises(MalformedResponse):
        ResponseParser("GET").feed(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")


# The request.


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a\r\nx: y", {}),
        ("/a", {"x": "y\r\nz: 1"}),
        ("/a", {"x": "y\nz: 1"}),
        ("/a", {"x\r": "y"}),
        ("/a", {"x": "\0"}),
    ],
)
def test_line_breaks_in_a_request_are_rejected(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a line break or a null byte"):
        request_bytes("GET", target, "host", headers, None)


def test_a_request_has_a_length_if_it_has_a_body() -> None:
    assert (
        request_bytes("GET", "/a", "h:1", {"x": "ü"}, None) == "GET /a HTTP/1.1\r\nhost: h:1\r\nx: ü\r\n\r\n".encode()
    )
    assert request_bytes("POST", "/a", "h", {}, None).endswith(b"\r\ncontent-length: 0\r\n\r\n")
    assert request_bytes("PUT", "/a", "h", {}, b"{}").endswith(b"\r\ncontent-length: 2\r\n\r\n{}")
