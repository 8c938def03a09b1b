"""A kind with two versions in the `World`: whatever is asked for, the `Conversion`'s functions are between."""

import pytest

from kaito.runtime import Cached, Controller, Model, ObjectMeta, Request, Resource
from kaito.runtime.client import Client
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import ConfigurationError, Invalid, ServerError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.testing import World
from kaito.runtime.webhook import Admission, Conversion, Spoke, Webhook, conversion_manifest


class TankSpec(Model):
    liters: int = 0
    color: str | None = None


class Tank(Resource, api="water.example.com/v1", kind="Tank"):
    spec: TankSpec = TankSpec()


class OldTankSpec(Model):
    gallons: int = 0


class OldTank(Resource, api="water.example.com/v1beta1", kind="Tank"):
    spec: OldTankSpec = OldTankSpec()


def up(old: OldTank) -> Tank:
    if old.spec.gallons < 0:
        message = "a tank cannot hold less than nothing"
        raise ValueError(message)
    color = old.annotations.get("color")
    return Tank(metadata=old.metadata, spec=TankSpec(liters=old.spec.gallons * 4, color=color))


def down(new: Tank) -> OldTank:
    metadata = new.metadata
    if new.spec.color is not None:
        metadata = metadata.evolve(annotations=new.annotations | {"color": new.spec.color})
    return OldTank(metadata=metadata, spec=OldTankSpec(gallons=new.spec.liters // 4))


CONVERSION = Conversion(Tank, Spoke(OldTank, to_hub=up, from_hub=down))


@pytest.fixture
def water(world: World) -> World:
    world.convert(CONVERSION)
    return world


def old(name: str, gallons: int) -> OldTank:
    return OldTank(metadata=ObjectMeta(name=name), spec=OldTankSpec(gallons=gallons))


async def test_every_version_reads_what_any_version_wrote(water: World) -> None:
    assert water.put(old("a", 3)).spec.gallons == 3
    assert water.get(Tank, "a").spec.liters == 12
    water.put(Tank(metadata=ObjectMeta(name="b"), spec=TankSpec(liters=40, color="blue")))
    assert [tank.spec.gallons for tank in water.list(OldTank)] == [3, 10]
    assert water.get(OldTank, "b").annotations == {"color": "blue"}
    assert water.get(Tank, "a").uid == water.get(OldTank, "a").uid


async def test_changes_of_the_other_version_arrive_and_count_once(water: World) -> None:
    water.put(Tank(metadata=ObjectMeta(name="a"), spec=TankSpec(liters=40, color="blue")))
    assert water.patch(OldTank, "a", {"spec": {"gallons": 5}}).spec.gallons == 5
    tank = water.get(Tank, "a")
    assert (tank.spec.liters, tank.spec.color, tank.metadata.generation) == (20, "blue", 2)
    water.apply(
        {"apiVersion": "water.example.com/v1beta1", "kind": "Tank", "metadata": {"name": "c"}, "spec": {"gallons": 1}}
    )
    assert water.get(Tank, "c").spec.liters == 4
    water.delete(OldTank, "a")
    assert water.find(Tank, "a") is None


async def test_watches_show_the_version_they_ask_for(water: World) -> None:
    seen: list[tuple[str, int]] = []

    async def look(request: Request[OldTank]) -> None:
        seen.append((request.key.name, request.object.spec.gallons))

    water.put(Tank(metadata=ObjectMeta(name="a"), spec=TankSpec(liters=8)))
    async with water.manager(Controller(OldTank, look)):
        await water.settle()
        water.patch(Tank, "a", {"spec": {"liters": 16}})
        water.put(Tank(metadata=ObjectMeta(name="b"), spec=TankSpec(liters=4)))
        await water.settle()
        water.cut_watches()
        water.patch(Tank, "b", {"spec": {"liters": 12}})
        await water.advance(60)
        water.delete(Tank, "b")
        await water.settle()
    assert seen == [("a", 2), ("a", 4), ("b", 1), ("b", 3)]


async def test_what_cannot_be_converted_fails_with_the_reason(water: World) -> None:
    with pytest.raises(ServerError, match="a tank cannot hold less than nothing"):
        water.put(old("a", -1))
    assert water.list(Tank) == []


async def test_a_webhook_receives_its_version(water: World) -> None:
    requested: list[int] = []

    def check(admission: Admission[Tank]) -> None:
        assert admission.object is not None
        requested.append(admission.object.spec.liters)
        if admission.object.spec.liters > 100:
            admission.deny("spec.liters", "too much")

    def paint(tank: Tank) -> Tank:
        return tank if tank.spec.color else tank.evolve(spec=tank.spec.evolve(color="white"))

    water.admit(Webhook(Tank, default=paint, validate=check))
    assert water.put(old("a", 3)).annotations == {"color": "white"}
    assert requested == [12]
    with pytest.raises(Invalid, match="too much"):
        water.put(old("b", 30))


async def test_a_manifest_with_a_webhook_is_answered_in_the_process(world: World) -> None:
    elsewhere = conversion_manifest(namespace="water", service="tanks")
    world.install(crd([Version(model=Tank, storage=True), Version(model=OldTank)], conversion=elsewhere))
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(ServerError, match="no route to service water/tanks"):
        await client.create(old("a", 1).with_metadata(namespace="default"))
    world.convert(CONVERSION)
    assert world.put(old("a", 1)).spec.gallons == 1


async def test_versions_without_a_conversion_are_named(world: World) -> None:
    class AncientTank(Resource, api="water.example.com/v1alpha1", kind="Tank"):
        spec: OldTankSpec = OldTankSpec()

    definition = crd([Version(model=model, storage=model is Tank) for model in (Tank, OldTank, AncientTank)])
    world.install(definition)
    with pytest.raises(ConfigurationError, match="no conversion of v1alpha1 is known"):
        world.convert(CONVERSION)
    with pytest.raises(ConfigurationError, match="is another kind"):
        Conversion(ConfigMap).check_coverage(definition)


async def test_a_cache_of_each_version_holds_the_same_objects(water: World) -> None:
    water.put(Tank(metadata=ObjectMeta(name="a"), spec=TankSpec(liters=8)))
    async with water.manager(cache=[Cached(Tank), Cached(OldTank)]) as manager:
        await water.settle()
        new = await manager.api.get(Tank, "a", "default")
        before = await manager.api.get(OldTank, "a", "default")
        assert (new.spec.liters, before.spec.gallons) == (8, 2)


UNLUCKY = 13
"""Liters that the old version cannot show while `Weather.bad`."""


class Weather:
    """Whether the conversion fails for unlucky tanks."""

    bad = False


def down_in_weather(new: Tank) -> OldTank:
    if Weather.bad and new.spec.liters == UNLUCKY:
        message = "there is no such tank"
        raise ValueError(message)
    return down(new)


@pytest.fixture
def stormy(world: World) -> World:
    Weather.bad = False
    world.convert(Conversion(Tank, Spoke(OldTank, up, down_in_weather)))
    return world


async def converge_old(request: Request[OldTank]) -> None: ...


@pytest.mark.parametrize("seconds", [1, 61], ids=["at once", "when a bookmark is due"])
async def test_an_object_that_cannot_be_converted_for_a_while_loses_nothing(stormy: World, seconds: float) -> None:
    """A stream that ends because an object cannot be shown has no bookmark after that object."""
    world = stormy
    for name, liters in (("bad", UNLUCKY), ("good", 4)):
        world.put(Tank(metadata=ObjectMeta(name=name), spec=TankSpec(liters=liters)))
    async with world.manager(Controller(OldTank, converge_old)) as manager:
        await world.settle()
        Weather.bad = True
        world.patch(Tank, "bad", {"metadata": {"labels": {"a": "b"}}})
        for number in range(5):
            world.put(Tank(metadata=ObjectMeta(name=f"x{number}")))
            await world.advance(seconds)
        Weather.bad = False
        await world.advance(700)
        cached = await manager.api.list(OldTank)
        assert [tank.name for tank in cached] == ["bad", "good", "x0", "x1", "x2", "x3", "x4"]
        assert cached[0].labels == {"a": "b"}
        assert manager.readyz.report().healthy
