"""The transport over real sockets on loopback: limits, pools, credentials, and nothing left open."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from kaito.apiserver.faults import Fault
from kaito.apiserver.http import serve
from kaito.apiserver.server import ApiServer
from kaito.runtime.client import Client, MergePatch, http
from kaito.runtime.client.config import ClusterConfig, NoCredentials, TokenFile
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import Conflict, NotFound, NotLeader, RequestTimeout, TransportError, Unauthorized
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.meta import ObjectMeta

pytestmark = pytest.mark.usefixtures("direct")

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def transport_to(url: str) -> AsyncGenerator[HttpTransport]:
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials()))
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def raw_server(handle: Connection) -> AsyncGenerator[str]:
    """A server that runs `handle` for every connection."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
async def api_server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def url(api_server: ApiServer) -> AsyncIterator[str]:
    async with serve(api_server) as served:
        yield served.url


async def test_objects_over_the_wire(url: str) -> None:
    async with transport_to(url) as transport:
        client = Client(transport, field_manager="test")
        made = await client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default", labels={"x": "y"})))
        changed = await client.patch(made, MergePatch({"data": {"k": "grüße"}}))
        assert changed.data == {"k": "grüße"}
        assert [obj.name for obj in await client.list(ConfigMap, labels="x in (y, z),!none")] == ["a"]
        assert await client.delete(made) is True
        with pytest.raises(NotFound):
            await client.get(ConfigMap, "a", "default")
    assert transport.host.startswith("127.0.0.1:")


@pytest.mark.conformance("client-03")
async def test_client_03_a_server_that_accepts_and_does_not_respond_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client hangs up
        writer.close()

    async with raw_server(silent) as url, transport_to(url) as transport:
        with pytest.raises(RequestTimeout, match=r"no response within 0\.05 s"):
            await transport.request("GET", "/version", timeout=0.05)
        with pytest.raises(RequestTimeout):
            async with transport.stream("GET", "/watch", idle=0.05):
                pass


@pytest.mark.conformance("client-03")
async def test_client_03_a_watch_that_falls_silent_is_given_up() -> None:
    async def one_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nline\n\r\n")
        await reader.read()
        writer.close()

    async with (
        raw_server(one_line) as url,
        transport_to(url) as transport,
        transport.stream("GET", "/watch", idle=0.05) as stream,
    ):
        chunks = stream.chunks()
        assert await anext(chunks) == b"line\n"
        with pytest.raises(RequestTimeout):
            await anext(chunks)


async def test_a_rejected_connection_a_reset_and_nonsense_are_transport_errors() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-whatever\r\n\r\n")
        writer.close()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
        writer.close()

    async with raw_server(reset) as gone:
        pass
    async with transport_to(gone) as transport:
        with pytest.raises(TransportError, match="GET /x"):
            await transport.request("GET", "/x")
    for handle in (reset, nonsense, cut):
        async with raw_server(handle) as url, transport_to(url) as transport:
            with pytest.raises(TransportError):
                await transport.request("GET", "/x")


async def test_a_stream_that_breaks_off_is_a_transport_error() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nline\n\r\n")
        await writer.drain()
        writer.close()

    async with raw_server(half) as url, transport_to(url) as transport, transport.stream("GET", "/watch") as stream:
        chunks = stream.chunks()
        assert await anext(chunks) == b"line\n"
        with pytest.raises(TransportError):
            await anext(chunks)


async def test_dns_lookups_are_reported_and_numeric_hosts_need_none(url: str) -> None:
    recorded: list[tuple[str, float]] = []
    for host in ("localhost", "127.0.0.1"):
        access = ClusterConfig(server=url.replace("127.0.0.1", host), credentials=NoCredentials())
        transport = HttpTransport(access, on_lookup=lambda name, seconds: recorded.append((name, seconds)))
        try:
            assert (await transport.request("GET", "/version")).status == 200
        finally:
            await transport.close()
    [(name, seconds)] = recorded
    assert name == "localhost"
    assert seconds >= 0


@pytest.mark.conformance("client-08")
async def test_client_08_no_request_waits_for_a_watch(url: str) -> None:
    async with transport_to(url) as transport, AsyncExitStack() as watches:
        for _ in range(80):  # more than the connections of requests
            stream = await watches.enter_async_context(transport.stream("GET", "/api/v1/configmaps?watch=true"))
            assert stream.status == 200
        async with asyncio.timeout(10):
            replies = await asyncio.gather(*(transport.request("GET", "/version") for _ in range(100)))
        assert {reply.status for reply in replies} == {200}


async def test_a_write_that_waits_for_a_connection_is_fenced_when_it_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "UNARY_CONNECTIONS", 1)
    seen: list[bytes] = []
    answer_now = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head.split(b" ")[0])
            await answer_now.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    leading = True

    def fence() -> None:
        if not leading:
            message = "lease lost"
            raise NotLeader(message)

    async with raw_server(slow) as url, transport_to(url) as transport:
        client = Client(transport, field_manager="test").fenced(fence)
        first = asyncio.Task(client.raw("GET", "/version"))
        while not seen:  # noqa: ASYNC110 -- the server's side of the socket
            await asyncio.sleep(0.002)
        write = asyncio.Task(client.raw("POST", "/api/v1/namespaces", body={}))
        while not transport.connection_waits:  # noqa: ASYNC110 -- until the fence has let it pass and no connection is free
            await asyncio.sleep(0.002)
        leading = False
        answer_now.set()
        assert await first == {}
        with pytest.raises(NotLeader):
            await write
        assert (await client.raw("GET", "/version")) == {}  # reads go on
    assert seen == [b"GET", b"GET"]


