"""Adapters of the engine that change while it serves, with a stub engine over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from kaito_presets.errors import AdapterError
from kaito_presets.serving.adapter_sync import AdapterSync
from kaito_presets.serving.adapters import Adapter, read_adapter
from kaito_presets.vllm.adapters import AdapterNames, EngineAdapters
from kaito_presets.vllm.arguments import ModelProperties, engine_flags
from kaito_presets.vllm.proxy import Proxy
from stub_engine import StubEngine


@dataclass
class Stack:
    """Proxy, engine and host of the adapters."""

    engine: StubEngine
    proxy: Proxy
    host: EngineAdapters
    session: ClientSession
    url: str
    folder: Path

    def adapter(self, name: str, strength: float = 1.0, rank: int = 8) -> Adapter:
        folder = self.folder / f"{name}-{rank}"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 16}))
        (folder / "adapter_model.safetensors").write_bytes(b"x")
        return read_adapter(folder, strength, name=name)

    async def complete(self, model: str) -> tuple[int, Any]:
        body = {"model": model, "prompt": "abc", "max_tokens": 3}
        async with self.session.post(self.url + "/v1/completions", json=body) as response:
            return response.status, await response.json()

    async def models(self) -> list[str]:
        async with self.session.get(self.url + "/v1/models") as response:
            return [model["id"] for model in (await response.json())["data"]]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    runners: list[web.AppRunner] = []

    async def listen(app: web.Application) -> str:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def pull(*_: Any) -> Any:
        raise AssertionError("the list is empty")

    engine = StubEngine()
    sync = AdapterSync(tmp_path / "adapters.json", pull, tmp_path)
    proxy = Proxy(await listen(engine.application()), model="phi", sync=sync)
    url = await listen(proxy.application())
    proxy.state = "Healthy"
    host = EngineAdapters(proxy.names, proxy.send_to_engine, max_rank=64, scratch=tmp_path / "scratch")
    async with ClientSession() as session:
        yield Stack(engine, proxy, host, session, url, tmp_path)
    for runner in reversed(runners):
        await runner.cleanup()


async def test_adapters_are_loaded_and_unloaded_by_name(stack: Stack) -> None:
    await stack.host.load(stack.adapter("one"))
    await stack.host.load(stack.adapter("two", 0.5))
    assert await stack.models() == ["phi", "one", "two"]
    scaled = json.loads((Path(stack.engine.adapters["two"]) / "adapter_config.json").read_text())
    assert scaled["lora_alpha"] == 8.0
    assert (await stack.complete("one"))[0] == 200
    assert stack.engine.bodies[-1]["model"] == "one"
    await stack.host.unload("one")
    assert await stack.models() == ["phi", "two"]
    assert await stack.host.release() == frozenset()
    assert list(stack.engine.adapters) == ["two"]


async def test_running_request_keeps_the_engine_from_unloading(stack: Stack) -> None:
    await stack.host.load(stack.adapter("one"))
    stack.engine.hold = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stack.complete("one"))
        async with asyncio.timeout(20):
            while not stack.engine.bodies:  # noqa: ASYNC110 - a request over HTTP
                await asyncio.sleep(0.001)
        await stack.host.unload("one")
        assert await stack.host.release() == {"one"}
        assert list(stack.engine.adapters) == ["one"]
        stack.engine.hold.set()
    assert running.result()[0] == 200
    stack.engine.hold = None
    status, document = await stack.complete("one")
    assert (status, document["error"]["code"]) == (404, "model_not_found")
    assert await stack.host.release() == frozenset()
    assert stack.engine.adapters == {}


async def test_changed_adapter_replaces_the_former_one_without_a_gap(stack: Stack) -> None:
    await stack.host.load(stack.adapter("one"))
    await stack.host.load(stack.adapter("one", 0.5))
    assert (await stack.complete("one"))[0] == 200
    assert stack.engine.bodies[-1]["model"] == "one@2"
    assert await stack.models() == ["phi", "one"]
    await stack.host.release()
    assert list(stack.engine.adapters) == ["one@2"]
    # The served name means the only adapter.
    assert (await stack.complete("phi"))[0] == 200
    assert stack.engine.bodies[-1]["model"] == "one@2"
    assert (await stack.complete("phi:base"))[0] == 200
    assert stack.engine.bodies[-1]["model"] == "phi"


async def test_adapter_that_the_engine_rejects_changes_nothing(stack: Stack) -> None:
    stack.engine.broken = {"one"}
    with pytest.raises(AdapterError, match=r"'one': cannot be loaded: not an adapter \(HTTP 400\)"):
        await stack.host.load(stack.adapter("one"))
    with pytest.raises(AdapterError, match=r"rank 128, and the server was started for ranks up to 64.*max-lora-rank"):
        await stack.host.load(stack.adapter("two", rank=128))
    assert await stack.models() == ["phi"]
    assert stack.engine.adapters == {}


async def test_routes_of_the_engine_for_adapters_are_not_reachable(stack: Stack) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        async with stack.session.post(stack.url + path, json={"lora_name": "x", "lora_path": "/"}) as response:
            assert response.status == 404
    assert stack.engine.adapters == {}
    async with stack.session.get(stack.url + "/adapters") as response:
        assert await response.json() == {"revision": "", "problem": "", "adapters": []}


def test_names_of_the_served_model() -> None:
    names = AdapterNames("phi", [])
    assert [names.resolve(name) for name in ("phi", "phi:base", "", "other")] == [None, None, None, None]
    names = AdapterNames("phi", ["one"])
    assert [names.resolve(name) for name in ("phi", "phi:base", "", "one", "other")] == [
        "one", "phi", "one", "one", None,
    ]  # fmt: skip
    names = AdapterNames("phi", ["one", "two"])
    assert [names.resolve(name) for name in ("phi", "phi:base", "two")] == ["phi", "phi", "two"]


def test_memory_for_further_adapters_is_reserved() -> None:
    def flags(**given: Any) -> dict[str, Any]:
        return engine_flags(
            given, model=ModelProperties(), gpus=[], nodes=1, adapters=[], adapter_paths={}, adapters_change=True
        )

    assert {"enable-lora": True, "max-lora-rank": 64, "max-loras": 4, "max-cpu-loras": 20}.items() <= flags().items()
    assert "lora-modules" not in flags()
    assert flags(**{"max-lora-rank": 128})["max-lora-rank"] == 128
