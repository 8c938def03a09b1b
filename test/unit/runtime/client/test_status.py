"""The status scope: one write at the end, only if something differs, on every way out."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import Api, MergePatch
from kaito.runtime.client.write_context import writing_as
from kaito.runtime.errors import ConfigurationError, Conflict, NotLeader, ServerError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.testing import World


class GaugeSpec(Model):
    size: int = 1


class GaugeStatus(Model):
    ready_replicas: int = 0
    phase: str | None = None
    observed_generation: int | None = None
    conditions: list[Condition] = []


class Gauge(Resource, api="test.example.com/v1", kind="Gauge"):
    spec: GaugeSpec = GaugeSpec()
    status: GaugeStatus = GaugeStatus()


class MuteStatus(Model):
    words: str = ""


class Mute(Resource, api="test.example.com/v1", kind="Mute"):
    status: MuteStatus | None = None


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with world.manager(cache=[Cached(Gauge), Cached(Mute)], live=[ConfigMap]) as manager:
        yield manager.api


@pytest.fixture
async def gauge(world: World, api: Api) -> Gauge:
    world.put(Gauge(metadata=ObjectMeta(name="g", namespace="default")))
    await world.settle()
    return await api.get(Gauge, "g", "default")


async def reconcile(api: Api, gauge: Gauge, reason: str, *, end: Exception | None = None, sleep: float = 0) -> None:
    """A body that reports a condition, and then takes long, or fails."""
    async with api.status(gauge) as status:
        status.condition("Ready", False, reason)
        await asyncio.sleep(sleep)
        if end is not None:
            raise end


def writes(world: World) -> int:
    return world.count("PATCH", Gauge, subresource="status")


@pytest.mark.conformance(35)
async def test_one_request_when_something_differs_and_none_when_not(api: Api, gauge: Gauge, world: World) -> None:
    async with api.status(gauge) as status:
        assert status.condition("Ready", False, "Starting", "0 of 1") is True
        status.set(ready_replicas=0, phase="Starting")
    assert writes(world) == 1
    again = await api.get(Gauge, "g", "default")
    async with api.status(again) as status:
        assert status.condition("Ready", False, "Starting", "0 of 1") is False
        status.set(ready_replicas=0, phase="Starting")
    assert writes(world) == 1


async def test_an_unchanged_status_is_not_written(api: Api, gauge: Gauge, world: World) -> None:
    async with api.status(gauge) as status:
        assert status.conditions == []
        assert status.find("Ready") is None
    assert writes(world) == 0


async def test_the_generation_reconciled_is_observed(api: Api, gauge: Gauge, world: World) -> None:
    world.patch(Gauge, "g", {"spec": {"size": 2}})  # generation 2, which this reconcile has not seen
    async with api.status(gauge) as status:
        status.condition("Ready", True, "Fine")
    written = world.get(Gauge, "g").status
    assert written.observed_generation == 1
    assert written.conditions[0].observed_generation == 1


async def test_transition_time_moves_only_with_the_status(api: Api, gauge: Gauge, world: World) -> None:
    async with api.status(gauge) as status:
        status.condition("Ready", None, "Asking")
    first = world.get(Gauge, "g").status.conditions[0]
    assert first.status == "Unknown"
    await world.advance(10)
    async with api.status(await api.get(Gauge, "g", "default")) as status:
        status.condition("Ready", None, "StillAsking")
    second = world.get(Gauge, "g").status.conditions[0]
    assert (second.reason, second.last_transition_time) == ("StillAsking", first.last_transition_time)
    await world.advance(10)
    async with api.status(await api.get(Gauge, "g", "default")) as status:
        status.condition("Ready", True, "Yes")
    third = world.get(Gauge, "g").status.conditions[0]
    assert third.last_transition_time != first.last_transition_time


async def test_remove_and_clear(api: Api, gauge: Gauge, world: World) -> None:
    async with api.status(gauge) as status:
        status.condition("Ready", True, "Yes")
        status.condition("Odd", True, "Yes")
        status.set(phase="Up")
    async with api.status(await api.get(Gauge, "g", "default")) as status:
        status.remove_condition("Odd")
        status.remove_condition("NeverThere")
        status.set(phase=None)
        assert [condition.type for condition in status.conditions] == ["Ready"]
    written = world.get(Gauge, "g").status
    assert [condition.type for condition in written.conditions] == ["Ready"]
    assert written.phase is None


@pytest.mark.conformance(35)
async def test_a_conflict_keeps_what_others_wrote(api: Api, gauge: Gauge, world: World) -> None:
    theirs = {"type": "Theirs", "status": "True", "reason": "X", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    world.patch(Gauge, "g", {"status": {"conditions": [theirs]}}, subresource="status")
    async with api.status(gauge) as status:
        status.condition("Ours", True, "Y")
    written = world.get(Gauge, "g").status.conditions
    assert sorted(condition.type for condition in written) == ["Ours", "Theirs"]
    assert writes(world) == 2


async def test_a_write_of_the_same_reconcile_is_no_conflict(api: Api, gauge: Gauge, world: World) -> None:
    world.clear_requests()
    with writing_as("gauges"):
        async with api.status(gauge) as status:
            status.condition("Ready", True, "Done")
            await api.patch(gauge, MergePatch({"spec": {"size": 2}}))
    stored = world.get(Gauge, "g", "default")
    assert (stored.spec.size, [condition.reason for condition in stored.status.conditions]) == (2, ["Done"])
    assert (world.count("PATCH"), world.count("GET")) == (2, 0)


async def test_a_write_of_another_object_of_that_name_is_not_the_base_of_the_status(
    api: Api, gauge: Gauge, world: World
) -> None:
    world.delete(Gauge, "g", "default")
    namesake = world.put(Gauge(metadata=ObjectMeta(name="g", namespace="default")))
    with writing_as("gauges"):
        await api.patch(namesake, MergePatch({"spec": {"size": 2}}))
        await reconcile(api, gauge, "Former")
    assert world.get(Gauge, "g", "default").status.conditions == []


async def test_after_four_conflicts_it_is_the_callers(api: Api, gauge: Gauge, world: World) -> None:
    world.fail_next("PATCH", Gauge, status=409, times=None)
    with pytest.raises(Conflict):
        async with api.status(gauge) as status:
            status.condition("Ready", True, "Yes")
    assert writes(world) == 4


async def test_plain_fields_of_an_object_that_changed_are_written_to_the_newer_state(
    api: Api, gauge: Gauge, world: World
) -> None:
    world.patch(Gauge, "g", {"metadata": {"labels": {"a": "b"}}})
    async with api.status(gauge) as status:
        status.set(ready_replicas=3)
    assert world.get(Gauge, "g").status.ready_replicas == 3
    assert writes(world) == 2  # the version of the first was not current


async def test_plain_fields_of_a_former_object_are_not_written_to_its_namesake(
    api: Api, gauge: Gauge, world: World
) -> None:
    """A status of a deleted object reached another one of its name."""
    world.delete(Gauge, "g")
    world.put(Gauge(metadata=ObjectMeta(name="g", namespace="default")))
    async with api.status(gauge) as status:
        status.set(ready_replicas=3)
    assert world.get(Gauge, "g").status.ready_replicas == 0


async def test_written_although_the_body_fails(api: Api, gauge: Gauge, world: World) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        await reconcile(api, gauge, "Broken", end=RuntimeError("boom"))
    assert world.get(Gauge, "g").status.conditions[0].reason == "Broken"


async def test_the_bodys_error_wins_over_a_failed_write(api: Api, gauge: Gauge, world: World) -> None:
    world.fail_next("PATCH", Gauge, status=500, times=None)
    with pytest.raises(RuntimeError) as caught:
        await reconcile(api, gauge, "Broken", end=RuntimeError("boom"))
    assert "was not written" in caught.value.__notes__[0]


async def test_a_failed_write_of_a_good_body_is_an_error(api: Api, gauge: Gauge, world: World) -> None:
    world.fail_next("PATCH", Gauge, status=500)
    with pytest.raises(ServerError):
        async with api.status(gauge) as status:
            status.condition("Ready", True, "Yes")


async def test_written_when_the_deadline_cancels_the_body(api: Api, gauge: Gauge, world: World) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reconcile(api, gauge, "Waiting", sleep=60), 5)
    assert world.get(Gauge, "g").status.conditions[0].reason == "Waiting"


async def test_a_hanging_write_does_not_hold_up_a_cancelled_body(api: Api, gauge: Gauge, world: World) -> None:
    world.fail_next("PATCH", Gauge, hang=True, times=None)
    started = world.now
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reconcile(api, gauge, "Waiting", sleep=60), 5)
    assert (world.now - started).total_seconds() == pytest.approx(10)


async def test_not_written_after_the_lease_was_lost(api: Api, gauge: Gauge, world: World) -> None:
    with pytest.raises(NotLeader):
        await reconcile(api, gauge, "Fine", end=NotLeader("lease lost"))
    assert writes(world) == 0


async def test_the_status_of_a_deleted_or_recreated_object_is_not_written(api: Api, gauge: Gauge, world: World) -> None:
    world.delete(Gauge, "g")
    async with api.status(gauge) as status:
        status.condition("Ready", True, "Yes")
    world.put(Gauge(metadata=ObjectMeta(name="g", namespace="default")))
    async with api.status(gauge) as status:
        status.condition("Ready", True, "Yes")
    assert world.get(Gauge, "g").status.conditions == []


async def test_a_status_that_was_never_there(api: Api, world: World) -> None:
    world.put(Mute(metadata=ObjectMeta(name="m", namespace="default")))
    await world.settle()
    mute = await api.get(Mute, "m", "default")
    async with api.status(mute) as status:
        status.set(words="hello")
        with pytest.raises(ConfigurationError, match="MuteStatus has no conditions"):
            status.condition("Ready", True, "Yes")
    assert world.get(Mute, "m").status == MuteStatus(words="hello")


async def test_wrong_use_is_told_at_once(api: Api, gauge: Gauge) -> None:
    async with api.status(gauge) as status:
        with pytest.raises(
            ConfigurationError, match="has no field 'readyReplicas' to set; it has: observed_generation"
        ):
            status.set(readyReplicas=1)
        with pytest.raises(ConfigurationError, match="no field 'conditions'"):
            status.set(conditions=[])
    with pytest.raises(ConfigurationError, match="ConfigMap has no status"):
        async with api.status(ConfigMap(metadata=ObjectMeta(name="a", namespace="default"))):
            pass


@pytest.mark.sample(4)
@pytest.mark.seeds(20)
async def test_two_writers_never_lose_each_others_conditions(world: World) -> None:
    world.put(Gauge(metadata=ObjectMeta(name="g", namespace="default")))

    async def tell(api: Api, condition: str) -> None:
        for turn in range(5):
            async with api.status(await api.get(Gauge, "g", "default")) as status:
                status.condition(condition, turn % 2 == 0, f"Turn{turn}")
            await asyncio.sleep(0.01)

    async with world.manager(cache=[Cached(Gauge)]) as one, world.manager(cache=[Cached(Gauge)], name="two") as two:
        await asyncio.gather(tell(one.api, "One"), tell(two.api, "Two"))
    conditions = {condition.type: condition.reason for condition in world.get(Gauge, "g").status.conditions}
    assert conditions == {"One": "Turn4", "Two": "Turn4"}
