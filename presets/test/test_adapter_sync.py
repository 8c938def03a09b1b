"""The list of adapters that a server follows: additions, changes, removals, failures, a broken list."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import AdapterError, ConfigurationError
from kaito_presets.serving.adapter_sync import (
    AdapterSync,
    ListedAdapter,
    PulledAdapter,
    adapters_document,
    read_list,
    sync_from_environment,
)
from kaito_presets.serving.adapters import Adapter


@dataclass
class Host:
    """Records what it is asked for."""

    calls: list[str] = field(default_factory=list[str])
    refuse: set[str] = field(default_factory=set[str])
    used: frozenset[str] = frozenset()

    async def load(self, adapter: Adapter) -> None:
        if adapter.name in self.refuse:
            raise AdapterError(adapter.name, "rank 512 is too large")
        self.calls.append(f"load {adapter.name} {adapter.strength:g}")

    async def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")

    async def release(self) -> frozenset[str]:
        return self.used


@dataclass
class Rig:
    """A list, a registry and a host; `settle` runs the synchronization until it only waits."""

    folder: Path
    host: Host = field(default_factory=Host)
    broken: set[str] = field(default_factory=set[str])
    hanging: set[str] = field(default_factory=set[str])
    pulls: list[str] = field(default_factory=list[str])
    pauses: list[float] = field(default_factory=list[float])
    canceled: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.file = self.folder / "adapters.json"
        self.sync = AdapterSync(self.file, self.pull, self.folder / "store", sleep=self.sleep)
        self.ticks = asyncio.Event()

    def write(self, revision: str, *adapters: tuple[str, str, float]) -> None:
        entries = [dict(zip(("name", "image", "strength"), adapter, strict=True)) for adapter in adapters]
        self.file.write_text(json.dumps({"revision": revision, "adapters": entries}))

    async def pull(self, listed: ListedAdapter, store: Path) -> PulledAdapter:
        self.pulls.append(listed.image)
        if listed.image in self.hanging:
            try:
                await asyncio.Event().wait()
            finally:
                self.canceled.append(listed.image)
        if listed.image in self.broken:
            raise AdapterError(listed.name, "cannot be pulled: no such image")
        directory = store / listed.image
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "adapter_config.json").write_text(json.dumps({"r": 4}))
        (directory / "adapter_model.safetensors").write_bytes(b"x")
        return PulledAdapter(directory, f"sha256:{listed.image}")

    async def sleep(self, seconds: float) -> None:
        """Waits for the next tick of the test."""
        self.pauses.append(seconds)
        await self.ticks.wait()

    async def settle(self, ticks: int = 2) -> None:
        for _ in range(ticks):
            self.ticks.set()
            self.ticks = asyncio.Event()
            for _ in range(200):
                await asyncio.sleep(0)
            # Files are read on a thread.
            await asyncio.to_thread(int)
            for _ in range(200):
                await asyncio.sleep(0)

    def states(self) -> dict[str, str]:
        document: Any = self.sync.document()
        return {entry["name"]: entry["state"] for entry in document["adapters"]}


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Rig]:
    # With one thread, what `settle` waits for is queued behind the read of the list.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    rig = Rig(folder)
    rig.write("1")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.sync.run(rig.host))
        await rig.settle()
        yield rig
        task.cancel()


async def test_list_is_followed(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.write("2", ("one", "a", 1.0), ("two", "b", 0.5))
        await rig.settle(3)
        assert sorted(rig.host.calls) == ["load one 1", "load two 0.5"]
        document: Any = rig.sync.document()
        assert (document["revision"], document["problem"]) == ("2", "")
        assert document["adapters"][0] == {
            "name": "one", "image": "a", "strength": 1.0, "state": "Loaded", "digest": "sha256:a", "message": "",
        }  # fmt: skip
        rig.host.calls.clear()
        rig.write("3", ("two", "b", 0.25))
        rig.host.used = frozenset({"one"})
        await rig.settle(3)
        assert sorted(rig.host.calls) == ["load two 0.25", "unload one"]
        assert rig.states() == {"two": "Loaded", "one": "Unloading"}
        rig.host.used = frozenset()
        await rig.settle()
        assert rig.states() == {"two": "Loaded"}
        await rig.sync.wait_until_loaded(0.0)


async def test_unchanged_list_does_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.write("2", ("one", "a", 1.0))
        await rig.settle(3)
        rig.write("3", ("one", "a", 1.0))
        await rig.settle(3)
        assert rig.host.calls == ["load one 1"]
        assert rig.sync.document()["revision"] == "3"


async def test_failure_is_reported_retried_and_does_not_affect_others(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.broken, rig.host.refuse = {"a"}, {"three"}
        rig.write("2", ("one", "a", 1.0), ("two", "b", 1.0), ("three", "c", 1.0))
        await rig.settle(2)
        assert rig.states() == {"one": "Failed", "two": "Loaded", "three": "Failed"}
        document: Any = rig.sync.document()
        messages = {entry["name"]: entry["message"] for entry in document["adapters"]}
        assert messages["one"] == "adapter 'one': cannot be pulled: no such image"
        assert messages["three"] == "adapter 'three': rank 512 is too large"
        await rig.settle(8)
        longer = [pause for pause in rig.pauses if pause >= 5.0]
        assert longer[:4] == [5.0, 5.0, 10.0, 10.0]
        assert max(longer) <= 300.0
        rig.broken, rig.host.refuse = set(), set()
        await rig.settle(2)
        assert set(rig.states().values()) == {"Loaded"}


async def test_removed_adapter_is_not_pulled_further(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.hanging = {"a"}
        rig.write("2", ("one", "a", 1.0))
        await rig.settle()
        assert rig.states() == {"one": "Pulling"}
        rig.write("3", ("one", "b", 1.0))
        await rig.settle(3)
        assert rig.canceled == ["a"]
        assert rig.states() == {"one": "Loaded"}
        rig.hanging = {"c"}
        rig.write("4", ("two", "c", 1.0))
        await rig.settle()
        rig.write("5")
        await rig.settle()
        assert rig.canceled == ["a", "c"]
        assert rig.states() == {}


async def test_broken_list_changes_nothing_and_is_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.write("2", ("one", "a", 1.0))
        await rig.settle(3)
        rig.file.write_text("{")
        await rig.settle()
        assert "not JSON" in str(rig.sync.document()["problem"])
        rig.file.unlink()
        await rig.settle()
        assert "No such file" in str(rig.sync.document()["problem"])
        assert rig.states() == {"one": "Loaded"}
        rig.write("3", ("one", "a", 1.0))
        await rig.settle()
        assert rig.sync.document()["problem"] == ""
        assert rig.host.calls == ["load one 1"]


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ([{"name": "a/b", "image": "x"}], r"adapters\[0\].name"),
        ([{"name": "..", "image": "x"}], r"adapters\[0\].name"),
        ([{"name": "a"}], r"adapters\[0\].image is missing"),
        ([{"name": "a", "image": "x", "strength": 2}], r"adapters\[0\].strength: 2"),
        ([{"name": "a", "image": "x", "strength": True}], r"adapters\[0\].strength: True"),
        ([{"name": "a", "image": "x"}, {"name": "a", "image": "y"}], "a name twice"),
        (["a"], r"adapters\[0\] is not an object"),
        ({}, "with the list `adapters`"),
    ],
)
def test_wrong_lists_are_rejected(adapters: Sequence[Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_list(json.dumps({"adapters": adapters}).encode())


def test_server_without_a_list_follows_none() -> None:
    assert sync_from_environment({}) is None
    assert adapters_document(None) == {"revision": "", "problem": "", "adapters": []}
    assert sync_from_environment({"KAITO_ADAPTER_LIST": "/x", "KAITO_ADAPTER_CREDENTIALS": "/y"}) is not None
