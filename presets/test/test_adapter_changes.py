"""Adapters added, changed and removed while requests run, with a real (tiny) model: no request fails, no answer mixes
two sets of adapters, and what is removed is freed."""

import asyncio
import importlib
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, web
from kaito_presets.errors import AdapterError
from kaito_presets.inference.adapter_host import SchedulerAdapters
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.options import InferenceOptions
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.inference.server import Lifecycle, application
from kaito_presets.inference.service import GenerationService
from kaito_presets.serving.adapter_sync import AdapterSync, ListedAdapter, PulledAdapter
from kaito_presets.serving.adapters import Adapter, read_adapter

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

PROMPT = "Tell me about Tuscany"


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three random adapters of unequal rank and layers, and a broken one."""
    torch: Any = importlib.import_module("torch")
    peft: Any = importlib.import_module("peft")
    transformers: Any = importlib.import_module("transformers")
    folder = tmp_path_factory.mktemp("adapters")
    layers = {"one": ["qkv_proj"], "two": ["qkv_proj", "o_proj"], "three": ["down_proj"]}
    for seed, (name, targets) in enumerate(layers.items()):
        torch.manual_seed(seed)
        base: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
        rank = 4 + 4 * seed
        config = peft.LoraConfig(r=rank, lora_alpha=4 * rank, target_modules=targets, init_lora_weights=False)
        peft.get_peft_model(base, config).save_pretrained(str(folder / name))
    bad = folder / "bad"
    bad.mkdir()
    (bad / "adapter_config.json").write_bytes((folder / "one" / "adapter_config.json").read_bytes())
    (bad / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    return folder


def open_tiny(tiny_model: Path, *adapters: Any) -> "TransformersModel":
    from kaito_presets.inference.backend.model import open_model

    options = InferenceOptions(
        pretrained_model_name_or_path=str(tiny_model), served_model_name="tiny", torch_dtype="float32", threads=1
    )
    return open_model(options, adapters)


class Stack:
    """A server with its list of adapters, whose images are directories."""

    def __init__(self, model: "TransformersModel", folders: Path, file: Path) -> None:
        self.model = model
        self.file = file
        self.folders = folders
        self.metrics = Metrics()
        self.scheduler = Scheduler(model, queue_limit=100, batch_limit=8, observer=self.metrics)
        self.sync = AdapterSync(file, self.pull, folders, sleep=lambda _: asyncio.sleep(0.01))
        self.now = 0.0
        self.host = SchedulerAdapters(model, self.scheduler, self.metrics, clock=self.clock)
        self.lifecycle = Lifecycle("tiny", adapters=self.sync)
        self.url = ""
        self.revisions = itertools.count()

    def clock(self) -> float:
        """Passes the time of grace between two calls."""
        self.now += 60.0
        return self.now

    async def pull(self, listed: ListedAdapter, _: Path) -> PulledAdapter:
        return PulledAdapter(self.folders / listed.image, f"sha256:{listed.image}")

    async def set_list(self, **strengths: float) -> None:
        """Writes a list and waits until the server has it."""
        revision = str(next(self.revisions))
        adapters = [
            {"name": n.partition("_")[0], "image": n.partition("_")[0], "strength": s} for n, s in strengths.items()
        ]
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"revision": revision, "adapters": adapters}))
        partial.rename(self.file)
        async with asyncio.timeout(120):
            while True:
                document: Any = self.sync.document()
                listed = [entry for entry in document["adapters"] if entry["state"] != "Unloading"]
                settled = all(entry["state"] in ("Loaded", "Failed") for entry in listed)
                if document["revision"] == revision and len(listed) == len(adapters) and settled:
                    return
                await asyncio.sleep(0.005)

    async def released(self) -> None:
        """Waits until only the present versions are in memory."""
        async with asyncio.timeout(120):
            while True:
                await self.host.release()
                info = self.model.info
                present = {*info.adapter_versions.values(), info.combined_version or ""} - {""}
                if self.model.stored_adapters == frozenset(present):
                    return
                await asyncio.sleep(0.005)

    async def ask(self, session: ClientSession, model: str, tokens: int = 12) -> tuple[int, str]:
        body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        async with session.post(f"{self.url}/v1/completions", json=body) as response:
            document = await response.json()
            return response.status, document["choices"][0]["text"] if response.status == 200 else str(document)


@asynccontextmanager
async def serving(tiny_model: Path, folders: Path, tmp_path: Path) -> AsyncGenerator[Stack]:
    file = tmp_path / "adapters.json"
    file.write_text('{"revision": "", "adapters": []}')
    stack = Stack(open_tiny(tiny_model), folders, file)
    stack.scheduler.start()
    runner = web.AppRunner(application(stack.lifecycle, stack.metrics), handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stack.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    stack.lifecycle.set_ready(GenerationService(stack.model, stack.scheduler, stack.metrics))
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(stack.sync.run(stack.host))
            yield stack
            following.cancel()
    finally:
        await stack.lifecycle.drain(0)
        await runner.cleanup()


def strengths_of(sets: list[dict[str, float]]) -> dict[str, list[float]]:
    """The strengths of each adapter in any of the sets."""
    names = sorted({name for each in sets for name in each})
    return {name: sorted({each[name] for each in sets if name in each}) for name in names}


async def test_adapters_change_under_load_without_a_failed_request(
    tiny_model: Path, folders: Path, tmp_path: Path
) -> None:
    sets: list[dict[str, float]] = [
        {"one": 1.0}, {"one": 1.0, "two": 1.0}, {"two": 0.5}, {"two": 0.5, "three": 1.0}, {"three": 1.0}, {},
        {"one": 0.5, "three": 1.0}, {"one": 1.0},
    ]  # fmt: skip
    async with serving(tiny_model, folders, tmp_path) as stack, ClientSession() as session:
        allowed: dict[str, set[str]] = {"tiny": set(), "tiny:base": set()}
        base = (await stack.ask(session, "tiny"))[1]
        allowed["tiny"].add(base)
        # Adapters are loaded one after the other, so requests for all of them also see the combinations on the way.
        for choice in itertools.product(*([None, *values] for values in strengths_of(sets).values())):
            combination = zip(strengths_of(sets), choice, strict=True)
            strengths = {name: strength for name, strength in combination if strength is not None}
            await stack.set_list(**strengths)
            names = ["tiny", *(["tiny:base"] if strengths else []), *strengths]
            for name in names:
                status, text = await stack.ask(session, name)
                assert status == 200, text
                allowed.setdefault(name, set()).add(text)
        assert allowed["tiny:base"] == {base}
        assert len(allowed["tiny"]) >= 5
        await stack.set_list()
        offered: set[str] = {"tiny"}
        failed: list[str] = []
        counts: dict[str, int] = {}
        done = False

        async def load(number: int) -> None:
            for turn in itertools.count(number):
                if done:
                    return
                name = sorted(offered)[turn % len(offered)]
                status, text = await stack.ask(session, name)
                counts[name] = counts.get(name, 0) + 1
                if status != 200 or text not in allowed[name]:
                    failed.append(f"{name}: {status} {text!r}")

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(load(number))
            for strengths in sets * 2:
                # A client must not select an adapter any more when it is taken out of the list; running requests end.
                offered &= {"tiny", *strengths}
                await stack.set_list(**strengths)
                offered |= set(strengths)
                target = sum(counts.values()) + 6
                async with asyncio.timeout(120):
                    while sum(counts.values()) < target and not failed:  # noqa: ASYNC110 - several tasks count
                        await asyncio.sleep(0.005)
            done = True
        assert failed == []
        assert {"tiny", "one", "two", "three"} <= counts.keys()
        await stack.set_list()
        await stack.released()
        assert stack.model.stored_adapters == frozenset()
        assert (await stack.ask(session, "tiny"))[1] == base
        assert (await stack.ask(session, "one"))[0] == 404


async def test_running_request_keeps_its_adapter(tiny_model: Path, folders: Path, tmp_path: Path) -> None:
    async with serving(tiny_model, folders, tmp_path) as stack, ClientSession() as session:
        await stack.set_list(one=1.0)
        expected = {name: (await stack.ask(session, name, 60))[1] for name in ("one", "tiny")}
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(stack.ask(session, name, 60)) for name in expected]
            async with asyncio.timeout(60):
                while len(stack.scheduler.adapters_in_use()) < 2:  # noqa: ASYNC110 - the scheduler's thread
                    await asyncio.sleep(0.001)
            await stack.set_list()
        assert [task.result() for task in running] == [(200, expected["one"]), (200, expected["tiny"])]
        await stack.released()


async def test_adapter_that_cannot_be_loaded_changes_nothing(tiny_model: Path, folders: Path, tmp_path: Path) -> None:
    async with serving(tiny_model, folders, tmp_path) as stack, ClientSession() as session:
        await stack.set_list(one=1.0)
        before = [(await stack.ask(session, name))[1] for name in ("tiny", "one")]
        await stack.set_list(one=1.0, bad=1.0)
        async with session.get(f"{stack.url}/adapters") as response:
            document = await response.json()
        assert [entry["state"] for entry in document["adapters"]] == ["Loaded", "Failed"]
        assert "adapter 'bad': cannot be loaded" in document["adapters"][1]["message"]
        assert [(await stack.ask(session, name))[1] for name in ("tiny", "one")] == before
        assert (await stack.ask(session, "bad"))[0] == 404
        await stack.released()
        assert len(stack.model.stored_adapters) == 2


def test_adapter_that_exceeds_the_memory_is_refused(
    tiny_model: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaito_presets.inference.backend import model as backend

    model = open_tiny(tiny_model, read_adapter(folders / "one", 1.0))

    def huge(_: Adapter) -> int:
        return 2**50

    monkeypatch.setattr(backend, "weight_bytes", huge)
    with pytest.raises(AdapterError, match=r"'two': needs .* MiB, and .* MiB are free"):
        model.load_adapter(read_adapter(folders / "two", 1.0))
    assert model.info.adapters == ("one",)


def test_adapters_that_cannot_be_combined_change_nothing(tiny_model: Path, folders: Path) -> None:
    from kaito_presets.inference.backend.model import open_model

    options = InferenceOptions(pretrained_model_name_or_path=str(tiny_model), threads=1, combination_type="linear")
    model = open_model(options, [read_adapter(folders / "one", 1.0)])
    before = model.info
    with pytest.raises(AdapterError, match="cannot be combined with linear"):
        model.load_adapter(read_adapter(folders / "two", 1.0))
    assert model.info == before
    assert model.stored_adapters == {*before.adapter_versions.values(), before.combined_version}


@pytest.mark.parametrize("failure", [RuntimeError("CUDA out of memory"), MemoryError()])
def test_combination_that_fails_changes_nothing(
    tiny_model: Path, folders: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    peft: Any = importlib.import_module("peft")
    one, three = (read_adapter(folders / name, 1.0) for name in ("one", "three"))
    model = open_tiny(tiny_model, one, three)
    before = (model.info, model.stored_adapters)

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(peft.PeftModel, "add_weighted_adapter", fail, raising=False)
        patched.setattr(peft.LoraModel, "add_weighted_adapter", fail)
        with pytest.raises(AdapterError, match="cannot be combined with cat"):
            model.load_adapter(read_adapter(folders / "two", 1.0))
        assert (model.info, model.stored_adapters) == before
        with pytest.raises(AdapterError, match="cannot be combined with cat"):
            model.retire_adapter("three")
        assert (model.info, model.stored_adapters) == before
    model.retire_adapter("three")
    assert model.info.adapters == ("one",)


def test_version_is_not_the_name_of_an_adapter(tiny_model: Path, folders: Path) -> None:
    """Requests select a version or a name; a name is a directory or checked, so it contains no slash."""
    model = open_tiny(tiny_model, read_adapter(folders / "one", 1.0), read_adapter(folders / "two", 1.0))
    versions = [*model.info.adapter_versions.values(), model.info.combined_version]
    assert len(set(versions)) == 3
    assert all("/" in str(version) for version in versions)
