"""A simulated crash: the n-th write takes effect, its response is lost, and nothing passes afterwards."""

import pytest

from kaito.runtime.client import Client
from kaito.runtime.errors import TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import CrashingTransport, CrashPoint, World


def config_map(name: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"))


async def test_the_last_write_takes_effect_and_its_response_is_lost(world: World) -> None:
    crash = CrashPoint(writes=2)
    client = Client(CrashingTransport(world.transport(), crash), field_manager="test")
    await client.create(config_map("first"))
    await client.get(ConfigMap, "first", "default")  # a read does not count
    assert not crash.has_crashed()

    with pytest.raises(TransportError):
        await client.create(config_map("second"))
    assert crash.has_crashed()
    assert world.find(ConfigMap, "second") is not None


async def test_nothing_passes_after_the_crash(world: World) -> None:
    crash = CrashPoint(writes=1)
    inner = world.transport()
    transport = CrashingTransport(inner, crash)
    async with transport.stream("GET", "/api/v1/configmaps?watch=true"):
        assert inner.open_streams == 1
        with pytest.raises(TransportError):
            await transport.request("POST", "/api/v1/namespaces/default/configmaps", body=b"{}")
        requests = len(world.requests)
        with pytest.raises(TransportError):
            await transport.request("GET", "/api/v1/configmaps")
        with pytest.raises(TransportError):
            transport.stream("GET", "/api/v1/configmaps?watch=true")
    assert len(world.requests) == requests


async def test_transports_may_share_a_crash(world: World) -> None:
    crash = CrashPoint(writes=1)
    client = Client(CrashingTransport(world.transport(), crash), field_manager="test")
    crash.count_write()  # the write of another transport, to a cloud for example
    with pytest.raises(TransportError):
        await client.create(config_map("first"))
    assert world.find(ConfigMap, "first") is None
