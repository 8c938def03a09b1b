"""What triggers a run, and the barrier before the first one."""

import asyncio

import pytest

from kaito.runtime.cache import View
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller, label_key
from kaito.runtime.errors import CacheNotSynced, NotFound
from kaito.runtime.handler import Enqueue, cause_of
from kaito.runtime.kinds import ConfigMap, Pod, Secret
from kaito.runtime.meta import ObjectKey, ObjectMeta, OwnerReference
from kaito.runtime.predicate import changed, labeled
from kaito.runtime.reconcile import Again, PeriodicRequest, Reconciler, Request
from kaito.runtime.source import Channel, Event, EventType, FunctionSource
from kaito.runtime.testing import World, pod
from kaito.runtime.workqueue import Cause


def config(name: str, **labels: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, labels=labels))


class Runs:
    def __init__(self) -> None:
        self.keys: list[str] = []
        self.causes: list[list[str]] = []
        self.times: list[float] = []

    async def __call__(self, request: Request[ConfigMap]) -> Again | None:
        self.keys.append(request.key.name)
        self.causes.append([str(cause) for cause in request.causes])
        self.times.append(monotonic())
        return None


@pytest.mark.conformance(37)
async def test_workers_start_only_after_every_handler_has_processed_its_initial_list(world: World) -> None:
    runs, handled = Runs(), list[float]()

    async def slow(secret: Secret, _: View) -> ObjectKey:
        await asyncio.sleep(7)
        handled.append(monotonic())
        return ObjectKey("default", secret.name)

    for name in ("a", "b", "c"):
        world.put(config(name))
        world.put(Secret(metadata=ObjectMeta(name=name)))
    async with world.manager(Controller(ConfigMap, runs).watches(Secret, to=slow)):
        await world.settle()
    assert handled == [7, 14, 21]
    assert sorted(runs.keys) == ["a", "b", "c"]
    assert min(runs.times) >= 21


@pytest.mark.conformance(43)
async def test_a_kind_that_may_not_be_listed_fails_the_start_with_the_servers_words(world: World) -> None:
    words = 'configmaps is forbidden: User "op" cannot list resource "configmaps"'
    world.fail_next("GET", ConfigMap, status=403, message=words, times=None)

    async def story() -> None:
        async with world.manager(Controller(ConfigMap, Runs())):
            pytest.fail("the manager must not start")

    with pytest.raises(CacheNotSynced, match='User "op" cannot list'):
        await story()
    assert monotonic() == pytest.approx(120, abs=1)


async def test_owned_objects_wake_their_owner_only(world: World) -> None:
    runs = Runs()
    owner, _ = world.put(config("owner")), world.put(config("other"))
    async with world.manager(Controller(ConfigMap, runs).owns(Pod, when=changed("status.phase"))):
        await world.settle()
        runs.keys.clear()
        world.put(pod("p", owner=owner))
        await world.settle()
        assert runs.keys == ["owner"]
        world.patch(Pod, "p", {"metadata": {"labels": {"x": "y"}}})
        await world.settle()
        assert runs.keys == ["owner"]
        world.patch(Pod, "p", {"status": {"phase": "Failed"}}, subresource="status")
        await world.settle()
        assert runs.keys == ["owner", "owner"]


async def test_every_owner_counts_when_requested(world: World) -> None:
    runs = Runs()
    owner = world.put(config("owner"))
    reference = OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=owner.uid)
    child = pod("p")
    child = child.with_metadata(owner_references=[reference])
    async with world.manager(Controller(ConfigMap, runs).owns(Pod, every_owner=True)):
        await world.settle()
        world.put(child)
        await world.settle()
    assert runs.keys == ["owner", "owner"]


async def test_a_mapped_kind_wakes_old_and_new_dependents_with_the_cause(world: World) -> None:
    runs = Runs()
    for name in ("a", "b"):
        world.put(config(name))
    world.put(pod("p", labels={"for": "a"}))
    async with world.manager(Controller(ConfigMap, runs).watches(Pod, to=label_key("for"))):
        await world.settle()
        runs.keys.clear()
        runs.causes.clear()
        world.patch(Pod, "p", {"metadata": {"labels": {"for": "b"}}})
        await world.settle()
    assert sorted(runs.keys) == ["a", "b"]
    assert runs.causes == [["update Pod default/p"]] * 2


