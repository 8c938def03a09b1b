"""The activator's proxy over loopback: holding, handing over, streaming, retrying and the limits."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hack.envtest.control_plane import free_port
from kaito.workspace.activator.gate import Gate, HoldLimits
from kaito.workspace.activator.listeners import ActivatorServer
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.activator.proxy import READY_IN_HEADER, WAITED_HEADER, ActivatorProxy, Forecast


@dataclass
class FakeWorkspace:
    """A Workspace whose copies the test starts and ends."""

    wakes: int = 0
    on_wake: Callable[[], None] = lambda: None
    known: Forecast = field(default_factory=Forecast)
    name: str = "team/phi"
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self._wake)

    async def _wake(self) -> None:
        self.wakes += 1
        self.on_wake()

    def forecast(self) -> Forecast:
        return self.known

    def resolve(self, port: int) -> "FakeWorkspace | None":
        return self if port else None


@asynccontextmanager
async def served(app: web.Application) -> AsyncGenerator[int]:
    """Serves an application on a free port of loopback."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@dataclass
class Scene:
    workspace: FakeWorkspace
    proxy: ActivatorProxy
    client: aiohttp.ClientSession
    url: str
    tasks: asyncio.TaskGroup

    def start(self, query: str = "", number: int = 0) -> asyncio.Task[aiohttp.ClientResponse]:
        """Sends a request in the background."""
        return self.tasks.create_task(self._post(query, number))

    async def _post(self, query: str, number: int) -> aiohttp.ClientResponse:
        url, headers = f"{self.url}/v1/chat/completions{query}", {"Authorization": "Bearer key"}
        return await self.client.post(url, json={"n": number}, headers=headers)

    def ready(self) -> None:
        self.workspace.gate.update(["127.0.0.1"])


