"""`World.runs`: which reconciles ran, why, and how they ended."""

from collections.abc import Awaitable, Callable

import pytest

from kaito.runtime import Again, Controller, ObjectMeta, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.testing import Livelock, World


async def test_runs_tell_their_key_cause_and_outcome(world: World) -> None:
    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        if request.key.name == "bad":
            message = "no"
            raise ValueError(message)
        return Again(3600, "later") if request.key.name == "slow" else None

    async with world.manager(Controller(ConfigMap, reconcile, name="maps")):
        for name in ("good", "slow"):
            world.put(ConfigMap(metadata=ObjectMeta(name=name)))
        await world.settle()
        (good,) = world.reconciles("default/good")
        assert (good.controller, good.outcome, good.attempt) == ("maps", "success", 1)
        assert len(good.causes) == 1
        assert "ConfigMap" in good.causes[0]
        assert [run.outcome for run in world.reconciles("default/slow")] == ["requeue_after"]
        world.put(ConfigMap(metadata=ObjectMeta(name="bad")))
        await world.advance(60)
        assert {run.outcome for run in world.reconciles("default/bad")} == {"error"}
        assert len(world.reconciles("default/bad")) > 3
        world.clear_requests()
        await world.settle()
        assert world.reconciles() == []


async def test_reconciles_are_recorded_by_controller_without_those_of_the_cluster(world: World) -> None:
    async def look(request: Request[ConfigMap]) -> None: ...

    async def other(request: Request[Secret]) -> None: ...

    await world.start(Controller(Secret, other, name="stand-in"))
    async with world.manager(Controller(ConfigMap, look), Controller(Secret, other)):
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
    assert [run.controller for run in world.reconciles(controller="secret")] == ["secret"]
    assert {run.controller for run in world.reconciles("default/a")} == {"configmap", "secret"}


async def test_two_writers_that_undo_each_others_patches_are_a_livelock_that_names_the_key(world: World) -> None:
    """`advance` did not return for minutes."""

    def patching(value: str) -> Callable[[Request[ConfigMap]], Awaitable[None]]:
        async def reconcile(request: Request[ConfigMap]) -> None:
            if request.object.data.get("a") != value:
                await request.api.patch(request.object, MergePatch({"data": {"a": value}}))

        return reconcile

    async def story() -> None:
        one = Controller(ConfigMap, patching("1"), name="one")
        two = Controller(ConfigMap, patching("2"), name="two")
        async with world.manager(one, two):
            world.put(ConfigMap(metadata=ObjectMeta(name="fought-over")))
            await world.advance(60)

    with pytest.raises(Livelock, match=r"reconciled default/fought-over 2000 times.*update ConfigMap"):
        await story()