async def test_a_mapper_that_raises_is_tried_again(world: World) -> None:
    runs, calls = Runs(), list[float]()

    def flaky(_: Secret, view: View) -> ObjectKey:
        calls.append(monotonic())
        if len(calls) < 3:
            view.get(ConfigMap, "missing", "default")
        return ObjectKey("default", "a")

    world.put(config("a"))
    async with world.manager(Controller(ConfigMap, runs).watches(Secret, to=flaky)):
        await world.settle()
        world.put(Secret(metadata=ObjectMeta(name="s")))
        await world.settle()
        assert runs.keys == ["a"]
        await world.advance(10)
    assert len(calls) == 3
    assert runs.keys == ["a", "a"]
    with pytest.raises(NotFound):
        world.get(ConfigMap, "missing")


async def test_a_channel_brings_events_from_outside(world: World) -> None:
    runs = Runs()
    channel = Channel(ConfigMap)
    world.put(config("a"))
    async with world.manager(Controller(ConfigMap, runs).receives(channel)):
        await world.settle()
        await channel.send(ObjectKey("default", "a"))
        await world.settle()
    assert runs.causes[1] == ["generic ConfigMap default/a"]


async def test_the_initial_list_comes_at_low_priority_with_its_cause(world: World) -> None:
    runs = Runs()
    world.put(config("a"))
    async with world.manager(Controller(ConfigMap, runs)):
        await world.settle()
        world.put(config("b"))
        await world.settle()
    assert runs.causes == [["create ConfigMap default/a (initial list)"], ["create ConfigMap default/b"]]


async def test_workers_run_side_by_side_but_never_for_one_object(world: World) -> None:
    active: dict[str, int] = {}
    most = 0

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        nonlocal most
        name = request.key.name
        active[name] = active.get(name, 0) + 1
        assert active[name] == 1
        most = max(most, sum(active.values()))
        await asyncio.sleep(1)
        active[name] -= 1
        return None

    for number in range(12):
        world.put(config(f"c{number}"))
    async with world.manager(Controller(ConfigMap, reconcile, workers=4)) as manager:
        await asyncio.sleep(0.5)
        assert manager.metrics.value("controller_runtime_active_workers", controller="configmap") == 4
        assert manager.metrics.value("controller_runtime_max_concurrent_reconciles", controller="configmap") == 4
        await world.settle()
    assert most == 4
    assert monotonic() == 3


async def test_a_periodic_controller_runs_on_time_and_backs_off(world: World) -> None:
    times: list[float] = []

    async def collect(tick: PeriodicRequest) -> Again | None:
        times.append(monotonic())
        if len(times) == 2:
            message = "cloud is down"
            raise OSError(message)
        return Again(5) if len(times) == 3 else None

    async with world.manager(Controller.every(120, collect, name="collector")) as manager:
        await world.advance(400)
        assert manager.metrics.value("controller_runtime_reconcile_errors_total", controller="collector") == 1
    assert times[0] == 0
    assert times[1] == 120
    assert 120 < times[2] <= 121
    assert times[3] == pytest.approx(times[2] + 5, abs=0.2)
    assert times[4] == pytest.approx(times[3] + 120, abs=0.2)


async def test_objects_being_deleted_reach_the_cleanup_only(world: World) -> None:
    runs, order = Runs(), list[str]()

    def cleanup(name: str, *, fails: int = 0) -> Reconciler[ConfigMap]:
        async def clean(request: Request[ConfigMap]) -> Again | None:
            order.append(name)
            if order.count(name) <= fails:
                message = f"{name} failed"
                raise OSError(message)
            return None

        return clean

    controller = (
        Controller(ConfigMap, runs)
        .finalizes("test.dev/first", cleanup("first", fails=1))
        .finalizes("test.dev/second", cleanup("second"))
    )
    world.put(config("a"))
    async with world.manager(controller):
        await world.settle()
        assert world.get(ConfigMap, "a").metadata.finalizers == ["test.dev/first", "test.dev/second"]
        runs_before = len(runs.keys)
        world.delete(ConfigMap, "a")
        await world.settle()
        assert order == ["first", "second", "first"]  # the second's removal is a change: the first is tried at once
        assert world.find(ConfigMap, "a") is None
        assert len(runs.keys) == runs_before


