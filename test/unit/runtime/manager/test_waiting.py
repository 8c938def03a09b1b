"""A controller that waits for kinds which are not installed, while everything else starts."""

import random

import pytest

from kaito.runtime.cache import Index
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import CacheNotSynced, UndeclaredKind
from kaito.runtime.kinds import ConfigMap, CustomResourceDefinition
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World

OFF = Settings(metrics_bind_address="0", health_probe_bind_address="0")


class BackupSpec(Model):
    every: int = 1


class Backup(Resource, api="backup.example.com/v1", kind="Backup"):
    spec: BackupSpec = BackupSpec()


def manager_of(world: World, *controllers: Controller[Backup] | Controller[ConfigMap]) -> Manager:
    """Without installing anything, as `world.manager` would."""
    manager = Manager(
        OFF,
        controllers=controllers,
        transport=world.transport(),
        clock=world.clock,
        name="test",
        rng=random.Random(1),
    )
    world.track(manager)
    return manager


def controllers(seen: list[str], *, wait: bool) -> tuple[Controller[Backup], Controller[ConfigMap]]:
    async def back_up(request: Request[Backup]) -> Again | None:
        seen.append(f"backup {request.key.name}")
        return None

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        seen.append(f"config {request.key.name}")
        return None

    return Controller(Backup, back_up, wait_for_kinds=wait), Controller(ConfigMap, reconcile)


async def test_without_waiting_a_missing_kind_fails_the_start(world: World) -> None:
    with pytest.raises(CacheNotSynced, match=r"Backup\.backup\.example\.com"):
        await manager_of(world, *controllers([], wait=False)).start()
    assert monotonic() == pytest.approx(120, abs=1)


async def test_a_missing_kind_is_waited_for_and_holds_up_nobody(world: World) -> None:
    seen: list[str] = []
    world.put(ConfigMap(metadata=ObjectMeta(name="c")))
    async with manager_of(world, *controllers(seen, wait=True)) as manager:
        await world.settle()
        assert monotonic() == 0
        assert seen == ["config c"]
        assert manager.readyz.report().status == 200, manager.readyz.report().text
        await world.advance(600)
        world.install(Backup)
        world.put(Backup(metadata=ObjectMeta(name="b")))
        await world.advance(11)
        assert seen == ["config c", "backup b"]
        assert manager.readyz.report().status == 200


async def test_a_kind_that_goes_away_is_waited_for_again(world: World) -> None:
    seen: list[str] = []
    world.install(Backup)
    world.put(Backup(metadata=ObjectMeta(name="b")))
    async with manager_of(world, *controllers(seen, wait=True)) as manager:
        await world.settle()
        assert seen == ["backup b"]
        world.delete(CustomResourceDefinition, "backups.backup.example.com")
        await world.advance(300)
        assert not manager.cache.declares(Backup)
        assert manager.readyz.report().status == 200, manager.readyz.report().text
        world.install(Backup)
        world.put(Backup(metadata=ObjectMeta(name="again")))
        await world.advance(11)
        assert seen[-1] == "backup again"
        assert await manager.api.find(Backup, "again", "default") is not None
        await manager.remove("backup")
        assert not manager.cache.declares(Backup)


async def test_trouble_with_discovery_is_not_a_missing_kind(world: World) -> None:
    seen: list[str] = []
    world.install(Backup)
    async with manager_of(world, *controllers(seen, wait=True)) as manager:
        await world.settle()
        fault = world.fail_next(status=503, times=None)
        world.cut_watches()
        await world.advance(120)
        world.server.faults.remove(fault)
        await world.advance(60)
        world.put(Backup(metadata=ObjectMeta(name="b")))
        await world.settle()
        assert seen == ["backup b"]
        assert manager.readyz.report().status == 200


async def test_a_watch_of_an_optional_kind_begins_when_it_is_served(world: World) -> None:
    seen: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        seen.append(str(request.causes[0]))
        try:
            seen.append(f"backups: {len(await request.api.list(Backup, index=by_size('1')))}")
        except UndeclaredKind:
            seen.append("no backups yet")
        return None

    by_size = Index(Backup, lambda backup: [str(backup.spec.every)], name="by-size")
    controller = Controller(ConfigMap, reconcile).watches(
        Backup, to=lambda backup, view: backup.key, indexes=[by_size], optional=True
    )
    world.put(ConfigMap(metadata=ObjectMeta(name="b")))
    async with manager_of(world, controller) as manager:
        await world.settle()
        assert monotonic() == 0
        assert seen == ["create ConfigMap default/b (initial list)", "no backups yet"]
        assert manager.readyz.report().status == 200
        for _ in range(2):
            seen.clear()
            world.install(Backup)
            world.put(Backup(metadata=ObjectMeta(name="b")))
            await world.advance(11)
            assert seen == ["create Backup default/b (initial list)", "backups: 1"]
            world.delete(CustomResourceDefinition, "backups.backup.example.com")
            await world.advance(300)
            assert not manager.cache.declares(Backup)
            assert manager.readyz.report().status == 200
