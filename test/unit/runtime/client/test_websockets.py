"""WebSockets of `HttpTransport` against servers that refuse, garble and cut: each ends as one typed error."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import WSCloseCode, web

from kaito.runtime import ApiError, Client, NotFound, ObjectMeta
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.pods import Pods
from kaito.runtime.errors import ConfigurationError, Forbidden, NotLeader, ServerError, TransportError
from kaito.runtime.kinds import Pod

POD = Pod(metadata=ObjectMeta(name="web", namespace="default"))
SUCCESS = b'\x03{"status": "Success"}'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def exits(code: str) -> bytes:
    cause = {"reason": "ExitCode", "message": code}
    return b"\x03" + json.dumps({"status": "Failure", "details": {"causes": [cause]}}).encode()


def channels(*messages: bytes, code: int = WSCloseCode.OK, protocol: str = "v5.channel.k8s.io") -> Handler:
    """A kubelet that sends these messages and closes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=[protocol])
        await socket.prepare(request)
        for message in messages:
            await socket.send_bytes(message)
        await socket.close(code=code)
        return socket

    return handle


@asynccontextmanager
async def served(handler: Handler, *, port: int = 0) -> AsyncGenerator[Client]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    transport = HttpTransport(ClusterConfig(f"http://127.0.0.1:{runner.addresses[0][1]}", NoCredentials()))
    try:
        yield Client(transport, field_manager="test")
    finally:
        await transport.close()
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes) -> AsyncGenerator[Client]:
    """A server that answers with these bytes, `KEY` replaced by the accepted key, and closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        writer.write(answer.replace(b"KEY", _accepted(key)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttpTransport(ClusterConfig(f"http://127.0.0.1:{port}", NoCredentials()))
    async with server:
        try:
            yield Client(transport, field_manager="test")
        finally:
            await transport.close()


def _accepted(key: str) -> bytes:
    from base64 import b64encode
    from hashlib import sha1

    return b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())


UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)


@pytest.mark.conformance("client-pods")
@pytest.mark.parametrize(("messages", "code"), [((SUCCESS,), 0), ((exits("1"),), 1), ((b"\x01", exits("137")), 137)])
async def test_the_exit_code_is_the_one_in_the_result(messages: tuple[bytes, ...], code: int) -> None:
    async with served(channels(b"\x01out", b"\x02bad", b"\x09unknown", b"", *messages)) as client:
        done = await Pods(client).run(POD, ["true"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"out", b"bad")


async def test_a_close_without_a_result_is_not_a_success() -> None:
    async with served(channels(b"\x01out")) as client:
        with pytest.raises(TransportError, match="ended without the result of the command"):
            await Pods(client).run(POD, ["true"])


async def test_a_close_with_an_error_is_reported() -> None:
    async with served(channels(b"\x01out", code=WSCloseCode.INTERNAL_ERROR)) as client:
        with pytest.raises(TransportError, match=r"closed by the server.*1011"):
            await Pods(client).run(POD, ["true"])


@pytest.mark.parametrize("status", [b"not json", b"[1]", b'{"details": {"causes": [{"reason": "ExitCode"}]}}'])
async def test_a_malformed_result_is_an_error(status: bytes) -> None:
    async with served(channels(b"\x03" + status)) as client:
        with pytest.raises(TransportError, match="the result of the command is malformed"):
            await Pods(client).run(POD, ["true"])


async def test_a_failure_without_an_exit_code_is_the_error_of_the_kubelet() -> None:
    failed = {"status": "Failure", "reason": "InternalError", "message": "container is gone", "code": 500}
    async with served(channels(b"\x03" + json.dumps(failed).encode())) as client:
        with pytest.raises(ServerError, match="container is gone"):
            await Pods(client).run(POD, ["true"])


@pytest.mark.conformance("client-pods")
@pytest.mark.parametrize(
    "frames",
    [
        b"",  # nothing
        b"\x82",  # half a header
        b"\x82\x7e\x01",  # half a length
        b"\x82\x05\x01ou",  # half a message
        b"\x02\x03\x01ou",  # the first part of a message
        b"\x82\x04\x01out",  # a whole message, and no close
    ],
)
async def test_a_cut_connection_is_an_error_wherever_it_is_cut(frames: bytes) -> None:
    async with raw(UPGRADED + frames) as client:
        with pytest.raises(TransportError, match=r"exec|the connection was lost"):
            await Pods(client).run(POD, ["true"])


@pytest.mark.parametrize("frames", [b"\xf2\x01\x01", b"\x83\x01\x01", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff"])
async def test_frames_that_are_not_of_the_protocol_are_an_error(frames: bytes) -> None:
    async with raw(UPGRADED + frames) as client:
        with pytest.raises(TransportError):
            await Pods(client).run(POD, ["true"])


@pytest.mark.conformance("client-pods")
async def test_a_refused_upgrade_is_the_error_of_the_server() -> None:
    async def absent(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "reason": "NotFound", "message": 'pods "web" not found', "details": {"name": "web"}}
        return web.json_response(body, status=404)

    async with served(absent) as client:
        with pytest.raises(NotFound, match='pods "web" not found') as refused:
            await Pods(client).run(POD, ["true"])
        assert refused.value.is_object

    async def denied(_: web.Request) -> web.StreamResponse:
        return web.Response(text="no", status=403)

    async with served(denied) as client:
        with pytest.raises(Forbidden, match="no"):
            await Pods(client).run(POD, ["true"])


async def test_a_server_that_does_not_upgrade_is_an_error() -> None:
    async def ignores(_: web.Request) -> web.StreamResponse:
        return web.Response(text="hello")

    async with served(ignores) as client:
        with pytest.raises(TransportError, match="answered 200 instead of an upgrade"):
            await Pods(client).run(POD, ["true"])
    async with served(channels(SUCCESS, protocol="v1.other")) as client:
        with pytest.raises(TransportError, match="none of the protocols v5"):
            await Pods(client).run(POD, ["true"])
    async with raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as client:
        with pytest.raises((ApiError, TransportError)):
            await Pods(client).run(POD, ["true"])
    async with raw(b"") as client:
        with pytest.raises(TransportError):
            await Pods(client).run(POD, ["true"])


async def test_input_is_sent_in_parts_and_ended() -> None:
    received: list[bytes] = []

    async def reads(request: web.Request) -> web.StreamResponse:
        assert request.query.getall("command") == ["tee", "a b&c"]
        assert request.headers["user-agent"].startswith("test/")
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io"])
        await socket.prepare(request)
        async for message in socket:
            received.append(message.data)
            if message.data == b"\xff\x00":
                break
        await socket.send_bytes(SUCCESS)
        await socket.close()
        return socket

    async with served(reads) as client:
        done = await Pods(client).run(POD, ["tee", "a b&c"], stdin=b"x" * 70_000)
    assert done.exit_code == 0
    assert [len(part) - 1 for part in received[:-1]] == [32_768, 32_768, 4464]
    assert {part[:1] for part in received[:-1]} == {b"\x00"}


async def test_a_command_that_ends_before_its_input_is_a_result() -> None:
    async with served(channels(exits("2"))) as client:
        assert (await Pods(client).run(POD, ["false"], stdin=b"x" * 5_000_000)).exit_code == 2


async def test_version_four_cannot_end_the_input() -> None:
    async with served(channels(SUCCESS, protocol="v4.channel.k8s.io")) as client:
        async with Pods(client).exec(POD, ["true"]) as execution:
            with pytest.raises(ConfigurationError, match=r"v4\.channel\.k8s\.io cannot end the input"):
                await execution.close_stdin()
        with pytest.raises(TransportError, match=r"none of the protocols v5\.channel\.k8s\.io"):
            await Pods(client).run(POD, ["cat"], stdin=b"")


async def test_wrong_uses_are_refused_before_anything_is_sent() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    def lost() -> None:
        raise NotLeader("lost")

    async with served(never) as client:
        with pytest.raises(ConfigurationError, match="command is a list"):
            await Pods(client).run(POD, "ls")
        with pytest.raises(ConfigurationError, match="command is a list"):
            await Pods(client).run(POD, [])
        with pytest.raises(ConfigurationError, match="dry runs"):
            await Pods(client.dry_run()).run(POD, ["true"])
        with pytest.raises(ConfigurationError, match="70000 is not a port"):
            async with Pods(client).connect(POD, 70_000):
                raise AssertionError
        with pytest.raises(NotLeader):
            await Pods(client.fenced(lost)).run(POD, ["true"])


async def test_errors_of_a_port_are_reported_and_numbers_are_dropped() -> None:
    handler = channels(b"\x00\x50\x00", b"\x01\x50\x00", b"\x00data", b"\x01refused\n", protocol="v4.channel.k8s.io")
    async with served(handler) as client, Pods(client).connect(POD, 80) as connection:
        assert await connection.receive() == b"data"
        with pytest.raises(TransportError, match=r"port 80 of default/web: refused"):
            await connection.receive()


async def test_a_local_port_survives_connections_that_cannot_be_made() -> None:
    async with served(channels(SUCCESS)) as client, Pods(client).forward(POD, 80) as port:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()


class Renewable:
    """Credentials whose first token has expired."""

    def __init__(self) -> None:
        self.token = "old"

    async def header(self) -> str:
        return f"Bearer {self.token}"

    async def renew(self, header: str) -> bool:
        self.token = "new"
        return header != "Bearer new"


async def test_expired_credentials_are_renewed_once() -> None:
    seen: list[str] = []

    async def checks(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["authorization"])
        if seen[-1] != "Bearer new":
            return web.json_response({"message": "Unauthorized"}, status=401)
        return await channels(SUCCESS)(request)

    async with served(checks) as client:
        assert isinstance(client.transport, HttpTransport)
        transport = HttpTransport(ClusterConfig(f"http://{client.transport.host}", Renewable()))
        try:
            assert (await Pods(Client(transport, field_manager="test")).run(POD, ["true"])).exit_code == 0
        finally:
            await transport.close()
    assert seen == ["Bearer old", "Bearer new"]


async def test_a_server_that_does_not_answer_the_close_is_left() -> None:
    """It goes on to send; the client does not read it to its end."""
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io"], autoclose=False)
        await socket.prepare(request)
        try:
            while True:
                await socket.send_bytes(b"\x01" + bytes(2**16))
        except (ConnectionError, asyncio.CancelledError):
            ended.set()
        return socket

    async with served(endless) as client:
        async with Pods(client).exec(POD, ["yes"]) as execution:
            part = await anext(execution.output())
            assert len(part.data) == 2**16
        await ended.wait()


async def test_a_local_connection_that_is_reset_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio reports exceptions that leave the handler of a connection in its log."""

    async def endless(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"], autoclose=False)
        await socket.prepare(request)
        with suppress(ConnectionError, asyncio.CancelledError):
            await socket.send_bytes(b"\x00\x50\x00")
            while True:
                await socket.send_bytes(b"\x00" + bytes(2**16))
        return socket

    async with served(endless) as client, Pods(client).forward(POD, 80) as port:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(2**16))
            assert len(await reader.read(100)) == 100
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert len(await reader.readexactly(2**22)) == 2**22
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_half_closed_local_connection_gets_the_rest() -> None:
    """The protocol cannot end one direction: what the pod sends after the local end is still delivered."""

    async def answers(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(request)
        message = await socket.receive()
        await socket.send_bytes(b"\x00\x50\x00")
        await socket.send_bytes(b"\x00answer to " + message.data[1:])
        await socket.close()
        return socket

    async with served(answers) as client, Pods(client).forward(POD, 80) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"question")
        writer.write_eof()
        assert await reader.read() == b"answer to question"
        writer.close()
