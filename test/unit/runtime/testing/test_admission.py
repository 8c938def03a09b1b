"""`World.admit`: the in-memory server calls webhooks of the same process."""

import asyncio

import pytest

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


async def judge(admission: Admission[Vase]) -> None:
    if admission.operation == "DELETE":
        admission.deny("", "vases are permanent")
    elif admission.object is not None and (admission.object.spec.size or 0) > 9:
        if admission.dry_run:
            await asyncio.sleep(1)
        admission.deny("spec.size", "too large for the shelf")


async def test_webhooks_are_called_for_writes_of_the_test_and_of_clients(world: World) -> None:
    world.admit(Webhook(Vase, default=fill_in, validate=judge))
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
    world.admit(Webhook(Vase, validate=judge))
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(Invalid, match="too large"):
        await client.create(vase("a", 10), dry_run=True)
