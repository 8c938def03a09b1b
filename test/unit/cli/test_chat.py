"""`kaito chat`: the endpoint and the problems of a Workspace, streamed answers, commands, interruption, exit codes."""

import asyncio
import io
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from kaito.api import Workspace, crds
from kaito.apiserver import ApiServer
from kaito.chat.endpoint import ChatEndpoint, ChatError, find_endpoint, not_ready
from kaito.cli import chat
from kaito.cli.chat import Conversation, Terminal
from kaito.cli.main import parser
from kaito.runtime.client import Client
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import CustomResourceDefinition, Pod, Service
from kaito.runtime.testing import InMemoryTransport

BASE = "/api/v1/namespaces/default/services/http:phi:80/proxy"


@dataclass
class ModelServer:
    """Answers like an inference server behind the API server's proxy."""

    app: web.Application = field(default_factory=web.Application)
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    pieces: list[str] = field(default_factory=lambda: ["Par", "is."])
    status: int = 200
    error: dict[str, Any] | None = None
    """Event in the middle of the stream, or body of the error."""
    hang: bool = False
    """Whether the stream stops after its pieces without an end."""

    def __post_init__(self) -> None:
        self.app.add_routes(
            [web.get(f"{BASE}/v1/models", self._models), web.post(f"{BASE}/v1/chat/completions", self._chat)]
        )

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in ("phi", "phi:base", "poet")]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self.status != 200:
            return web.json_response(self.error, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in self.pieces]
        events += [self.error] if self.error else [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        for event in events:
            # Half an event at a time: a chunk of the network is not a line.
            text = f"data: {json.dumps(event)}\n\n".encode()
            await response.write(text[:9])
            await response.write(text[9:])
        if self.hang:
            await asyncio.Event().wait()
        await response.write(b'data: {"choices": [], "usage": {"completion_tokens": 7}}\n\ndata: [DONE]\n\n')
        return response


@dataclass
class Rig:
    """A terminal, its output, and the server behind it."""

    runner: asyncio.Runner
    server: ModelServer
    conversation: Conversation
    out: io.StringIO
    terminal: Terminal


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Handles SIGINT as in the foreground; in a background job of a shell, Python ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rig(ctrl_c: None) -> Iterator[Rig]:
    with asyncio.Runner() as runner:
        server = ModelServer()
        site = web.AppRunner(server.app, handler_cancellation=True, shutdown_timeout=0.1)

        async def start() -> HttpTransport:
            await site.setup()
            await web.TCPSite(site, "127.0.0.1", 0).start()
            return HttpTransport(ClusterConfig(f"http://127.0.0.1:{site.addresses[0][1]}", NoCredentials()))

        transport = runner.run(start())
        endpoint = ChatEndpoint(transport, BASE, "default/phi")
        out = io.StringIO()
        conversation = Conversation(endpoint, ["phi", "phi:base", "poet"], "phi", {"temperature": 0.0})
        yield Rig(runner, server, conversation, out, Terminal(runner, conversation, color=False, out=out))
        runner.run(transport.close())
        runner.run(site.cleanup())


def test_answer_is_streamed_and_remembered(rig: Rig) -> None:
    assert rig.terminal.answer_lines(io.StringIO("Capital of France?\n\nAnd then?\n")) == 0
    assert rig.out.getvalue() == "Paris.\nParis.\n"
    first, second = rig.server.bodies
    assert (first["model"], first["stream"], first["temperature"]) == ("phi", True, 0.0)
    assert first["messages"] == [{"role": "user", "content": "Capital of France?"}]
    assert [turn["content"] for turn in second["messages"]] == ["Capital of France?", "Paris.", "And then?"]


def converse(rig: Rig, monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> int:
    typed = iter(lines)

    def read(_: str) -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    return rig.terminal.converse()


def test_commands_change_model_system_and_history(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "/models",
        "/model poet",
        "/system Be brief.",
        "one",
        "/reset",
        "two",
        "/model nemo",
        "/help",
        "/exit",
        "no",
    )
    assert converse(rig, monkeypatch, *lines) == 0
    first, second = rig.server.bodies
    assert (first["model"], second["model"]) == ("poet", "poet")
    assert [turn["content"] for turn in first["messages"]] == ["Be brief.", "one"]
    assert [turn["content"] for turn in second["messages"]] == ["Be brief.", "two"]
    printed = rig.out.getvalue()
    assert "* phi\n  phi:base\n  poet\n" in printed
    assert "has no model or adapter 'nemo'; it has: phi, phi:base, poet" in printed
    assert "/reset " in printed
    assert "7 tokens" in printed


class InterruptingOutput(io.StringIO):
    """Output whose reader types Ctrl-C when the answer is complete."""

    def write(self, text: str) -> int:
        if text == "is.":
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_interrupt_stops_the_answer_and_keeps_the_conversation(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.server.hang = True
    rig.out = InterruptingOutput()
    rig.terminal = Terminal(rig.runner, rig.conversation, color=False, out=rig.out)
    assert converse(rig, monkeypatch, "Capital?", KeyboardInterrupt, KeyboardInterrupt) == 130
    assert [turn["content"] for turn in rig.conversation.turns] == ["Capital?", "Paris."]
    assert "Paris.\nstopped\n" in rig.out.getvalue()
    assert "Ctrl-C again" in rig.out.getvalue()


def test_interrupt_of_a_single_question_is_exit_code_130(rig: Rig) -> None:
    rig.server.hang = True
    terminal = Terminal(rig.runner, rig.conversation, color=False, out=InterruptingOutput())
    assert terminal.answer_lines(io.StringIO("one\ntwo\n")) == 130
    assert len(rig.server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (429, {"error": {"message": "the queue is full"}}, "the queue is full (HTTP 429)"),
        (
            403,
            {"kind": "Status", "message": "services/proxy is forbidden"},
            "permission for the subresource services/proxy",
        ),
        (503, {"kind": "Status", "message": "no endpoints available"}, "no endpoints available (HTTP 503)"),
        (404, {"detail": "Not Found"}, "the server has no OpenAI routes"),
        (200, {"error": {"message": "out of memory"}}, "out of memory"),
    ],
)
def test_failures_of_the_server_are_reported(rig: Rig, status: int, document: dict[str, Any], words: str) -> None:
    rig.server.status, rig.server.error = status, document
    with pytest.raises(ChatError, match=words.replace("(", r"\(").replace(")", r"\)")):
        rig.terminal.answer_once("hi")


def test_failure_does_not_end_a_conversation(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.server.status, rig.server.error = 500, {"error": {"message": "broken"}}
    assert converse(rig, monkeypatch, "one", "two") == 0
    assert rig.out.getvalue().count("broken (HTTP 500)") == 2
    assert rig.conversation.turns == []


def test_control_characters_of_a_model_do_not_reach_the_terminal(rig: Rig) -> None:
    rig.server.pieces = ["a\x1b[2Jb\n"]
    colored = Terminal(rig.runner, rig.conversation, color=True, out=rig.out)
    colored.answer_once("hi")
    assert rig.out.getvalue() == "a\N{REPLACEMENT CHARACTER}[2Jb\n"


# The Workspace.


def workspace(*found: tuple[str, str, str, str], tuning: bool = False) -> Workspace:
    part: dict[str, Any] = {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}}
    if tuning:
        source: dict[str, Any] = {"volumeSource": {"emptyDir": {}}}
        preset = {"name": "phi-3-mini-4k-instruct"}
        part = {"tuning": {"preset": preset, "method": "lora", "input": source, "output": source}}
    listed = [dict(zip(("type", "status", "reason", "message"), condition, strict=True)) for condition in found]
    document = {
        "metadata": {"name": "phi", "namespace": "default"},
        "resource": {"labelSelector": {"matchLabels": {"apps": "phi"}}},
        **part,
    }
    return Workspace.model_validate(document | {"status": {"conditions": listed}})


READY = ("InferenceReady", "True", "InferencePodsReady", "")


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([READY], ""),
        ([("ResourceReady", "False", "X", "no nodes"), READY], ""),
        (
            [
                ("InferenceReady", "False", "WaitingForResources", "waits"),
                ("ResourceReady", "False", "Quota", "no quota"),
            ],
            "ResourceReady is False (Quota): no quota",
        ),
        (
            [("ResourceReady", "True", "R", ""), ("InferenceReady", "Unknown", "Pending", "")],
            "InferenceReady is Unknown (Pending)",
        ),
        ([], "it has no condition InferenceReady yet; is the workspace-controller running?"),
    ],
)
def test_condition_that_is_not_ready_is_named(found: list[tuple[str, str, str, str]], problem: str) -> None:
    assert not_ready(workspace(*found)) == problem


