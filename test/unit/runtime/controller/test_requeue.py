"""Requeues that a reconcile requests with `requeue_after`, and how they combine with its result."""

from datetime import timedelta

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Again, KeyedRequest, PeriodicRequest, Request, earliest
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff


def put(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="a")))


def test_the_earlier_requeue_wins() -> None:
    assert earliest(None, None) is None
    assert earliest(Again(1), None) == Again(1)
    assert earliest(None, Again(1)) == Again(1)
    assert earliest(Again(2), Again(1)) == Again(1)
    assert earliest(Again(1, "first"), Again(1, "second")) == Again(1, "first")


async def test_the_earliest_requested_requeue_is_used(world: World) -> None:
    times: list[float] = []
    reasons: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        times.append(round(monotonic(), 3))
        reasons.extend(cause.note for cause in request.causes if cause.verb == "again")
        if len(times) == 1:
            request.requeue_after(60, "nodes pending")
            request.requeue_after(10, "pods pending")
            request.requeue_at(request.clock.now() + timedelta(seconds=30), "deadline")
            assert request.requeue == Again(10, "pods pending")
        return None

    put(world)
    async with world.manager(Controller(ConfigMap, reconcile, name="c")):
        await world.advance(120)
    assert [times[1] - times[0]] == [pytest.approx(10, abs=0.1)]
    assert len(times) == 2
    assert reasons == ["pods pending"]


@pytest.mark.parametrize(("returned", "requested", "expected"), [(5, 20, 5), (20, 5, 5)])
async def test_the_result_competes_with_the_requested_requeue(
    world: World, returned: float, requested: float, expected: float
) -> None:
    times: list[float] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        times.append(monotonic())
        if len(times) > 1:
            return None
        request.requeue_after(requested)
        return Again(returned)

    put(world)
    async with world.manager(Controller(ConfigMap, reconcile, name="c")):
        await world.advance(60)
    assert [times[1] - times[0]] == [pytest.approx(expected, abs=0.1)]


async def test_a_negative_delay_is_no_delay(world: World) -> None:
    async with world.manager() as manager:
        request = PeriodicRequest(api=manager.api)
        request.requeue_after(-3, "overdue")
        assert request.requeue == Again(0, "overdue")
        with pytest.raises(ValueError, match=r"Again\.after must be a number of seconds, 0 or more, not inf"):
            request.requeue_after(float("inf"))


async def test_a_failure_is_retried_with_backoff_whatever_was_requested(world: World) -> None:
    times: list[float] = []

    async def reconcile(request: Request[ConfigMap]) -> None:
        times.append(monotonic())
        if len(times) == 1:
            request.requeue_after(1)
            raise ValueError

    put(world)
    backoff = Backoff(base=20, cap=60, jitter=False)
    async with world.manager(Controller(ConfigMap, reconcile, name="c", backoff=backoff)):
        await world.advance(60)
    assert [times[1] - times[0]] == [pytest.approx(20, abs=0.1)]


async def test_a_cleanup_that_requests_a_requeue_keeps_its_finalizer_only(world: World) -> None:
    began = monotonic()

    async def reconcile(_: Request[ConfigMap]) -> None: ...

    async def wait(request: Request[ConfigMap]) -> None:
        if monotonic() - began < 10:
            request.requeue_after(10, "draining")

    async def finish(_: Request[ConfigMap]) -> None: ...

    put(world)
    controller = (
        Controller(ConfigMap, reconcile, name="c")
        .finalizes("example.com/wait", wait)
        .finalizes("example.com/finish", finish)
    )
    async with world.manager(controller):
        await world.settle()
        world.delete(ConfigMap, "a")
        await world.advance(5)
        assert world.get(ConfigMap, "a").metadata.finalizers == ["example.com/wait"]
        await world.advance(10)
    assert world.find(ConfigMap, "a") is None


async def test_periodic_and_keyed_controllers_take_requested_requeues(world: World) -> None:
    periodic_times: list[float] = []
    keyed_times: list[float] = []

    async def reconcile_periodically(request: PeriodicRequest) -> None:
        periodic_times.append(monotonic())
        if len(periodic_times) == 1:
            request.requeue_after(7, "sooner than the period")

    async def reconcile_key(request: KeyedRequest[ObjectKey]) -> None:
        keyed_times.append(monotonic())
        if len(keyed_times) == 1:
            request.requeue_after(3)

    put(world)
    keyed = Controller.keyed(ObjectKey, reconcile_key, name="keyed").watches(ConfigMap, to=lambda obj, _: obj.key)
    async with world.manager(Controller.every(100, reconcile_periodically, name="periodic"), keyed):
        await world.advance(50)
    assert [periodic_times[1] - periodic_times[0]] == [pytest.approx(7, abs=0.1)]
    assert [keyed_times[1] - keyed_times[0]] == [pytest.approx(3, abs=0.1)]
