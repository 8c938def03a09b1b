"""A client or an `Api` bound to a namespace, a dry run or an interceptor: every verb keeps to it, the cache too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

import pytest

from kaito.runtime.cache import Cached, Index
from kaito.runtime.client import ApiRequest, Client, Interceptor, JsonPatch, MergePatch, Reply
from kaito.runtime.controller import Controller
from kaito.runtime.errors import (
    AlreadyExists,
    ApiError,
    ConfigurationError,
    NotLeader,
    Terminal,
    UndeclaredNamespace,
)
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Pod, Service
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World, pod

Send: TypeAlias = Callable[[ApiRequest], Awaitable[Reply]]
by_text = Index(ConfigMap, lambda found: [found.data.get("text", "")], name="by-text")


@pytest.fixture
async def manager(world: World) -> AsyncIterator[Manager]:
    world.put(Namespace(metadata=ObjectMeta(name="web")))
    cached = [Cached(ConfigMap, indexes=[by_text]), Cached(Namespace), Cached(Pod), Cached(Deployment)]
    async with world.manager(cache=cached, live=[Service]) as manager:
        world.clear_requests()
        yield manager


def config(name: str, namespace: str = "", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


def deployment(name: str) -> Deployment:
    template = {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": name}}, "template": template}
    return Deployment.model_validate({"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def client_of(world: World) -> Client:
    return Client(world.transport(), field_manager="test")


async def test_a_bound_client_needs_no_namespace(world: World, manager: Manager) -> None:
    client = client_of(world).namespaced("web")
    world.put(config("elsewhere", "default"))
    made = await client.create(config("a", text="1"))
    assert made.namespace == "web"
    await client.patch(config("a"), MergePatch({"data": {"more": "2"}}))
    await client.apply(config("b", text="1"))
    await client.update((await client.get(ConfigMap, "a")).evolve(data={"text": "3"}))
    assert {obj.name: obj.data for obj in await client.list(ConfigMap)} == {"a": {"text": "3"}, "b": {"text": "1"}}
    assert await client.find(ConfigMap, "elsewhere") is None
    assert await client.delete(config("b"))
    await client.delete_all(ConfigMap, labels="missing=label")
    with pytest.raises(AlreadyExists):
        await client.create(config("a", text="other"))
    assert (await client.get(Namespace, "web")).name == "web"
    assert await client.raw("GET", "/api/v1/namespaces/default/configmaps/elsewhere")


async def test_a_client_restricted_to_a_namespace_rejects_others(world: World, manager: Manager) -> None:
    client = client_of(world).namespaced("web")
    elsewhere = config("a", "default")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.create(elsewhere),
        lambda: client.get(ConfigMap, "a", "default"),
        lambda: client.list(ConfigMap, namespace="default"),
        lambda: client.apply(elsewhere),
        lambda: client.delete(elsewhere),
        lambda: client.delete_all(ConfigMap, namespace="default", labels=None),
        lambda: manager.api.namespaced("web").create(elsewhere),
        lambda: manager.api.namespaced("web").get(ConfigMap, "a", "default"),
        lambda: manager.api.namespaced("web").list(ConfigMap, namespace="default"),
        lambda: manager.api.namespaced("web").ensure(config("b"), owner=world.put(elsewhere)),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="in namespace 'default': this client is restricted to 'web'"):
            await call()
    assert world.count(kind=ConfigMap) == 0


async def test_a_bound_api_reads_its_own_writes(world: World, manager: Manager) -> None:
    api = manager.api.namespaced("web")
    world.put(config("a", "default", text="other"))
    world.lag(ConfigMap, 0.5)
    await api.create(config("a", text="1"))
    assert (await api.get(ConfigMap, "a")).data == {"text": "1"}
    await api.patch(config("a"), MergePatch({"data": {"text": "2"}}))
    assert [obj.data for obj in await api.list(ConfigMap) if obj.name == "a"] == [{"text": "2"}]
    assert [str(obj.key) for obj in await api.list(ConfigMap, index=by_text("2"))] == ["web/a"]
    assert await api.find(Service, "a") is None
    assert (await api.get(Namespace, "web")).name == "web"
    assert (await api.ensure(config("b", text="1"))).namespace == "web"
    await api.ensure(config("b", text="1"))
    assert world.count("PATCH", ConfigMap) == 2  # the patch, and one apply
    await api.delete(config("a"))
    assert await api.find(ConfigMap, "a") is None
    assert [obj.data for obj in await manager.api.list(ConfigMap) if obj.name == "a"] == [{"text": "other"}]
    assert world.count("get", ConfigMap) + world.count("list", ConfigMap) == 0


async def test_what_a_bound_api_may_read_is_still_declared(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap, namespaces=["default"])]) as manager:
        with pytest.raises(UndeclaredNamespace):
            await manager.api.namespaced("web").list(ConfigMap)


async def test_a_dry_run_of_every_verb_is_not_stored(world: World, manager: Manager) -> None:
    kept = world.put(config("kept", "default", text="1"))
    app = world.put(deployment("app"))
    world.put(pod("victim"))
    await world.settle()
    before = world.list(ConfigMap), world.list(Deployment), world.list(Pod)
    for client in (client_of(world).dry_run(), manager.api.dry_run().client):
        assert (await client.create(config("new", "default", text="1"))).uid
        assert (await client.update(kept.evolve(data={"text": "2"}))).data == {"text": "2"}
        assert (await client.patch(kept, MergePatch({"data": {"text": "3"}}))).data == {"text": "3"}
        await client.patch(kept, JsonPatch([{"op": "remove", "path": "/data/text"}]))
        await client.apply(config("kept", "default", text="4"))
        await client.update_status(app)
        await client.scale(app, 7)
        assert await client.delete(kept)
        await client.delete_all(ConfigMap, namespace="default", labels=None)
        assert await client.evict(world.get(Pod, "victim"))
        await client.raw(
            "PATCH",
            "/api/v1/namespaces/default/configmaps/kept",
            body={"data": None},
            content_type="application/merge-patch+json",
        )
        await client.raw("DELETE", "/api/v1/namespaces/default/configmaps/kept")
        with pytest.raises(ConfigurationError, match="from the query"):
            await client.raw("DELETE", "/api/v1/namespaces/default/configmaps/kept", body={})
    assert (world.list(ConfigMap), world.list(Deployment), world.list(Pod)) == before


async def test_reads_do_not_wait_for_a_dry_run(world: World, manager: Manager) -> None:
    world.put(config("kept", "default", text="1"))
    await world.settle()
    rehearsal = manager.api.dry_run()
    began = world.now
    await rehearsal.create(config("new", "default"))
    kept = await rehearsal.get(ConfigMap, "kept", "default")
    await rehearsal.patch(kept, MergePatch({"data": {"text": "2"}}))
    assert (await rehearsal.ensure(config("ensured", "default", text="2"))).data == {"text": "2"}
    async with rehearsal.status(world.put(deployment("app"))) as status:
        status.set(replicas=3)
    await rehearsal.delete(kept)
    rehearsal.event(kept, "Normal", "Rehearsed", "is not sent")
    world.clear_requests()

    assert (await rehearsal.get(ConfigMap, "kept", "default")).data == {"text": "1"}
    assert await manager.api.find(ConfigMap, "new", "default") is None
    assert [obj.name for obj in await manager.api.list(ConfigMap, namespace="default") if obj.data] == ["kept"]
    assert world.now == began
    assert world.count("get", ConfigMap) + world.count("list", ConfigMap) == 0
    await manager.api.ensure(config("ensured", "default", text="2"))
    assert world.get(ConfigMap, "ensured").data == {"text": "2"}
    await world.advance(5)
    assert world.events() == []


async def test_bindings_add_up_and_the_fence_stays(world: World, manager: Manager) -> None:
    def fence() -> None:
        raise NotLeader("not any more")

    both = client_of(world).fenced(fence).namespaced("web").dry_run()
    with pytest.raises(NotLeader):
        await both.create(config("a"))
    api = manager.api.dry_run().namespaced("web")
    assert (await api.create(config("a"))).namespace == "web"
    assert await api.find(ConfigMap, "a") is None


async def test_interceptors_observe_change_reject_and_answer(world: World, manager: Manager) -> None:
    seen: list[str] = []

    async def watched(request: ApiRequest, send: Send) -> Reply:
        seen.append(f"{request.method} {request.target.partition('?')[0]}")
        try:
            return await send(request)
        except ApiError as error:
            seen.append(error.reason)
            raise

    async def ruled(request: ApiRequest, send: Send) -> Reply:
        if request.method == "DELETE":
            raise Terminal("nothing is deleted here")
        if request.target == "/version":
            return Reply(200, {}, b'{"minor": "0"}')
        return await send(replace(request, body=request.body and request.body.replace(b"red", b"blue")))

    client = client_of(world).intercepted(ruled).intercepted(watched)
    made = await client.create(config("a", "default", color="red"))
    assert made.data == {"color": "blue"}
    with pytest.raises(AlreadyExists):
        await client.create(config("a", "default", color="green"))
    with pytest.raises(Terminal):
        await client.delete(made)
    assert await client.raw("GET", "/version") == {"minor": "0"}
    path = "/api/v1/namespaces/default/configmaps"
    assert seen == [
        f"POST {path}",
        f"POST {path}",
        "AlreadyExists",
        f"DELETE {path}/a",
        "GET /version",
    ]
    assert world.get(ConfigMap, "a").data == {"color": "blue"}


async def test_an_intercepted_api_still_reads_its_own_writes_from_the_cache(world: World, manager: Manager) -> None:
    seen: list[str] = []

    async def watched(request: ApiRequest, send: Send) -> Reply:
        seen.append(request.method)
        return await send(request)

    api = manager.api.intercepted(watched).namespaced("web").dry_run()
    await api.create(config("a"))
    assert await api.find(ConfigMap, "a") is None
    api = manager.api.intercepted(watched)
    world.lag(ConfigMap, 0.5)
    await api.create(config("a", "web"))
    assert (await manager.api.get(ConfigMap, "a", "web")).namespace == "web"
    assert seen == ["POST", "POST"]
    await manager.api.create(config("b", "web"))
    assert seen == ["POST", "POST"]


async def test_a_managers_interceptors_see_what_reconcilers_send_in_their_order(world: World) -> None:
    seen: list[str] = []

    def named(name: str) -> Interceptor:
        async def note(request: ApiRequest, send: Send) -> Reply:
            seen.append(f"{name} {request.method}")
            return await send(request)

        return note

    async def reconcile(request: Request[ConfigMap]) -> None:
        if request.key.name == "a" and not request.object.data:
            await request.api.patch(request.object, MergePatch({"data": {"seen": "yes"}}))

    manager = Manager(
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        controllers=[Controller(ConfigMap, reconcile)],
        transport=world.transport(),
        interceptors=[named("first"), named("second")],
    )
    async with manager:
        world.put(config("a", "default"))
        await world.advance(5)
    assert world.get(ConfigMap, "a").data == {"seen": "yes"}
    assert seen == ["first PATCH", "second PATCH"]
