"""Handlers: which keys an event wakes, with which priority and for which stated reason."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from kaito.runtime.cache import Cache, Cached, View
from kaito.runtime.cache.entry import make_entry
from kaito.runtime.cache.event import Change, Event, EventType, generic_key
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import Handler, enqueue_owner, enqueue_self, label_key, mapped
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Pod, StatefulSet
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.predicate import Predicate, changed
from kaito.runtime.source import Channel, ChannelSource, KindSource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import ScriptedTransport, World
from kaito.runtime.workqueue import Cause

pytestmark = pytest.mark.virtual_time


class Queue:
    """Remembers what is added."""

    def __init__(self) -> None:
        self.added: list[tuple[str, int, str]] = []

    def add(self, key: ObjectKey, *, priority: int = 0, after: float = 0.0, cause: Cause | None = None) -> None:
        assert after == 0
        self.added.append((str(key), priority, str(cause)))

    def keys(self) -> list[str]:
        added, self.added = self.added, []
        return [key for key, _, _ in added]


def owner(kind: str, name: str, *, api: str = "apps/v1", controller: bool | None = True) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": controller}


def event(
    verb: EventType, *owners: dict[str, Any], old: Sequence[dict[str, Any]] | None = None, initial: bool = False
) -> Event[Pod]:
    def entry(references: Sequence[dict[str, Any]], version: int) -> Any:
        metadata = {"name": "pod", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}
        labels = {"app": references[0]["name"] if references else "none", "app-namespace": "elsewhere"}
        text = {"metadata": metadata | {"ownerReferences": list(references), "labels": labels}}
        return make_entry(json.dumps(text).encode(), {})

    before = entry(old, 1) if old is not None else None
    after = entry(owners, 2) if verb is not EventType.DELETE else None
    return Event(Change(verb, ObjectKey("ns", "pod"), before, after, 0.0, initial=initial), Pod)


@pytest.fixture
def view() -> View:
    return View(Cache(ScriptedTransport(), [Cached(Pod)]))


async def keys(handler: Handler[Any], happened: Event[Any], view: View) -> list[str]:
    queue = Queue()
    result = handler(happened, queue, view)
    if result is not None:
        await result
    return queue.keys()


async def test_the_object_itself(view: View) -> None:
    queue = Queue()
    enqueue_self(event(EventType.CREATE), queue, view)
    enqueue_self(event(EventType.CREATE, initial=True), queue, view)
    enqueue_self(generic_key(Pod, ObjectKey("ns", "other")), queue, view)
    assert queue.added == [
        ("ns/pod", 0, "create Pod ns/pod"),
        ("ns/pod", -100, "create Pod ns/pod (initial list)"),
        ("ns/other", 0, "generic Pod ns/other"),
    ]


async def test_the_owner_that_controls_by_group_and_kind_of_any_version(view: View) -> None:
    handler = enqueue_owner(Deployment)
    assert await keys(handler, event(EventType.CREATE, owner("Deployment", "web")), view) == ["ns/web"]
    assert await keys(handler, event(EventType.CREATE, owner("Deployment", "web", api="apps/v1beta2")), view) == [
        "ns/web"
    ]
    assert await keys(handler, event(EventType.CREATE, owner("Deployment", "web", api="other/v1")), view) == []
    assert await keys(handler, event(EventType.CREATE, owner("StatefulSet", "web")), view) == []
    assert await keys(handler, event(EventType.CREATE, owner("Deployment", "web", controller=None)), view) == []


async def test_every_owner_is_queued_on_request(view: View) -> None:
    happened = event(EventType.CREATE, owner("Deployment", "a", controller=None), owner("Deployment", "b"))
    assert await keys(enqueue_owner(Deployment, every_owner=True), happened, view) == ["ns/a", "ns/b"]


async def test_owners_of_the_old_and_the_new_state_each_once(view: View) -> None:
    a, b = owner("Deployment", "a"), owner("Deployment", "b")
    handler = enqueue_owner(Deployment)
    assert await keys(handler, event(EventType.UPDATE, a, old=[b]), view) == ["ns/b", "ns/a"]
    assert await keys(handler, event(EventType.UPDATE, a, old=[a]), view) == ["ns/a"]
    assert await keys(handler, event(EventType.DELETE, old=[a]), view) == ["ns/a"]


async def test_a_cluster_scoped_owner_has_no_namespace(view: View) -> None:
    happened = event(EventType.CREATE, owner("Namespace", "home", api="v1"))
    assert await keys(enqueue_owner(Namespace), happened, view) == ["home"]


async def test_mappers_of_every_shape(view: View) -> None:
    happened = event(EventType.CREATE, owner("Deployment", "web"))

    async def slowly(pod: Pod, _: View) -> list[ObjectKey]:
        return [ObjectKey(pod.namespace, pod.labels["app"])]

    assert await keys(mapped(lambda pod, _: ObjectKey("x", pod.name)), happened, view) == ["x/pod"]
    assert await keys(mapped(lambda _pod, _view: None), happened, view) == []
    assert await keys(mapped(lambda _, __: (ObjectKey("x", name) for name in "aab")), happened, view) == ["x/a", "x/b"]
    assert await keys(mapped(slowly), happened, view) == ["ns/web"]


async def test_a_mapper_is_called_for_both_states_and_each_key_is_queued_once(view: View) -> None:
    mapper: Handler[Pod] = mapped(lambda pod, _: [ObjectKey("ns", pod.labels["app"]), ObjectKey("ns", "always")])
    moved = event(EventType.UPDATE, owner("Deployment", "new"), old=[owner("Deployment", "old")])
    assert await keys(mapper, moved, view) == ["ns/old", "ns/always", "ns/new"]


async def test_a_mapper_that_fails_queues_nothing(view: View) -> None:
    def fails_on_the_new_state(pod: Pod, _: View) -> ObjectKey:
        if pod.metadata.resource_version == "2":
            raise RuntimeError("not today")
        return pod.key

    queue = Queue()
    handler = mapped(fails_on_the_new_state)
    result = handler(event(EventType.UPDATE, old=[]), queue, view)
    assert result is not None
    with pytest.raises(RuntimeError, match="not today"):
        await result
    assert queue.added == []


async def test_the_error_of_a_mapper_that_returns_no_keys_contains_its_name(view: View) -> None:
    def names(_pod: Pod, _view: View) -> Any:
        return ["web"]

    result = mapped(names)(event(EventType.CREATE), Queue(), view)
    assert result is not None
    with pytest.raises(TypeError, match=r"names\) returned 'web': return ObjectKeys"):
        await result


async def test_keys_from_labels(view: View) -> None:
    happened = event(EventType.CREATE, owner("Deployment", "web"))
    assert await keys(mapped(label_key("app", "app-namespace")), happened, view) == ["elsewhere/web"]
    assert await keys(mapped(label_key("app")), happened, view) == ["ns/web"]
    assert await keys(mapped(label_key("absent", "app-namespace")), happened, view) == []
    assert await keys(mapped(label_key("app", "absent")), happened, view) == []
    with pytest.raises(ConfigurationError, match="label with the name"):
        label_key("")


async def test_a_kind_source_delivers_events_through_predicate_and_handler(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="old"), data={"a": "1"}))
    cache = Cache(world.transport(), clock=LoopClock())
    queue = Queue()
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        source = KindSource(ConfigMap, enqueue_self, when=changed("data"))
        started = source.start(cache, queue, scope)
        assert not started.synced
        assert "ConfigMap: no answer yet" in started.sync_error
        await started.wait_synced()
        assert started.sync_error == ""
        assert ("default/old", -100, "create ConfigMap default/old (initial list)") in queue.added
        queue.keys()
        world.patch(ConfigMap, "old", {"metadata": {"labels": {"x": "y"}}})
        world.patch(ConfigMap, "old", {"data": {"a": "2"}})
        world.put(ConfigMap(metadata=ObjectMeta(name="new")))
        await world.advance(1)
        assert started.idle
        assert [(key, priority) for key, priority, _ in queue.added] == [("default/old", 0), ("default/new", 0)]
        started.stop()
        started.stop()
        assert not cache.declares(ConfigMap)


@pytest.mark.parametrize(
    ("cached", "when", "named"),
    [
        (Cached(Pod, only="metadata"), changed("labels", "status.phase"), "status.phase"),
        (Cached(Pod, only="metadata"), changed("labels") & ~changed("spec"), "spec"),
        (Cached(Pod, drop=["metadata.annotations"]), changed("annotations") | changed("spec"), "metadata.annotations"),
        (Cached(Pod, drop=["status"]), changed("status.phase"), "status.phase"),
    ],
)
async def test_a_predicate_on_fields_that_are_not_cached_is_rejected(
    cached: Cached, when: Predicate, named: str
) -> None:
    cache = Cache(ScriptedTransport(), [cached])
    async with TaskScope("test") as scope:
        with pytest.raises(ConfigurationError, match=f"compares {named}, which Cached"):
            KindSource(Pod, enqueue_self, when=when).start(cache, Queue(), scope)
        KindSource(Pod, enqueue_self, when=changed("labels")).start(cache, Queue(), scope)


@pytest.mark.conformance(27)
async def test_a_mapper_that_raises_loses_no_key(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="one")))
    cache = Cache(world.transport(), [Cached(ConfigMap), Cached(StatefulSet)], clock=LoopClock())
    queue = Queue()
    tries = 0

    async def looks_up(found: ConfigMap, view: View) -> list[ObjectKey]:
        nonlocal tries
        if found.name != "one":
            return []
        tries += 1
        if tries < 3:
            raise RuntimeError("the other system is away")
        assert view.list(StatefulSet) == []
        return [ObjectKey("ns", "woken")]

    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        started = KindSource(ConfigMap, mapped(looks_up)).start(cache, queue, scope)
        await started.wait_synced()
        assert queue.added == []
        await world.advance(10)
        assert queue.keys() == ["ns/woken"]


async def test_a_channel_sends_to_every_receiver_waits_when_full_and_retries_failures() -> None:
    channel: Channel[ConfigMap] = Channel(ConfigMap, buffer=1)
    cache = Cache(ScriptedTransport())
    first, second = Queue(), Queue()
    failures = 2

    def sometimes(happened: Event[Any], queue: Any, view: View) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("not today")
        enqueue_self(happened, queue, view)

    async with TaskScope("test") as scope:
        healthy = ChannelSource(channel).start(cache, first, scope)
        moody = ChannelSource(channel, sometimes).start(cache, second, scope)
        await healthy.wait_synced()
        started = monotonic()
        await channel.send(ObjectKey("ns", "a"))
        await channel.send(ConfigMap(metadata=ObjectMeta(name="b", namespace="ns")))
        await channel.send(ObjectKey("ns", "c"))
        assert monotonic() - started == pytest.approx(3), "the buffer of one was full until the retries were over"
        await asyncio.sleep(1)
        assert first.added[0] == ("ns/a", 0, "generic ConfigMap ns/a")
        assert first.keys() == second.keys() == ["ns/a", "ns/b", "ns/c"]
        assert healthy.idle
        moody.stop()
        await channel.send(ObjectKey("ns", "d"))
        await asyncio.sleep(1)
        assert (first.keys(), second.keys()) == (["ns/d"], [])