async def test_no_run_precedes_the_stored_finalizer(world: World) -> None:
    seen: list[list[str]] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        seen.append(world.get(ConfigMap, request.key.name).metadata.finalizers)
        assert request.object.metadata.finalizers == ["test.dev/f"]
        return None

    async def clean(request: Request[ConfigMap]) -> Again | None:
        return None

    world.fail_next("PATCH", ConfigMap, status=500, times=6)
    world.put(config("a"))
    async with world.manager(Controller(ConfigMap, reconcile).finalizes("test.dev/f", clean)):
        await world.advance(60)
    assert seen[0] == ["test.dev/f"]


async def test_resync_queues_everything_again_past_changed_and_not_past_selection(world: World) -> None:
    runs, plain = Runs(), Runs()
    for name, shard in (("a", "1"), ("b", "2")):
        world.put(config(name, shard=shard))
    resynced = Controller(ConfigMap, runs, name="r", resync=600, when=changed("generation") & labeled("shard=1"))
    async with world.manager(resynced, Controller(ConfigMap, plain)):
        await world.settle()
        world.clear_requests()
        await world.advance(1900)
        assert world.count("list", ConfigMap) == 0
    assert runs.keys == ["a"] * 4
    assert [round(time / 600) for time in runs.times] == [0, 1, 2, 3]
    assert plain.keys == ["a", "b"]


async def test_resync_waits_behind_what_changes(world: World) -> None:
    order: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        order.append(request.key.name)
        await asyncio.sleep(10)
        return None

    for number in range(3):
        world.put(config(f"old{number}"))
    async with world.manager(Controller(ConfigMap, reconcile, resync=1000)):
        await world.settle()
        order.clear()
        while not order:  # noqa: ASYNC110 - virtual time: the resync comes after its jitter
            await asyncio.sleep(1)
        world.put(config("new"))
        await world.settle()
    assert order[1] == "new"


async def test_a_handler_sees_the_whole_event_and_queues_as_it_likes(world: World) -> None:
    runs, types = Runs(), list[str]()

    def only_deletions(event: Event[Secret], queue: Enqueue, _: View) -> None:
        types.append(str(event.type))
        if event.type is EventType.DELETE:
            queue.add(ObjectKey("default", "a"), after=30, cause=cause_of(event))

    world.put(config("a"))
    async with world.manager(Controller(ConfigMap, runs).watches(Secret, handler=only_deletions)):
        await world.settle()
        world.put(Secret(metadata=ObjectMeta(name="s")))
        await world.settle()
        world.delete(Secret, "s")
        await world.advance(60)
    assert types == ["create", "delete"]
    assert runs.keys == ["a", "a"]
    assert runs.times == [0, 30]
    assert runs.causes[1] == ["delete Secret default/s"]


async def test_a_function_may_feed_the_queue(world: World) -> None:
    runs, ended = Runs(), list[str]()

    async def poll(queue: Enqueue, view: View) -> None:
        try:
            while True:
                await asyncio.sleep(60)
                for each in view.list(ConfigMap):
                    queue.add(each.key, cause=Cause("Cloud", each.name, "poll"))
        finally:
            ended.append("poll")

    async def once(queue: Enqueue, _: View) -> None:
        await asyncio.sleep(5)
        queue.add(ObjectKey("default", "a"))

    world.put(config("a"))
    controller = Controller(ConfigMap, runs).receives(FunctionSource(poll)).receives(FunctionSource(once))
    async with world.manager(controller):
        await world.advance(130)
    assert runs.times == [0, 5, 60, 120]
    assert runs.causes[2] == ["poll Cloud a"]
    assert ended == ["poll"]


async def test_a_function_that_fails_stops_the_manager(world: World) -> None:
    async def broken(_: Enqueue, __: View) -> None:
        await asyncio.sleep(3)
        message = "the cloud has no such account"
        raise OSError(message)

    async def story() -> None:
        async with world.manager(Controller(ConfigMap, Runs()).receives(FunctionSource(broken))):
            await asyncio.sleep(60)

    with pytest.raises(OSError, match="no such account"):
        await story()
    assert monotonic() == 3
