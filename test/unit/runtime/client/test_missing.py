"""A 404 about an object and one about its kind or subresource are distinguished wherever a 404 counts as "gone".

A status written to a kind without a status subresource was a success that stored nothing.
"""

from collections.abc import Awaitable, Callable

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import Api, Client, MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import NotFound
from kaito.runtime.finalizer import add_finalizer, remove_finalizer
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World, pod


class Spec(Model):
    replicas: int = 1


class Status(Model):
    n: int = 0
    conditions: list[Condition] = []


class App(Resource, api="example.com/v1", kind="App"):
    spec: Spec = Spec()
    status: Status = Status()


class Unserved(Resource, api="example.com/v1", kind="Unserved"):
    """A kind without CustomResourceDefinition."""

    status: Status = Status()


def without_subresources() -> dict[str, object]:
    definition = crd([Version(model=App, storage=True)])
    del definition["spec"]["versions"][0]["subresources"]
    return definition


async def test_a_status_write_without_the_subresource_is_an_error(world: World) -> None:
    errors: list[str] = []

    async def reconcile(request: Request[App]) -> None:
        try:
            async with request.status() as status:
                status.condition("Ready", holds=True, reason="Ok")
        except NotFound as error:
            errors.append(str(error))
            raise

    world.install(without_subresources())
    async with world.manager(Controller(App, reconcile)):
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.reconciles()[0].outcome == "error"
        assert "App default/a exists, but apps of example.com/v1 have no 'status' subresource" in errors[0]
        assert "declare spec.versions[].subresources.status" in errors[0]
        world.install(crd([Version(model=App, storage=True)]))  # the definition is corrected
        await world.advance(1200)
        assert world.get(App, "a").status.conditions[0].type == "Ready"


async def test_the_status_of_a_deleted_object_is_not_an_error(world: World) -> None:
    async def reconcile(request: Request[App]) -> None:
        async with request.status() as status:
            world.delete(App, "a")
            status.condition("Ready", holds=True, reason="Ok")

    async with world.manager(Controller(App, reconcile)):
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.reconciles()[0].outcome == "success"


async def test_the_status_of_a_recreated_object_is_not_an_error(world: World) -> None:
    world.install(without_subresources())
    first = world.put(App(metadata=ObjectMeta(name="a")))
    world.delete(App, "a")
    world.put(App(metadata=ObjectMeta(name="a")))
    async with world.manager(cache=[Cached(App)]) as manager, manager.api.status(first) as status:
        status.set(n=1)
    assert world.get(App, "a").status.n == 0


Write = Callable[[Client, App], Awaitable[object]]
WRITES: dict[str, tuple[Write, str]] = {
    "patch": (lambda client, obj: client.patch(obj, MergePatch({"status": {"n": 1}}), subresource="status"), "status"),
    "update": (lambda client, obj: client.update_status(obj), "status"),
    "apply": (lambda client, obj: client.apply(obj, subresource="status"), "status"),
    "scale": (lambda client, obj: client.scale(obj, 3), "scale"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_every_write_to_a_missing_subresource_is_an_error_with_its_name(name: str, world: World) -> None:
    write, subresource = WRITES[name]
    world.install(without_subresources())
    obj = world.put(App(metadata=ObjectMeta(name="a")))
    obj = App(metadata=ObjectMeta(name="a", namespace="default"), status=Status(n=1)) if name == "apply" else obj
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(NotFound, match=rf"App default/a exists.*no '{subresource}' subresource") as missing:
        await write(client, obj)
    assert not missing.value.is_object
    world.delete(App, "a")
    with pytest.raises(NotFound, match='"a" not found') as gone:
        await write(client, obj)
    assert gone.value.is_object


async def test_who_may_not_read_is_told_what_may_be_missing(world: World) -> None:
    world.install(without_subresources())
    obj = world.put(App(metadata=ObjectMeta(name="a")))
    world.fail_next("get", App, status=403, message="not you")
    with pytest.raises(NotFound, match=r"may exist \(not you\), but") as missing:
        await Client(world.transport(), field_manager="test").update_status(obj)
    assert not missing.value.is_object


async def test_an_eviction_of_a_pod_that_is_deleted_is_false_and_without_the_subresource_an_error(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    victim = world.put(pod("a"))
    world.fail_next("create", subresource="eviction", status=404, message="the server could not find it")
    with pytest.raises(NotFound):
        await client.evict(victim)
    assert await client.evict(victim)
    assert not await client.evict(victim)


async def test_deleting_a_kind_that_is_not_served_is_an_error(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(NotFound) as missing:
        await client.delete(Unserved(metadata=ObjectMeta(name="a", namespace="default")))
    assert not missing.value.is_object
    world.install(Unserved)
    assert not await client.delete(Unserved(metadata=ObjectMeta(name="a", namespace="default")))


async def test_a_finalizer_of_a_kind_that_is_not_served_any_more_is_not_taken_for_removed(world: World) -> None:
    finalizer = "example.com/f"
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api: Api = manager.api
        stale = Unserved(metadata=ObjectMeta(name="a", namespace="default", finalizers=[finalizer]))
        with pytest.raises(NotFound) as missing:
            await remove_finalizer(api, stale, finalizer)
        assert not missing.value.is_object
        world.install(Unserved)
        await remove_finalizer(api, stale, finalizer)  # the object is gone: nothing to do


async def test_the_error_of_add_finalizer_contains_the_deleted_object(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        stale = world.put(ConfigMap(metadata=ObjectMeta(name="a", finalizers=["example.com/x"])))
        world.patch(ConfigMap, "a", {"metadata": {"finalizers": []}})
        world.delete(ConfigMap, "a")
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        with pytest.raises(NotFound) as gone:
            await add_finalizer(manager.api, stale, "example.com/f")
        assert gone.value.is_object
