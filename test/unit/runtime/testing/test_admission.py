"""`World.admit`: the in-memory server calls webhooks of the same process."""

import asyncio

import pytest

from kaito.apiserver import RequestRecord
from kaito.runtime import Controller, Request
from kaito.runtime.client import Client
from kaito.runtime.errors import Invalid
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Model, ObjectMeta, Resource
from kaito.runtime.testing import World
from kaito.runtime.webhook import Admission, Webhook


class VaseSpec(Model):
    size: int | None = None


class Vase(Resource, api="admit.test.dev/v1", kind="Vase"):
    spec: VaseSpec = VaseSpec()


def vase(name: str, size: int | None = None) -> Vase:
    return Vase(metadata=ObjectMeta(name=name, namespace="default"), spec=VaseSpec(size=size))


def fill_in(obj: Vase) -> Vase:
    return obj if obj.spec.size is not None else obj.evolve(spec=VaseSpec(size=3))


async def validate(admission: Admission[Vase]) -> None:
    if admission.operation == "DELETE":
        admission.deny("", "vases are permanent")
    elif admission.object is not None and (admission.object.spec.size or 0) > 9:
        if admission.dry_run:
            await asyncio.sleep(1)
        admission.deny("spec.size", "too large for the shelf")


async def test_webhooks_are_called_for_writes_of_the_test_and_of_clients(world: World) -> None:
    world.admit(Webhook(Vase, default=fill_in, validate=validate))
    assert world.put(vase("a")).spec.size == 3
    with pytest.raises(Invalid, match=r"spec\.size: too large for the shelf"):
        world.patch(Vase, "a", {"spec": {"size": 10}})
    client = Client(world.transport(), field_manager="test")
    assert (await client.create(vase("b"))).spec.size == 3
    with pytest.raises(Invalid, match="too large"):
        await client.create(vase("c", 10))
    with pytest.raises(Exception, match="vases are permanent"):
        world.delete(Vase, "a")
    assert world.put(ConfigMap(metadata=ObjectMeta(name="other"))).uid


async def test_what_waits_is_asked_through_a_client_only(world: World) -> None:
    world.admit(Webhook(Vase, validate=validate))
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(Invalid, match="too large"):
        await client.create(vase("a", 10), dry_run=True)


FINALIZER = "admit.test.dev/cleanup"


async def nothing(request: Request[Vase]) -> None:
    """A reconcile without effect, and a cleanup without effect."""


def is_write_of_manager(request: RequestRecord) -> bool:
    return request.verb == "patch" and request.kind == "Vase" and not request.user_agent.startswith("user/")


async def test_a_controller_writes_the_finalizer_only_of_objects_that_no_webhook_saw(world: World) -> None:
    world.install(Vase)
    world.put(vase("before"))
    world.admit(Webhook(Vase, finalizer=FINALIZER))
    world.put(vase("admitted"))
    client = Client(world.transport(), field_manager="user")
    await client.apply(vase("applied", 1))
    async with world.manager(Controller(Vase, nothing).finalizes(FINALIZER, nothing)):
        await world.settle()
        patched = {request.name for request in world.requests if is_write_of_manager(request)}
        assert patched == {"before"}
        await client.apply(vase("applied", 2))
        await world.settle()
        for name in ("before", "admitted", "applied"):
            assert world.get(Vase, name).metadata.finalizers == [FINALIZER]
        for name in ("before", "admitted", "applied"):
            world.delete(Vase, name)
        await world.settle()
    assert world.list(Vase) == []
