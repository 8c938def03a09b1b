"""The ConfigMap with what servers measured, against both servers: written once, and kept over restarts and edits."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.client.api import Api
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.clock import SystemClock
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope
from kaito.workspace.measurements import MAX_RECORDS, MAX_RECORDS_OF_ONE, NAME, MeasurementRecord, Measurements

GIB = 2**30
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


class At(Protocol):
    """What these tests need of the `server` fixture."""

    @property
    def kubeconfig(self) -> Path: ...
    @property
    def namespace(self) -> str: ...


@pytest.fixture
async def api(server: At) -> AsyncIterator[Api]:
    """An `Api` as the controller has it: of ConfigMaps, only the metadata is cached."""
    transport = HttpTransport(await find_cluster_config(server.kubeconfig))
    cache = Cache(transport, [Cached(ConfigMap, only="metadata")], clock=SystemClock(), rng=random.Random(1))
    async with TaskScope("contract") as scope:
        scope.spawn(cache.run(), name="cache")
        async with asyncio.timeout(20):
            await cache.wait_synced()
        yield Api(Client(transport, field_manager="contract"), cache)
    await transport.close()


@pytest.fixture
def store(server: At) -> Measurements:
    return Measurements(server.namespace)


def record(**changes: object) -> MeasurementRecord:
    values: dict[str, object] = {
        "model": "Qwen/Qwen3.5-9B@0123456789abcdef",
        "gpu": "NVIDIA A10",
        "memory_per_gpu": 24 * GIB,
        "dtype": "bfloat16",
        "tensor": 1,
        "pipeline": 1,
        "data": 1,
        "nodes": 1,
        "settings": "0123456789abcdef",
        "adapters": 0,
        "sequences": 0,
        "peak_bytes": 17 * GIB,
        "cache_tokens": 40_000,
        "image": "registry.example.com/kaito-vllm:1",
        "measured_at": MOMENT,
        **changes,
    }
    return MeasurementRecord.model_validate(values)


async def entries(api: Api, server: At) -> dict[str, str]:
    found = await api.find(ConfigMap, NAME, server.namespace, consistency="live")
    return found.data if found is not None else {}


def config_map(server: At, data: dict[str, str]) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=NAME, namespace=server.namespace), data=data)


async def test_a_measurement_is_kept_once_and_survives_a_restart(api: Api, server: At, store: Measurements) -> None:
    assert await store.keep(api, record())
    assert not await store.keep(api, record(measured_at=MOMENT + timedelta(days=1), image="other"))
    (name,) = await entries(api, server)
    assert name.startswith("Qwen-Qwen3.5-9B.")
    assert await Measurements(server.namespace).records(api) == (record(),)


async def test_nothing_is_kept_without_a_namespace(api: Api) -> None:
    assert await Measurements("").records(api) == ()
    assert not await Measurements("").keep(api, record())


async def test_worse_measurements_are_added_up_to_a_bound(api: Api, server: At, store: Measurements) -> None:
    peaks = [17.0, 17.5, 18.0, 16.0, 19.0, 20.0, 22.0, 24.0]
    kept = [peak for peak in peaks if await store.keep(api, record(peak_bytes=round(peak * GIB)))]
    assert kept == [17.0, 18.0, 19.0, 20.0]
    assert len(kept) == MAX_RECORDS_OF_ONE
    assert await store.keep(api, record(adapters=1))
    assert not await store.keep(api, record(adapters=1, cache_tokens=39_000))
    assert await store.keep(api, record(adapters=1, cache_tokens=37_000))
    assert len(await entries(api, server)) == 6


async def test_concurrent_measurements_are_all_kept(api: Api, server: At, store: Measurements) -> None:
    kept = await asyncio.gather(*(store.keep(api, record(adapters=number % 5)) for number in range(10)))
    assert kept == [True] * 5 + [False] * 5
    assert len(await entries(api, server)) == 5


async def test_edits_are_noticed_and_entries_of_other_versions_stay(api: Api, server: At, store: Measurements) -> None:
    other = json.dumps({"version": 2, "model": "x"})
    present = await api.create(config_map(server, {"of-another-version": other, "edited": "{", "long": "x" * 5000}))
    assert await store.records(api) == ()
    assert await store.keep(api, record())
    assert (await entries(api, server))["of-another-version"] == other
    await api.patch(present, MergePatch({"data": None}))
    assert await store.records(api) == ()
    await api.delete(present)
    assert await store.records(api) == ()
    assert await store.keep(api, record())


async def test_a_new_measurement_replaces_no_other_after_one_was_deleted(
    api: Api, server: At, store: Measurements
) -> None:
    assert await store.keep(api, record())
    (first,) = await entries(api, server)
    assert await store.keep(api, record(peak_bytes=18 * GIB))
    kept = {key: text for key, text in (await entries(api, server)).items() if key != first}
    await api.patch(config_map(server, {}), MergePatch({"data": {first: None}}))
    assert await store.keep(api, record(peak_bytes=20 * GIB))
    found = await entries(api, server)
    assert len(found) == 2
    assert found.items() >= kept.items()


async def test_the_number_of_entries_is_bounded(api: Api, server: At, store: Measurements) -> None:
    await api.create(config_map(server, {f"key{number}": "{}" for number in range(MAX_RECORDS)}))
    assert not await store.keep(api, record())