async def cluster(*objects: Any) -> Client:
    client = Client(InMemoryTransport(ApiServer()), field_manager="test")
    for definition in crds.manifests():
        await client.create(CustomResourceDefinition.model_validate(definition))
    for each in objects:
        created = await client.create(each)
        if each.to_dict().get("status"):
            await client.update_status(created.evolve(status=each.status))
    return client


def transport() -> HttpTransport:
    return HttpTransport(ClusterConfig("http://127.0.0.1:1", NoCredentials()))


async def test_endpoint_is_the_proxy_of_the_service() -> None:
    service = Service.model_validate(
        {"metadata": {"name": "phi", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
    )
    used = transport()
    endpoint = await find_endpoint(await cluster(workspace(READY), service), used, "phi", "default")
    assert (endpoint.base, endpoint.transport, endpoint.what) == (BASE, used, "default/phi")


async def test_pod_of_a_local_cluster_is_called_directly() -> None:
    service = Service.model_validate(
        {
            "metadata": {"name": "phi", "namespace": "default"},
            "spec": {"clusterIP": "127.16.0.9", "ports": [{"port": 80}]},
        }
    )
    pod = Pod.model_validate(
        {
            "metadata": {"name": "phi-0", "namespace": "default", "labels": {"kaito.sh/workspace": "phi"}},
            "spec": {"containers": [{"name": "x", "image": "x"}]},
            "status": {"podIP": "127.17.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    client = Client(InMemoryTransport(ApiServer(service_cidr="127.16.0.0/16")), field_manager="test")
    for definition in crds.manifests():
        await client.create(CustomResourceDefinition.model_validate(definition))
    stored = await client.create(workspace(READY))
    await client.update_status(stored.evolve(status=workspace(READY).status))
    await client.create(service)
    await client.update_status((await client.create(pod)).evolve(status=pod.status))
    endpoint = await find_endpoint(client, transport(), "phi", "default")
    assert (endpoint.base, endpoint.transport.host) == ("", "127.17.0.1:5000")


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([], "Workspace default/phi does not exist; the namespace has none"),
        ([workspace(tuning=True)], "tunes a model and serves none"),
        ([workspace()], "not ready: it has no condition InferenceReady .*; what to do: kaito explain phi -n default"),
    ],
)
async def test_workspace_that_cannot_answer_is_reported(objects: list[Any], words: str) -> None:
    with pytest.raises(ChatError, match=words):
        await find_endpoint(await cluster(*objects), transport(), "phi", "default")


def test_exit_code_is_1_and_the_cause_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = {"server": "http://127.0.0.1:1"}
    kubeconfig = tmp_path / "kubeconfig"
    document: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }  # fmt: skip
    kubeconfig.write_text(yaml.safe_dump(document))
    arguments = parser().parse_args(["chat", "phi", "--kubeconfig", str(kubeconfig), "-p", "hi"])
    with pytest.raises(KaitoRuntimeError, match=r"127\.0\.0\.1"):
        chat.run(arguments)
    assert arguments.prompt == "hi"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("question", ["", "  "])
def test_empty_question_is_refused_and_does_not_wait_for_the_standard_input(
    question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["chat", "phi", "-p", question])
    assert ended.value.code == 2
    assert "argument -p/--prompt: is empty: give a question" in capsys.readouterr().err
