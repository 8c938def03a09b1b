"""Streams of servers that break off, are slow, send too much or nonsense: both clients have the same outcome."""

import asyncio
import random
import ssl
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kaito.runtime.client.config import ClusterConfig, NoCredentials, TlsConfig
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.http1.stream import BUFFER_BYTES
from kaito.runtime.client.transport import sending_guarded_by
from kaito.runtime.errors import NotLeader, TransportError
from test.unit.runtime.client.test_broken_servers import Connection, Server, client_of
from test.unit.runtime.client.test_tls import authority, issue

pytestmark = pytest.mark.usefixtures("direct")

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n"
    b'7\r\n{"a":1}\r\n2;ext=1\r\n\r\n\r\n7\r\n{"b":2}\r\n0\r\n\r\n'
)
SIZED = b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"a":1}\r\n{"b":2}'
UNTIL_CLOSE = b'HTTP/1.1 200 OK\r\n\r\n{"a":1}\r\n{"b":2}'
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + CHUNKED
BODY = b'{"a":1}\r\n{"b":2}'


async def outcome(server: Server, *, idle: float | None = None) -> tuple[str, bytes, str]:
    """The status, the body as far as it arrived, and the class of the error; empty where there is none."""
    status, body = "", b""
    async with client_of(server.handle) as transport:
        try:
            async with transport.stream("GET", "/watch", idle=idle) as stream:
                status = str(stream.status)
                async for chunk in stream.chunks():
                    body += chunk
        except TransportError as error:
            return status, body, type(error).__name__
    return status, body, ""


@pytest.mark.parametrize("response", [CHUNKED, SIZED, UNTIL_CLOSE, INTERIM])
async def test_a_stream_may_arrive_in_any_pieces(response: bytes) -> None:
    rng = random.Random(response)
    assert await outcome(Server([response, None])) == ("200", BODY, "")
    assert await outcome(Server([*(response[at : at + 1] for at in range(len(response))), None])) == ("200", BODY, "")
    for _ in range(5):
        cuts = sorted(rng.sample(range(len(response)), 6))
        pieces = [response[a:b] for a, b in zip([0, *cuts], [*cuts, len(response)], strict=True)]
        assert await outcome(Server([*pieces, None])) == ("200", BODY, "")


@pytest.mark.parametrize("response", [CHUNKED, SIZED, INTERIM])
async def test_a_stream_that_is_cut_at_any_byte_is_an_error_and_invents_nothing(response: bytes) -> None:
    head = response.index(b"\r\n\r\n", response.index(b" 200 ")) + 4
    for length in range(len(response)):
        cut = [response[:length], None]
        status, body, error = await outcome(Server(cut, cut))  # aiohttp tries once more if there is no response at all
        assert error == "TransportError", length
        assert status in ({"", "200"} if length >= head else {""})
        assert BODY.startswith(body)


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nwrong",
    ],
)
async def test_malformed_streams_are_errors(response: bytes) -> None:
    assert (await outcome(Server([response, None])))[2] == "TransportError"


@pytest.mark.sample(10)
@pytest.mark.parametrize("seed", range(40))
async def test_changed_bytes_are_a_body_or_a_transport_error(seed: int) -> None:
    rng = random.Random(seed)
    response = bytearray(rng.choice([CHUNKED, SIZED, UNTIL_CLOSE, INTERIM]))
    for _ in range(rng.randint(1, 3)):
        response[rng.randrange(len(response))] = rng.randrange(256)
    _, _, error = await outcome(Server([bytes(response), None]), idle=1.0)
    assert error in {"", "TransportError", "RequestTimeout"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_a_proxy_compressed_is_unpacked_as_it_arrives(encoding: str) -> None:
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    pieces = [packer.compress(BODY[:8]) + packer.flush(zlib.Z_SYNC_FLUSH), packer.compress(BODY[8:]) + packer.flush()]
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\n\r\n".encode()
    assert await outcome(Server([head, *pieces, None])) == ("200", BODY, "")


async def test_a_stream_that_stops_anywhere_is_a_timeout() -> None:
    for length in (0, 20, len(CHUNKED) - 5):
        _, body, error = await outcome(Server([CHUNKED[:length], 60.0]), idle=0.05)
        assert error == "RequestTimeout"
        assert BODY.startswith(body)


async def test_slow_bytes_are_no_timeout() -> None:
    pieces: list[bytes | float | None] = [part for byte in CHUNKED[:60] for part in (bytes([byte]), 0.001)]
    assert await outcome(Server([*pieces, CHUNKED[60:], None]), idle=0.5) == ("200", BODY, "")


async def test_a_scope_that_is_left_or_canceled_closes_the_connection() -> None:
    closed: asyncio.Queue[None] = asyncio.Queue()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await reader.read()
        closed.put_nowait(None)

    async with client_of(endless) as transport:
        async with transport.stream("GET", "/watch") as stream:
            assert await anext(aiter(stream.chunks())) == b"ab"
        await closed.get()
        arrived = asyncio.Event()

        async def read_on() -> None:
            async with transport.stream("GET", "/watch") as stream:
                async for _ in stream.chunks():
                    arrived.set()

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read_on())
            await arrived.wait()
            reading.cancel()
        assert reading.cancelled()
        await closed.get()


