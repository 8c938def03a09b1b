"""Chats through the console: streaming, figures, wrong requests, servers that fail or hang."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from kaito.console.chat import ChatRelay
from kaito.runtime.kinds import Pod, Service
from kaito.workspace.manifests.service import SERVER_PORT
from test.support.addresses import own_address
from test.unit.console.conftest import WRITE, Scene, opened, ready, sse, workspace

ADDRESS = own_address()
PROMPT = "What is the capital of France?"
CHAT = "/api/workspaces/default/phi/chat"


@dataclass
class Model:
    """A server with the OpenAI routes at the address of a pod."""

    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    status: int = 200
    pieces: tuple[str, ...] = ("Par", "is.")
    usage: Any = field(default_factory=lambda: {"prompt_tokens": 12, "completion_tokens": 7})
    last: bytes = b"[DONE]"
    """The last event."""
    hang: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request that hangs has ended."""

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/chat/completions", self._chat)])
        return app

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in ("phi", "phi:base", "poet")]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self.status != 200:
            return web.json_response({"error": {"message": "the queue is full"}}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in self.pieces]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": self.usage})
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            if self.hang:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
        await response.write(b"data: " + self.last + b"\n\n")
        return response


@dataclass
class ChatScene:
    """A console, and a Workspace whose model answers."""

    scene: Scene
    model: Model

    async def post(self, body: dict[str, Any]) -> tuple[int, list[tuple[str, Any]]]:
        async with self.scene.browser.post(self.scene.url + CHAT, json=body, headers=WRITE) as answer:
            if answer.status != 200:
                return answer.status, [("refusal", await answer.json())]
            async with aclosing(sse(answer)) as events:
                return answer.status, [each async for each in events]


@pytest.fixture
async def chats() -> AsyncIterator[ChatScene]:
    async with AsyncExitStack() as stack:
        scene = await opened(stack, chat=ChatRelay(first_token_seconds=5, next_token_seconds=1))
        made = await scene.client.create(workspace())
        await scene.client.update_status(made.evolve(status=type(made.status).model_validate(ready())))
        model = Model()
        runner = web.AppRunner(model.application(), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, ADDRESS, SERVER_PORT).start()
        names = {"metadata": {"name": "phi", "namespace": "default"}}
        service = {**names, "spec": {"clusterIP": "127.0.0.1", "ports": [{"port": 80}]}}
        await scene.client.create(Service.model_validate(service))
        pod = await scene.client.create(
            Pod.model_validate(
                {
                    "metadata": {"name": "phi-0", "namespace": "default", "labels": {"kaito.sh/workspace": "phi"}},
                    "spec": {"containers": [{"name": "model", "image": "model"}]},
                }
            )
        )
        status = {"phase": "Running", "podIP": ADDRESS, "conditions": [{"type": "Ready", "status": "True"}]}
        await scene.client.update_status(Pod.model_validate(pod.to_dict() | {"status": status}))
        yield ChatScene(scene, model)


def asking(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPT}], **changes}


async def test_an_answer_is_streamed_with_its_figures(chats: ChatScene) -> None:
    status, events = await chats.post(asking(model="poet", temperature=0.5, topP=0.9, maxTokens=32))
    assert status == 200
    assert [data["text"] for name, data in events if name == "token"] == ["Par", "is."]
    name, done = events[-1]
    assert (name, done["promptTokens"], done["completionTokens"], done["finishReason"]) == ("done", 12, 7, "stop")
    assert done["firstTokenSeconds"] >= 0
    body = chats.model.bodies[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("poet", 0.5, 0.9, 32)
    assert (await chats.scene.get("/api/workspaces/default/phi/models"))["models"] == ["phi", "phi:base", "poet"]
    await chats.post(asking())
    assert chats.model.bodies[1]["model"] == "phi"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"topP": True}, "topP"),
        ({"maxTokens": 0}, "maxTokens"),
        ({"model": 1}, "model"),
        ({"strengths": {"poet": 0.5}}, "strengths"),
    ],
)
async def test_a_wrong_request_names_the_field(chats: ChatScene, changes: dict[str, Any], field: str) -> None:
    status, [(_, refusal)] = await chats.post(asking(**changes))
    assert (status, refusal["field"]) == (400, field)
    assert chats.model.bodies == []


async def test_a_server_that_refuses_is_reported(chats: ChatScene) -> None:
    chats.model.status = 429
    _, events = await chats.post(asking())
    assert events == [("error", {"error": "the queue is full (HTTP 429)"})]


async def test_a_server_that_sends_without_an_end_is_cut_off(chats: ChatScene) -> None:
    chats.model.pieces = ("x" * 5_000_000,)
    _, events = await chats.post(asking())
    assert events == [("error", {"error": "the server sent an event that does not end"})]


@pytest.mark.parametrize("value", ["many", {"a": 1}, [1], -1, 1e300])
async def test_figures_that_are_not_numbers_are_unknown(chats: ChatScene, value: object) -> None:
    chats.model.usage = {"prompt_tokens": value, "completion_tokens": value}
    status, events = await chats.post(asking())
    assert (status, events[-1][0]) == (200, "done")
    assert (events[-1][1]["promptTokens"], events[-1][1]["completionTokens"]) == (None, len(chats.model.pieces))


async def test_an_event_that_is_nested_too_deeply_is_reported(chats: ChatScene) -> None:
    chats.model.last = b"[" * 100_000
    status, events = await chats.post(asking())
    assert (status, events[-1][0]) == (200, "error")
    assert "not JSON" in events[-1][1]["error"]


async def test_a_server_that_stops_is_reported_after_the_limit(chats: ChatScene) -> None:
    chats.model.hang = True
    _, events = await chats.post(asking())
    assert [name for name, _ in events] == ["token", "error"]
    assert "sends no token" in events[-1][1]["error"]


async def test_a_browser_that_leaves_ends_the_request(chats: ChatScene) -> None:
    chats.model.hang = True
    body = asking()
    async with chats.scene.browser.post(chats.scene.url + CHAT, json=body, headers=WRITE) as answer:
        assert (await answer.content.readline()).startswith(b"event: token")
        answer.close()
    async with asyncio.timeout(10):
        await chats.model.left.wait()


async def test_a_workspace_that_is_not_ready_is_refused_with_the_cause(chats: ChatScene) -> None:
    await chats.scene.client.create(workspace("other"))
    path = f"{chats.scene.url}/api/workspaces/default/other/chat"
    async with chats.scene.browser.post(path, json=asking(), headers=WRITE) as answer:
        assert answer.status == 409
        assert "is not ready" in (await answer.json())["error"]


async def test_prompts_are_in_no_log(chats: ChatScene, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    for status in (200, 500):
        chats.model.status = status
        await chats.post(asking())
    assert PROMPT not in caplog.text
    output = capfd.readouterr()
    assert PROMPT not in output.out + output.err