@pytest.mark.conformance("client-09")
@pytest.mark.filterwarnings("error")
async def test_client_09_cancelled_work_leaves_nothing_open(url: str) -> None:
    async def work(transport: HttpTransport) -> None:
        async with transport.stream("GET", "/api/v1/configmaps?watch=true") as stream:
            async for _ in stream.chunks():
                pass

    async with transport_to(url) as transport:
        tasks = [asyncio.Task(work(transport)) for _ in range(3)]
        await transport.request("GET", "/version")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()  # unclosed sessions and sockets warn when they are collected, and warnings are errors
    with pytest.raises(TransportError, match="closed"):
        await transport.request("GET", "/version")


@pytest.mark.conformance("client-10")
async def test_client_10_debug_logs_never_hold_a_secret(
    api_server: ApiServer, url: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    configure("console", "debug")
    try:
        async with transport_to(url) as transport:
            client = Client(transport, field_manager="test")
            secret = Secret(metadata=ObjectMeta(name="s", namespace="default")).with_value("password", b"hunter2")
            made = await client.create(secret)
            await client.update(made)
            await client.apply(secret)
            await client.list(Secret)
            api_server.inject(Fault(method="PUT", drop_connection=True))
            with pytest.raises(Conflict):
                await client.update(made)
            get_logger("test").debug("an object in a log line", secret=str(made))
    finally:
        configure()
    written = caplog.text + "".join(capsys.readouterr())
    assert "an object in a log line" in written
    for hidden in ("hunter2", secret.data["password"]):
        assert hidden not in written


@pytest.mark.conformance("client-02")
async def test_client_02_a_rejected_token_is_read_again_and_the_request_repeated_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    async with serve(ApiServer(), token="new") as served:
        transport = HttpTransport(ClusterConfig(server=served.url, credentials=TokenFile(file)))
        try:
            assert (await transport.request("GET", "/version")).status == 401
            file.write_text("new\n")
            assert (await transport.request("GET", "/version")).status == 200
            file.write_text("other")
            assert (await transport.request("GET", "/version")).status == 200  # still the token known to be good
        finally:
            await transport.close()


@pytest.mark.conformance("client-02")
async def test_client_02_a_watch_rejected_for_its_token_is_opened_with_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    async with serve(ApiServer(), token="new") as served:
        transport = HttpTransport(ClusterConfig(server=served.url, credentials=TokenFile(file)))
        try:
            async with transport.stream("GET", "/api/v1/configmaps?watch=true") as stream:
                assert stream.status == 401
            file.write_text("new")
            async with transport.stream("GET", "/api/v1/configmaps?watch=true") as stream:
                assert stream.status == 200
        finally:
            await transport.close()


async def test_no_credentials_help_when_the_server_insists(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("wrong")
    async with serve(ApiServer(), token="right") as served:
        transport = HttpTransport(ClusterConfig(server=served.url, credentials=TokenFile(file)))
        try:
            with pytest.raises(Unauthorized):
                await Client(transport, field_manager="test").get(ConfigMap, "a", "default")
        finally:
            await transport.close()


@pytest.mark.virtual_time
@pytest.mark.conformance("client-02")
async def test_client_02_a_rotated_token_file_is_used_within_a_minute(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    token = TokenFile(file)
    assert await token.header() == "Bearer one"
    file.write_text("two\n")
    await asyncio.sleep(59)
    assert await token.header() == "Bearer one"
    await asyncio.sleep(1)
    assert await token.header() == "Bearer two"
    file.unlink()
    await asyncio.sleep(61)
    assert await token.header() == "Bearer two"  # a file that is unreadable for a moment does not drop the token
    assert await token.renew("Bearer two") is False


async def test_large_bodies_pass_both_ways() -> None:
    received: list[int] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)[b"content-length"]
        )
        body = await reader.readexactly(length)
        received.append(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length + body)
        await writer.drain()
        writer.close()

    body = b"x" * (3 * 2**20)
    async with raw_server(echo) as url, transport_to(url) as transport:
        reply = await transport.request("POST", "/x", body=body)
    assert received == [len(body)]
    assert reply.body == body


async def test_headers_arrive_in_lower_case_and_repeated_ones_joined() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nWarning: 299 - "a"\r\nWARNING: 299 - "b"\r\ncontent-length: 0\r\n\r\n')
        writer.close()

    async with raw_server(answer) as url, transport_to(url) as transport:
        reply = await transport.request("GET", "/x")
    assert reply.headers["warning"] == '299 - "a", 299 - "b"'


async def test_headers_of_impersonation_are_sent_with_requests_and_watches_as_often_as_they_occur() -> None:
    requested: list[list[bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        requested.append([line for line in head.split(b"\r\n") if line.startswith(b"impersonate")])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    headers = (("impersonate-user", "jane"), ("impersonate-group", "a"), ("impersonate-group", "b"))
    async with raw_server(answer) as url:
        transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials(), impersonation=headers))
        await transport.request("GET", "/x")
        async with transport.stream("GET", "/x") as reply:
            await reply.read()
        await transport.close()
    assert requested == [[b"impersonate-user: jane", b"impersonate-group: a", b"impersonate-group: b"]] * 2


async def test_targets_are_sent_as_they_are_and_redirects_not_followed() -> None:
    requested: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    headers: Mapping[str, str] = {"user-agent": "me/1"}
    async with raw_server(answer) as url, transport_to(url) as transport:
        reply = await transport.request("GET", "/a%2Fb?labelSelector=a%3Db%2Cc", headers=headers)
    assert reply.status == 302
    (only,) = requested
    assert only.startswith(b"GET /a%2Fb?labelSelector=a%3Db%2Cc HTTP/1.1\r\n")
    assert b"user-agent: me/1\r\n" in only.lower()
    assert b"aiohttp" not in only
