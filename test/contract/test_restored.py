"""etcd restored from an older state under a running informer, on a real kube-apiserver."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable

import pytest

from hack.envtest import ControlPlane, Unavailable
from kaito.runtime import Cached, Manager, ObjectMeta, Settings
from kaito.runtime.cache.reflector import reflector
from kaito.runtime.client import Client, connect
from kaito.runtime.errors import ApiError, TransportError
from kaito.runtime.kinds import ConfigMap

pytestmark = pytest.mark.real

STALL_SECONDS = 15.0
"""Instead of three minutes."""

PATIENCE_SECONDS = 60.0


def config(name: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"))


async def test_an_informer_notices_that_etcd_was_restored_from_an_older_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts the watch from a later version and is silent."""
    monkeypatch.setattr(reflector, "STALL_SECONDS", STALL_SECONDS)
    monkeypatch.setattr(reflector, "VERSION_CHECK_DELAY_SECONDS", (1, 3))
    plane = ControlPlane()
    try:
        await asyncio.to_thread(plane.start)
    except Unavailable as error:
        pytest.skip(f"no real kube-apiserver: {error}")
    try:
        await _restore(plane)
    finally:
        await asyncio.to_thread(plane.stop)


async def _restore(plane: ControlPlane) -> None:
    settings = Settings(
        kubeconfig=plane.kubeconfig,
        metrics_bind_address="0",
        health_probe_bind_address="0",
        namespaces=("default",),
    )
    async with (
        connect(plane.kubeconfig, field_manager="contract") as client,
        Manager(settings, cache=[Cached(ConfigMap)], name="restored") as manager,
    ):
        for number in range(40):
            await client.create(config(f"old-{number}"))
        await asyncio.to_thread(_forget_everything, plane)
        await _until(lambda: _created(client))
        await _until(lambda: manager.api.find(ConfigMap, "new", "default", consistency="cached"))
        names = {each.name for each in await manager.api.list(ConfigMap, consistency="cached")}
        assert names <= {"new", "kube-root-ca.crt"}
        assert manager.readyz.report().healthy, manager.readyz.report().text


def _forget_everything(plane: ControlPlane) -> None:
    """Restarts both processes with an empty etcd, whose versions begin again."""
    folder = plane.folder / "etcd"
    plane.stop_api_server()
    plane.stop_etcd()
    shutil.rmtree(folder)
    plane.start()


async def _until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.2)


async def _created(client: Client) -> bool:
    try:
        await client.create(config("new"))
    except (ApiError, TransportError):
        return False
    return True
