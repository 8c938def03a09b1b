"""After a write whose outcome is unknown no read shows less than that write.

Cached reads were older than a write without an answer, and a generated name was created twice.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.cache.uncertain_writes import MAX_KEYS, SETTLE_SECONDS, UncertainWrites, all_of
from kaito.runtime.client import Api, ApiRequest, JsonPatch, MergePatch, Reply
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ApiError, Conflict, KaitoRuntimeError, TransportError
from kaito.runtime.kinds import ConfigMap, Deployment, DeploymentSpec, Pod
from kaito.runtime.manager import Manager
from kaito.runtime.meta import Model, ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World, pod

LAG_SECONDS = 30.0
"""How late the watch is."""


class Status(Model):
    n: int = 0


class App(Resource, api="example.com/v1", kind="App"):
    status: Status = Status()


def config(name: str = "c", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


async def created(api: Api, obj: ConfigMap) -> ConfigMap:
    made = await api.create(obj)
    await asyncio.sleep(5)
    return made


async def reconcile(request: Request[App]) -> None:
    if await request.api.list(ConfigMap, namespace=request.key.namespace, owned_by=request.object):
        return
    child = ConfigMap(metadata=ObjectMeta(generate_name="child-"))
    await request.api.create(child, owner=request.object)
    await asyncio.sleep(0)


async def test_a_generated_name_whose_answer_is_lost_is_created_once(world: World) -> None:
    world.lag(ConfigMap, LAG_SECONDS)
    world.fail_next("create", ConfigMap, drop_connection=True)
    async with world.manager(Controller(App, reconcile).owns(ConfigMap)):
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.advance(300)
        assert len(world.list(ConfigMap, "default")) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_after_the_write_leaves_its_outcome_open(status: int, world: World) -> None:
    async def fail_after(request: ApiRequest, send: Callable[[ApiRequest], Awaitable[Reply]]) -> Reply:
        reply = await send(request)
        if request.method == "POST" and not failed:
            failed.append(True)
            message = "the server failed after the write"
            raise ApiError(message, code=status)
        return reply

    failed: list[bool] = []
    world.lag(ConfigMap, LAG_SECONDS)
    manager = Manager(
        world.manager().settings,
        controllers=[Controller(App, reconcile).owns(ConfigMap)],
        transport=world.transport(),
        name="op",
        clock=world.clock,
        interceptors=[fail_after],
    )
    world.install(App)
    async with manager:
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.advance(300)
        assert len(world.list(ConfigMap, "default")) == 1


async def test_a_write_of_a_run_that_its_deadline_cancels_is_found_by_the_next_run(world: World) -> None:
    async def slow(request: ApiRequest, send: Callable[[ApiRequest], Awaitable[Reply]]) -> Reply:
        reply = await send(request)
        if request.method == "POST":
            await asyncio.sleep(60)  # the answer is on its way for longer than the run may last
        return reply

    async def patient(request: Request[App]) -> None:
        await reconcile(Request(key=request.key, object=request.object, api=request.api.intercepted(slow)))

    world.lag(ConfigMap, LAG_SECONDS)
    async with world.manager(Controller(App, patient, deadline=5).owns(ConfigMap)):
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.advance(300)
        assert len(world.list(ConfigMap, "default")) == 1


Write = Callable[[Api, ConfigMap], Awaitable[object]]
WRITES: dict[str, tuple[str, Write]] = {
    "merge-patch": ("patch", lambda api, obj: api.patch(obj, MergePatch({"data": {"v": "2"}}))),
    "json-patch": (
        "patch",
        lambda api, obj: api.patch(obj, JsonPatch([{"op": "replace", "path": "/data/v", "value": "2"}])),
    ),
    "update": ("update", lambda api, obj: api.update(obj.evolve(data={"v": "2"}))),
    "apply": ("patch", lambda api, obj: api.apply(config(v="2"))),
    "ensure": ("patch", lambda api, obj: api.ensure(config(v="2"))),
}


@pytest.mark.parametrize("name", WRITES)
async def test_reads_after_a_change_without_an_answer_show_it(name: str, world: World) -> None:
    verb, write = WRITES[name]
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        made = await created(api, config(v="1"))
        world.lag(ConfigMap, LAG_SECONDS)
        world.fail_next(verb, ConfigMap, drop_connection=True, times=None)
        with pytest.raises(KaitoRuntimeError):
            await write(api, made)
        assert world.get(ConfigMap, "c").data == {"v": "2"}
        for _ in range(8):
            assert (await api.get(ConfigMap, "c", "default")).data == {"v": "2"}
            assert [each.data for each in await api.list(ConfigMap, namespace="default")] == [{"v": "2"}]
            assert {"v": "2"} in [each.data for each in await api.list(ConfigMap)]
            await asyncio.sleep(10)


async def test_a_conflict_with_ones_own_write_without_an_answer_is_an_open_outcome_too(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        made = await created(manager.api, config(v="1"))
        world.lag(ConfigMap, LAG_SECONDS)
        world.fail_next("update", ConfigMap, drop_connection=True)  # the repetition finds its own predecessor
        with pytest.raises(Conflict) as conflict:
            await manager.api.update(made.evolve(data={"v": "2"}))
        assert conflict.value.after_lost_response
        assert (await manager.api.get(ConfigMap, "c", "default")).data == {"v": "2"}


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_deletion_without_an_answer_is_not_shown_as_there(by_name: bool, world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        made = await created(manager.api, config())
        world.lag(ConfigMap, LAG_SECONDS)
        world.fail_next("delete", ConfigMap, drop_connection=True)
        assert not await manager.api.delete(config() if by_name else made)  # the repetition finds nothing
        assert await manager.api.find(ConfigMap, "c", "default") is None
        assert await manager.api.list(ConfigMap, namespace="default") == []


async def test_a_deletion_that_is_never_answered(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        made = await created(manager.api, config())
        world.lag(ConfigMap, LAG_SECONDS)
        world.fail_next("delete", ConfigMap, drop_connection=True, times=None)
        with pytest.raises(TransportError):
            await manager.api.delete(made)
        for _ in range(5):
            assert await manager.api.find(ConfigMap, "c", "default") is None
            assert await manager.api.list(ConfigMap, namespace="default") == []
            await asyncio.sleep(10)


async def test_a_status_without_an_answer(world: World) -> None:
    async with world.manager(cache=[Cached(App)]) as manager:
        made = await manager.api.create(App(metadata=ObjectMeta(name="a", namespace="default")))
        await asyncio.sleep(5)
        world.lag(App, LAG_SECONDS)
        world.fail_next("patch", App, subresource="status", drop_connection=True)
        with pytest.raises(TransportError):
            async with manager.api.status(made) as status:
                status.set(n=1)
        assert (await manager.api.get(App, "a", "default")).status.n == 1
        assert [each.status.n for each in await manager.api.list(App)] == [1]


async def test_a_scale_without_an_answer(world: World) -> None:
    spec = DeploymentSpec.model_validate(
        {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        }
    )
    async with world.manager(cache=[Cached(Deployment)]) as manager:
        metadata = ObjectMeta(name="d", namespace="default")
        made = await manager.api.create(Deployment(metadata=metadata, spec=spec))
        await asyncio.sleep(5)
        world.lag(Deployment, LAG_SECONDS)
        world.fail_next("patch", Deployment, subresource="scale", drop_connection=True)
        with pytest.raises(TransportError):
            await manager.api.scale(made, 3)
        assert (await manager.api.get(Deployment, "d", "default")).spec.replicas == 3


async def test_an_eviction_and_a_deletion_by_selector_are_seen(world: World) -> None:
    async with world.manager(cache=[Cached(Pod), Cached(ConfigMap)]) as manager:
        victim = world.put(pod("a"))
        for name in ("a", "b"):
            world.put(config(name).with_metadata(labels={"app": "x"}))
        world.put(config("other"))
        await world.settle()
        world.lag(None, LAG_SECONDS)
        assert await manager.api.evict(victim)
        assert await manager.api.find(Pod, "a", "default") is None
        await manager.api.delete_all(ConfigMap, namespace="default", labels={"app": "x"})
        assert [each.name for each in await manager.api.list(ConfigMap, namespace="default")] == ["other"]
        assert await manager.api.find(ConfigMap, "a", "default") is None


async def test_the_cache_is_used_again_when_it_has_caught_up(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        made = await created(api, config(v="1"))
        world.fail_next("patch", ConfigMap, drop_connection=True)
        with pytest.raises(TransportError):
            await api.patch(made, MergePatch({"data": {"v": "2"}}))
        await asyncio.sleep(SETTLE_SECONDS)
        assert (await api.get(ConfigMap, "c", "default")).data == {"v": "2"}  # live, and settles it
        world.clear_requests()
        assert (await api.get(ConfigMap, "c", "default")).data == {"v": "2"}
        assert len(await api.list(ConfigMap, namespace="default")) == 1
        assert world.count("get", ConfigMap) == 0
        assert world.count("list", ConfigMap) == 0


async def test_a_creation_that_did_not_happen_costs_no_more_than_the_doubt(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        world.fail_next("create", ConfigMap, status=503)
        with pytest.raises(ApiError):
            await api.create(ConfigMap(metadata=ObjectMeta(generate_name="x-", namespace="default")))
        await asyncio.sleep(SETTLE_SECONDS)
        assert await api.list(ConfigMap, namespace="default") == []
        world.put(config("later"))
        await asyncio.sleep(1)
        world.clear_requests()
        assert [each.name for each in await api.list(ConfigMap, namespace="default")] == ["later"]
        assert (await api.get(ConfigMap, "later", "default")).name == "later"
        assert world.count("list", ConfigMap) == 0
        assert world.count("get", ConfigMap) == 0


async def test_other_namespaces_and_refused_writes_are_read_from_the_cache(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        await created(api, config(v="1"))
        world.put(ConfigMap(metadata=ObjectMeta(name="o", namespace="kube-public")))
        await world.settle()
        world.clear_requests()
        with pytest.raises(ApiError):
            await api.create(config())  # refused: it exists
        assert (await api.get(ConfigMap, "c", "default")).name == "c"
        world.fail_next("create", ConfigMap, drop_connection=True)
        with pytest.raises(TransportError):
            await api.create(ConfigMap(metadata=ObjectMeta(generate_name="x-", namespace="default")))
        assert (await api.get(ConfigMap, "o", "kube-public")).name == "o"
        assert await api.list(ConfigMap, namespace="kube-public")
        assert world.count("list", ConfigMap) == 0
        assert len(await api.list(ConfigMap, namespace="default")) == 2
        assert world.count("list", ConfigMap) == 1


async def test_a_field_of_an_ensure_without_an_answer_does_not_stay_behind(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        await api.ensure(config(a="1"))
        world.fail_next("patch", ConfigMap, drop_connection=True, times=None)
        with pytest.raises(TransportError):
            await api.ensure(config(a="1", b="2"))
        assert world.get(ConfigMap, "c").data == {"a": "1", "b": "2"}
        world.server.faults.clear()
        await asyncio.sleep(60)
        await api.ensure(config(a="1"))
        assert world.get(ConfigMap, "c").data == {"a": "1"}


def test_many_doubts_become_one_of_their_namespace() -> None:
    async def main() -> None:
        doubts = UncertainWrites()
        for number in range(MAX_KEYS + 1):
            doubts.add(ObjectKey("ns", str(number)))
        assert doubts.concern(ObjectKey("ns", "another"), "")
        assert not doubts.concern(ObjectKey("other", "another"), "")
        later = asyncio.get_running_loop().time() + 2 * SETTLE_SECONDS
        assert list(doubts.settled(None, "ns", later)) == [all_of("ns")]
        assert not doubts

    asyncio.run(main())
