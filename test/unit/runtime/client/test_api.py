"""The API of reconcilers: reads that never miss an own write, and that reject undeclared kinds."""

from collections.abc import AsyncIterator

import pytest

from kaito.runtime.cache import Cached, Index, View
from kaito.runtime.client import Api, Consistency, MergePatch
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError, Conflict, NotFound, NotLeader, UndeclaredKind
from kaito.runtime.kinds import ConfigMap, Namespace, Pod, Secret, Service
from kaito.runtime.manager import Manager
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.runtime.testing import EventList, World

by_app = Index(ConfigMap, lambda obj: [obj.data["app"]] if "app" in obj.data else [], name="by-app")


@pytest.fixture
async def manager(world: World) -> AsyncIterator[Manager]:
    cached = [Cached(ConfigMap, indexes=[by_app]), Cached(Namespace), Cached(Secret, labels="seen=yes")]
    async with world.manager(cache=cached, live=[Service]) as manager:
        world.clear_requests()
        yield manager


@pytest.fixture
async def api(manager: Manager) -> Api:
    return manager.api


def config(name: str, namespace: str = "default", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


@pytest.mark.conformance(29)
async def test_a_read_of_an_undeclared_kind_is_an_error_with_its_name(api: Api) -> None:
    with pytest.raises(UndeclaredKind, match="Pod is read from the cache but not declared"):
        await api.get(Pod, "a", "default")
    with pytest.raises(UndeclaredKind):
        await api.list(Pod)
    with pytest.raises(UndeclaredKind):
        await api.find(Pod, "a", "default", consistency="live")


async def test_declared_kinds_are_read_without_a_request(api: Api, world: World) -> None:
    world.put(config("a", k="v"))
    await world.settle()
    assert (await api.get(ConfigMap, "a", "default")).data == {"k": "v"}
    assert [obj.name for obj in await api.list(ConfigMap, namespace="default")] == ["a"]
    assert world.count("get") + world.count("list") == 0


async def test_live_kinds_are_read_from_the_server_each_time(api: Api, world: World) -> None:
    assert await api.find(Service, "a", "default") is None
    assert world.count("get", Service) == 1


async def test_not_found_contains_kind_and_name(api: Api) -> None:
    with pytest.raises(NotFound, match='get ConfigMap default/none: configmaps "none" not found') as caught:
        await api.get(ConfigMap, "none", "default")
    assert caught.value.details["name"] == "none"


@pytest.mark.conformance(31)
async def test_changing_what_was_read_changes_no_later_read(api: Api, world: World) -> None:
    world.put(config("a", k="v"))
    await world.settle()
    (await api.get(ConfigMap, "a", "default")).data["k"] = "changed"
    assert (await api.get(ConfigMap, "a", "default")).data == {"k": "v"}


async def test_what_is_created_for_an_owner_belongs_to_it(api: Api, world: World) -> None:
    owner = world.put(config("owner"))
    made = await api.create(ConfigMap(metadata=ObjectMeta(name="child")), owner=owner)
    assert made.namespace == owner.namespace
    (reference,) = made.metadata.owner_references
    assert (reference.uid, reference.controller) == (owner.uid, True)


@pytest.mark.conformance(32)
async def test_an_own_create_is_in_the_next_list_although_the_cache_lags(api: Api, world: World) -> None:
    world.lag(ConfigMap, 0.5)
    started = monotonic()
    await api.create(config("a"))
    assert await api.list(ConfigMap, namespace="default", consistency="cached") == []
    assert [obj.name for obj in await api.list(ConfigMap, namespace="default")] == ["a"]
    assert monotonic() - started == pytest.approx(0.5, abs=0.01)
    assert world.count("list") == 0


async def test_an_own_change_is_in_the_next_get(api: Api, world: World) -> None:
    made = await api.create(config("a", k="1"))
    world.lag(ConfigMap, 0.5)
    await api.update(made.evolve(data={"k": "2"}))
    assert (await api.get(ConfigMap, "a", "default")).data == {"k": "2"}
    assert world.count("get") == 0


@pytest.mark.conformance(33)
async def test_an_own_delete_is_not_found_next(api: Api, world: World) -> None:
    made = await api.create(config("a"))
    await world.settle()
    world.lag(ConfigMap, 0.5)
    assert await api.delete(made) is True
    assert await api.find(ConfigMap, "a", "default") is None
    assert world.count("get") == 0


@pytest.mark.conformance(33)
async def test_after_an_own_delete_a_recreated_object_is_read(api: Api, world: World) -> None:
    made = await api.create(config("a", k="ours"))
    await world.settle()
    world.lag(ConfigMap, 0.5)
    await api.delete(made)
    theirs = world.put(config("a", k="theirs"))
    await world.advance(1)
    assert (await api.get(ConfigMap, "a", "default")).uid == theirs.uid


async def test_removing_the_last_finalizer_is_a_delete(api: Api, world: World) -> None:
    made = await api.create(config("a").with_metadata(finalizers=["example.com/x"]))
    await api.delete(made)
    deleting = await api.get(ConfigMap, "a", "default")
    assert deleting.deleting
    world.lag(ConfigMap, 0.5)
    await api.update(deleting.with_metadata(finalizers=[]))
    assert await api.find(ConfigMap, "a", "default") is None


@pytest.mark.conformance(34)
async def test_a_written_object_outside_the_selector_is_read_live_after_a_while(api: Api, world: World) -> None:
    started = monotonic()
    await api.create(Secret(metadata=ObjectMeta(name="hidden", namespace="default")))
    assert (await api.get(Secret, "hidden", "default")).name == "hidden"
    assert monotonic() - started == pytest.approx(2.0, abs=0.1)
    assert world.count("get", Secret) == 1


async def test_a_live_read_skips_the_cache(api: Api, world: World) -> None:
    world.lag(ConfigMap, 100)
    world.put(config("a"))
    assert await api.find(ConfigMap, "a", "default") is None
    assert (await api.get(ConfigMap, "a", "default", consistency="live")).name == "a"
    assert [obj.name for obj in await api.list(ConfigMap, namespace="default", consistency="live")] == ["a"]


@pytest.mark.parametrize("consistency", ["own-writes", "live"])
async def test_lists_are_filtered_and_ordered_alike_from_cache_and_server(
    api: Api, world: World, consistency: Consistency
) -> None:
    owner = world.put(config("owner"))
    for name, namespace, app in (("c", "default", "x"), ("b", "default", "y"), ("a", "kube-system", "x")):
        child = config(name, namespace, app=app).with_metadata(labels={"app": app})
        if name == "c":
            child = child.with_metadata(owner_references=[owner.owner_reference()])
        world.put(child)
    await world.settle()
    by_label = await api.list(ConfigMap, labels={"app": "x"}, consistency=consistency)
    assert [str(obj.key) for obj in by_label] == ["default/c", "kube-system/a"]
    selector = LabelSelector(match_labels={"app": "y"})
    assert [obj.name for obj in await api.list(ConfigMap, labels=selector, consistency=consistency)] == ["b"]
    assert [obj.name for obj in await api.list(ConfigMap, labels="app notin (x),app", consistency=consistency)] == ["b"]
    assert [obj.name for obj in await api.list(ConfigMap, owned_by=owner, consistency=consistency)] == ["c"]
    indexed = await api.list(ConfigMap, index=by_app("x"), namespace="default", consistency=consistency)
    assert [obj.name for obj in indexed] == ["c"]


async def test_cluster_scoped_reads_ignore_a_namespace(api: Api, world: World) -> None:
    world.put(Namespace(metadata=ObjectMeta(name="team")))
    await world.settle()
    assert (await api.get(Namespace, "team", "whatever")).name == "team"
    assert "team" in [obj.name for obj in await api.list(Namespace, namespace="whatever")]


async def test_the_fence_stops_writes_and_lets_reads_through(api: Api, manager: Manager, world: World) -> None:
    def lost() -> None:
        message = "lease lost"
        raise NotLeader(message)

    fenced = Api(api.client, manager.cache, fence=lost)
    made = await api.create(config("a"))
    assert (await fenced.get(ConfigMap, "a", "default")).uid == made.uid
    for write in (fenced.create(config("b")), fenced.delete(made), fenced.ensure(config("c")), fenced.update(made)):
        with pytest.raises(NotLeader):
            await write
    assert {obj.name for obj in world.list(ConfigMap, namespace="default")} == {"a"}


async def test_conflicts_of_an_update_are_the_callers(api: Api, world: World) -> None:
    made = await api.create(config("a", k="1"))
    world.put(config("a", k="2"))
    with pytest.raises(Conflict):
        await api.update(made)


async def test_events_go_to_the_sink(api: Api, manager: Manager) -> None:
    sink = EventList()
    recording = Api(api.client, manager.cache, events=sink)
    recording.event(config("a"), "Warning", "Broken", "it broke")
    api.event(config("a"), "Normal", "Fine", "never blocks")
    assert [(event.type, event.reason, event.note, event.action) for event in sink.events] == [
        ("Warning", "Broken", "it broke", "Reconcile")
    ]


async def test_what_was_cached_as_metadata_only_is_patched_and_deleted_but_never_sent_as_the_whole(
    world: World,
) -> None:
    world.put(config("a", app="x"))
    async with world.manager(cache=[Cached(ConfigMap, only="metadata")]) as manager:
        api = manager.api
        found = await api.get(ConfigMap, "a", "default")
        for partial in (found, found.with_metadata(labels={"b": "c"}), found.evolve(data={"app": "y"})):
            for send in (api.create, api.update, api.update_status, api.apply, api.ensure):
                with pytest.raises(ConfigurationError, match="only the metadata of ConfigMap default/a is cached"):
                    await send(partial)
        assert world.get(ConfigMap, "a").data == {"app": "x"}
        relabeled = await api.patch(found, MergePatch.between(found, found.with_metadata(labels={"b": "c"}), lock=True))
        assert (relabeled.data, relabeled.labels) == ({"app": "x"}, {"b": "c"})
        assert await api.delete(await api.get(ConfigMap, "a", "default"))


async def test_an_invalid_selector_is_rejected(api: Api, manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match="labels='a b': 'a b' is not a label requirement"):
        await api.list(ConfigMap, labels="a b")
    with pytest.raises(ConfigurationError, match="is not a label requirement"):
        View(manager.cache).list(ConfigMap, labels="a b")
    assert View(manager.cache).list(ConfigMap, labels="app in (x)") == []


async def test_a_list_contains_its_version(api: Api, world: World) -> None:
    first = (await api.list(ConfigMap, namespace="default")).resource_version
    made = world.put(config("a"))
    await world.settle()
    listed = await api.list(ConfigMap, namespace="default")
    assert int(first) < int(listed.resource_version) == int(made.metadata.resource_version)
    live = await api.list(ConfigMap, consistency="live")
    assert int(live.resource_version) >= int(listed.resource_version)
    assert (await api.list(Service)).resource_version
