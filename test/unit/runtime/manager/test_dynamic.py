"""Controllers and runnables that come and go while the manager runs."""

import asyncio

import pytest

from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError, UndeclaredKind
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.manager import Background
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World


def controller(kind: type[Resource], seen: list[str], name: str = "") -> Controller[Resource]:
    async def reconcile(request: Request[Resource]) -> Again | None:
        seen.append(request.key.name)
        return None

    return Controller(kind, reconcile, name=name)


async def test_a_controller_added_later_runs_and_a_removed_one_lets_go(world: World) -> None:
    first, later = list[str](), list[str]()
    world.put(Secret(metadata=ObjectMeta(name="s")))
    async with world.manager(controller(ConfigMap, first)) as manager:
        with pytest.raises(UndeclaredKind):
            await manager.api.find(Secret, "s", "default")
        manager.add(controller(Secret, later))
        await world.settle()
        assert later == ["s"]
        assert await manager.api.find(Secret, "s", "default") is not None
        await manager.remove("secret")
        world.put(Secret(metadata=ObjectMeta(name="t")))
        world.put(ConfigMap(metadata=ObjectMeta(name="c")))
        await world.settle()
        assert (first, later) == (["c"], ["s"])
        assert not manager.cache.declares(Secret)
        assert [queue.name for queue in manager.queues] == ["configmap"]
        manager.add(controller(Secret, later))
        await world.settle()
        assert sorted(later) == ["s", "s", "t"]
        await manager.remove("never heard of")


async def test_elected_work_added_to_a_standby_waits(world: World) -> None:
    ran: list[str] = []

    async def run() -> None:
        ran.append("ran")
        await asyncio.Event().wait()

    leader, standby = world.manager(lease="op", name="a"), world.manager(lease="op", name="b")
    await leader.__aenter__()
    await leader.wait_elected()
    async with standby:
        standby.add(Background("elected", run))
        standby.add(controller(ConfigMap, ran))
        world.put(ConfigMap(metadata=ObjectMeta(name="c")))
        await world.advance(30)
        assert ran == []
        standby.add(Background("plain", run, leader_elected=False))
        await world.settle()
        assert ran == ["ran"]
        await leader.__aexit__(None, None, None)
        await standby.wait_elected()
        await world.settle()
        assert sorted(ran) == ["c", "ran", "ran"]


async def test_names_stay_unique_and_a_stopping_manager_takes_nothing(world: World) -> None:
    manager = world.manager(controller(ConfigMap, []))
    async with manager:
        with pytest.raises(ConfigurationError, match="two controllers"):
            manager.add(controller(ConfigMap, []))
        manager.add(controller(ConfigMap, [], name="another"))
    with pytest.raises(ConfigurationError, match="is stopping"):
        manager.add(controller(Secret, []))