class Model:
    """A server whose answers the test chooses."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.bodies: list[Any] = []
        self.proceed = asyncio.Event()

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._chat), web.post("/stream", self._stream)])
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        if self.refusals:
            return web.json_response({}, status=self.refusals.pop(0))
        self.bodies.append(await request.json())
        return web.json_response(
            {"query": request.raw_path.partition("?")[2], "auth": request.headers.get("Authorization", "")}
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await self.proceed.wait()
        await response.write(b"data: 2\n\n")
        return response


@asynccontextmanager
async def scene(model: Model, limits: HoldLimits | None = None, **options: Any) -> AsyncGenerator[Scene]:
    async with AsyncExitStack() as stack:
        pod = await stack.enter_async_context(served(model.application()))
        workspace = FakeWorkspace()
        proxy = ActivatorProxy(
            workspace, limits=limits or HoldLimits(), metrics=ActivatorMetrics(), server_port=pod, **options
        )
        port = await stack.enter_async_context(served(proxy.application()))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        async with asyncio.TaskGroup() as tasks:
            yield Scene(workspace, proxy, client, f"http://127.0.0.1:{port}", tasks)
        workspace.gate.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- the state of other tasks has no event
            await asyncio.sleep(0)


async def test_a_request_wakes_the_workspace_and_is_answered_by_the_first_copy() -> None:
    model = Model()
    async with scene(model) as here:
        request = here.start("?a=b%20c", 1)
        await until(lambda: here.workspace.wakes == 1)
        assert (here.proxy.held.requests, here.proxy.running) == (1, 1)
        assert here.proxy.held.body_bytes > 0
        here.ready()
        response = await request
        assert response.status == 200
        assert await response.json() == {"query": "a=b%20c", "auth": "Bearer key"}
        assert float(response.headers[WAITED_HEADER]) >= 0
        assert model.bodies == [{"n": 1}]
        assert (here.proxy.held.requests, here.proxy.held.body_bytes, here.proxy.running) == (0, 0, 0)


async def test_a_streamed_answer_arrives_as_it_is_written() -> None:
    model = Model()
    async with scene(model) as here:
        here.ready()
        async with here.client.post(f"{here.url}/stream") as response:
            assert await response.content.readuntil(b"\n\n") == b"data: 1\n\n"
            model.proceed.set()
            assert await response.content.read() == b"data: 2\n\n"
        assert here.workspace.wakes == 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_copy_that_refuses_gets_the_request_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.workspace.activator.proxy.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("kaito.workspace.activator.gate.WAKE_INTERVAL_SECONDS", 0.01)
    model = Model()
    model.refusals = [status, status]
    async with scene(model) as here:
        here.ready()
        async with here.client.post(f"{here.url}/v1/chat/completions", json={"n": 2}) as response:
            assert response.status == 200
    assert model.bodies == [{"n": 2}]


async def test_a_copy_that_does_not_listen_any_more_does_not_lose_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.workspace.activator.proxy.RETRY_SECONDS", 0.0)
    model = Model()
    async with scene(model) as here:
        here.workspace.gate.update(["127.0.0.2"])  # nothing listens there
        request = here.start()
        await until(lambda: here.workspace.gate.waiting == 1)
        here.ready()
        assert (await request).status == 200


async def test_beyond_the_limits_there_is_a_503_with_the_time_to_ready() -> None:
    model = Model()
    async with scene(model, HoldLimits(requests=1, seconds=0.2)) as here:
        here.workspace.known = Forecast(ready_in_seconds=41.2, cause="0 of 1 machines ready")
        first = here.start()
        await until(lambda: here.proxy.held.requests == 1)
        async with here.client.post(f"{here.url}/v1/chat/completions", json={}) as full:
            assert (full.status, full.headers["Retry-After"], full.headers[READY_IN_HEADER]) == (503, "42", "42")
            assert (await full.json())["error"] == {
                "message": "workspace team/phi is starting, and too many requests wait for it; it is expected to be "
                "ready in about 41 s (0 of 1 machines ready)",
                "type": "server_error",
                "param": None,
                "code": "workspace_starting",
            }
        here.workspace.known = Forecast()
        late = await first
        assert (late.status, late.headers["Retry-After"], READY_IN_HEADER in late.headers) == (503, "60", False)
        assert "was not ready within 0 s" in (await late.json())["error"]["message"]


async def test_bodies_are_limited_together_and_alone() -> None:
    async with scene(Model(), HoldLimits(body_bytes=10), max_request_bytes=20) as here:
        async with here.client.post(f"{here.url}/stream", data=b"x" * 15) as together:
            assert together.status == 503
        async with here.client.post(f"{here.url}/stream", data=b"x" * 25) as alone:
            assert alone.status == 413
            assert (await alone.json())["error"]["code"] == "request_too_large"


async def test_bodies_that_are_still_sent_count_as_held() -> None:
    async def unfinished() -> AsyncGenerator[bytes]:
        yield b"x" * 8
        await asyncio.Event().wait()

    async with scene(Model(), HoldLimits(body_bytes=10), max_request_bytes=20) as here:
        first = here.tasks.create_task(here.client.post(f"{here.url}/stream", data=unfinished()))
        await until(lambda: here.proxy.held.body_bytes == 8)
        async with here.client.post(f"{here.url}/stream", data=b"x" * 8) as together:
            assert together.status == 503
        first.cancel()
        await until(lambda: here.proxy.held.body_bytes == 0)


async def test_a_compressed_body_and_an_absolute_target_reach_the_server_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kaito.workspace.activator.listeners.ENDPOINT_GRACE_SECONDS", 0.0)
    model, workspace = Model(), FakeWorkspace()
    workspace.gate.update(["127.0.0.1"])
    async with served(model.application()) as pod, asyncio.TaskGroup() as tasks:
        proxy = ActivatorProxy(workspace, limits=HoldLimits(), metrics=ActivatorMetrics(), server_port=pod)
        server = ActivatorServer(proxy.application(), host="127.0.0.1", drain_seconds=1)
        running = tasks.create_task(server.run())
        port = free_port()
        await server.listen(port)
        body = gzip.compress(b'{"n": 4}')
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            "POST http://phi/v1/chat/completions?a=%20b HTTP/1.1\r\nHost: phi\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"a=%20b" in answer
        assert model.bodies == [{"n": 4}]
        writer.close()
        running.cancel()
    workspace.gate.close()


async def test_a_process_that_ends_answers_what_it_holds_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.workspace.activator.listeners.ENDPOINT_GRACE_SECONDS", 0.0)
    model, workspace = Model(), FakeWorkspace()
    async with served(model.application()) as pod, aiohttp.ClientSession() as client:
        proxy = ActivatorProxy(workspace, limits=HoldLimits(), metrics=ActivatorMetrics(), server_port=pod)
        server = ActivatorServer(proxy.application(), host="127.0.0.1", drain_seconds=30)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(server.run())
            port = free_port()
            await server.listen(port)
            request = tasks.create_task(client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={"n": 3}))
            await until(lambda: proxy.held.requests == 1)
            running.cancel()
            await asyncio.sleep(0.05)
            assert not running.done()
            workspace.gate.update(["127.0.0.1"])
            assert (await request).status == 200
            with pytest.raises(asyncio.CancelledError):
                await running
    workspace.gate.close()


async def test_a_client_that_leaves_frees_its_place() -> None:
    async with scene(Model()) as here:
        request = here.start()
        await until(lambda: here.proxy.held.requests == 1)
        request.cancel()
        await until(lambda: here.proxy.held.requests == 0)
        assert here.workspace.gate.waiting == 0
