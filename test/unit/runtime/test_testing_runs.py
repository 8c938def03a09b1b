"""`World.runs`: which reconciles ran, why, and how they ended."""

from kaito.runtime import Again, Controller, ObjectMeta, Request
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.testing import World


async def test_runs_tell_their_key_cause_and_outcome(world: World) -> None:
    async def converge(request: Request[ConfigMap]) -> Again | None:
        if request.key.name == "bad":
            message = "no"
            raise ValueError(message)
        return Again(3600, "later") if request.key.name == "slow" else None

    async with world.manager(Controller(ConfigMap, converge, name="maps")):
        for name in ("good", "slow"):
            world.put(ConfigMap(metadata=ObjectMeta(name=name)))
        await world.settle()
        (good,) = world.runs("default/good")
        assert (good.controller, good.outcome, good.attempt) == ("maps", "success", 1)
        assert len(good.causes) == 1
        assert "ConfigMap" in good.causes[0]
        assert [run.outcome for run in world.runs("default/slow")] == ["requeue_after"]
        world.put(ConfigMap(metadata=ObjectMeta(name="bad")))
        await world.advance(60)
        assert {run.outcome for run in world.runs("default/bad")} == {"error"}
        assert len(world.runs("default/bad")) > 3
        world.forget_requests()
        await world.settle()
        assert world.runs() == []


async def test_runs_of_controllers_are_told_apart_and_those_of_the_cluster_left_out(world: World) -> None:
    async def look(request: Request[ConfigMap]) -> None: ...

    async def other(request: Request[Secret]) -> None: ...

    await world.start(Controller(Secret, other, name="stand-in"))
    async with world.manager(Controller(ConfigMap, look), Controller(Secret, other)):
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
    assert [run.controller for run in world.runs(controller="secret")] == ["secret"]
    assert {run.controller for run in world.runs("default/a")} == {"configmap", "secret"}