async def test_a_canceled_stream_without_a_head_closes_the_connection() -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        closed.set()

    async def open_stream(transport: HttpTransport) -> None:
        async with transport.stream("GET", "/watch"):
            raise AssertionError("the server sent no head")

    async with client_of(silent) as transport:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(open_stream(transport))
            await arrived.wait()
            opening.cancel()
        assert opening.cancelled()
        await closed.wait()


async def test_readers_get_an_error_when_the_transport_closes() -> None:
    handle = Server([CHUNKED[:-5], 60.0]).handle
    async with client_of(handle) as transport, transport.stream("GET", "/watch") as stream:
        chunks = aiter(stream.chunks())
        await anext(chunks)
        await transport.close()
        with pytest.raises(TransportError):
            await anext(chunks)


async def test_a_rejected_guard_opens_no_stream() -> None:
    server = Server([CHUNKED, None])

    def reject() -> None:
        message = "lease lost"
        raise NotLeader(message)

    async with client_of(server.handle) as transport:
        with sending_guarded_by(reject), pytest.raises(NotLeader):
            async with transport.stream("GET", "/watch"):
                pass
    assert server.requests == []


async def test_streams_do_not_wait_for_each_other_nor_requests_for_them() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        is_watch = b"/watch" in head
        writer.write(CHUNKED[:-5] if is_watch else SIZED)
        await writer.drain()
        if is_watch:
            await reader.read()

    async with client_of(serve) as transport:
        async with asyncio.timeout(30):
            for _ in range(3):
                opened = [transport.stream("GET", "/watch") for _ in range(80)]
                streams = [await each.__aenter__() for each in opened]
                assert {stream.status for stream in streams} == {200}
                assert (await transport.request("GET", "/x")).status == 200
                for each in opened:
                    await each.__aexit__(None, None, None)


# Much data.

SIZE = 16 * 2**20


async def send_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: list[int]) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
    for number in range(SIZE // 2**16):
        writer.write(bytes([number % 251]) * 2**16)
        await writer.drain()
        sent.append(2**16)
    await writer.drain()


@asynccontextmanager
async def tls_client_of(handle: Connection, folder: Path) -> AsyncGenerator[HttpTransport]:
    """A client of a TLS server that runs `handle` for every connection."""
    ca = authority()
    (folder / "ca.crt").write_bytes(ca.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issue(ca, folder, "127.0.0.1"))

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    tls = TlsConfig(ca_file=str(folder / "ca.crt"))
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials(), tls=tls))
    try:
        yield transport
    finally:
        await transport.close()
        listening.close()


async def read_slowly(transport: HttpTransport, sent: Sequence[int]) -> None:
    """Reads nothing at first, so that the server is held back, then everything."""
    async with transport.stream("GET", "/list") as stream:
        before = -1
        while sum(sent) != before:
            before = sum(sent)
            await asyncio.sleep(0.1)
        assert before < SIZE - 2 * BUFFER_BYTES, "the server is held back"
        number = position = 0
        async for chunk in stream.chunks():
            for byte in (chunk[0], chunk[-1]):
                assert byte in {(position // 2**16) % 251, ((position + len(chunk) - 1) // 2**16) % 251}
            position += len(chunk)
            number += 1
            if number % 16 == 0:
                await asyncio.sleep(0)
        assert position == SIZE


async def test_a_slow_reader_holds_the_server_back_and_loses_nothing() -> None:
    sent: list[int] = []
    async with client_of(lambda reader, writer: send_much(reader, writer, sent)) as transport:
        await read_slowly(transport, sent)


async def test_a_slow_reader_over_tls_holds_the_server_back_and_loses_nothing(tmp_path: Path) -> None:
    sent: list[int] = []
    async with tls_client_of(lambda reader, writer: send_much(reader, writer, sent), tmp_path) as transport:
        await read_slowly(transport, sent)


async def test_events_over_tls_arrive_one_by_one(tmp_path: Path) -> None:
    """Small writes become records of their own; the rest of a record in memory is not waited for."""
    acknowledged = asyncio.Semaphore(0)

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(20):
            writer.write(b"4\r\n%03d\n\r\n" % number)
            await writer.drain()
            await acknowledged.acquire()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    found: list[bytes] = []
    async with tls_client_of(events, tmp_path) as transport, transport.stream("GET", "/watch") as stream:
        async for chunk in stream.chunks():
            found.append(chunk)
            acknowledged.release()
    assert found == [b"%03d\n" % number for number in range(20)]


async def test_a_stream_may_send_a_body_and_is_rejected_before_it_was_read() -> None:
    server = Server([CHUNKED, None])
    async with client_of(server.handle) as transport, transport.stream("POST", "/chat", body=b'{"q": 1}') as stream:
        assert await stream.read() == BODY
    assert server.requests[0].startswith(b"POST /chat HTTP/1.1\r\n")
    assert server.requests[0].endswith(b'{"q": 1}')

    async def rejects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        await writer.drain()
        await asyncio.sleep(60)

    async with (
        client_of(rejects) as transport,
        transport.stream("POST", "/chat", body=b"x" * 30_000_000) as stream,
    ):
        assert stream.status == 413
        assert await stream.read() == b"big"
