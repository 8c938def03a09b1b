"""A manager keeps nothing of objects that are gone: no name that ever existed is found in it afterwards."""

import asyncio
import gc
import re
import types
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from kaito.runtime.cache import Cached, View
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Model, ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.recorder import EventRecorder
from kaito.runtime.testing import InMemoryTransport, World
from kaito.runtime.testing.reconciles import ReconcileRecorder

MARK = "passing-"
NAMES = 600
WAVE = 100


class WidgetSpec(Model):
    size: int = 1


class Widget(Resource, api="leak.example.com/v1", kind="Widget", plural="widgets"):
    spec: WidgetSpec = WidgetSpec()


class Operator:
    """Takes a state in every structure that has one per key."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.balked: set[str] = set()

    async def reconcile(self, request: Request[Widget]) -> Again:
        name = request.key.name
        child = ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"size": "1"})
        await request.api.ensure(child, owner=request.object)
        if name.endswith("0") and name not in self.failed:
            self.failed.add(name)
            request.event("Warning", "Failing", f"{name} at {request.object.spec.size}")
            raise RuntimeError(f"{name} fails once")
        return Again(3600, f"{name} is looked at every hour")

    async def clean_up(self, request: Request[Widget]) -> None:
        await request.api.delete(ConfigMap(metadata=ObjectMeta(name=request.key.name, namespace="default")))

    def to_its_widget(self, child: ConfigMap, _: View) -> ObjectKey:
        """A mapper that fails once for some objects."""
        if child.name.endswith("5") and child.name not in self.balked:
            self.balked.add(child.name)
            raise RuntimeError(f"the mapper fails once on {child.name}")
        return child.key

    def controller(self) -> Controller[Widget]:
        return (
            Controller(Widget, self.reconcile, workers=4)
            .finalizes("leak.example.com/finalizer", self.clean_up)
            .watches(ConfigMap, to=self.to_its_widget)
        )


_FOREIGN = (
    asyncio.AbstractEventLoop,
    asyncio.Future,
    InMemoryTransport,  # behind it are the server and its log of requests
    Operator,
    ReconcileRecorder,  # the test cluster's memory of what ran
    types.CodeType,
    types.CoroutineType,
    types.FrameType,
    types.ModuleType,
    type,
)
"""Where looking ends: what is not the manager's memory. Tasks hold the last item they worked on, a handful in all."""


def _behind(found: object) -> Iterable[object]:
    """What an object keeps alive."""
    if isinstance(found, types.FunctionType):
        return (found.__closure__, found.__defaults__, found.__kwdefaults__)
    if isinstance(found, msgspec.Struct):  # those that the garbage collector does not know would hide their fields
        return [getattr(found, name) for name in found.__struct_fields__]
    return gc.get_referents(found)


def _named(root: object, *, without: tuple[type, ...] = ()) -> Iterator[str]:
    """The ways from the root to every text with the mark in it, as types."""
    seen: set[int] = set()
    waiting: list[tuple[object, str]] = [(root, type(root).__name__)]
    while waiting:
        found, way = waiting.pop()
        if id(found) in seen or isinstance(found, (*_FOREIGN, *without)):
            continue
        seen.add(id(found))
        if isinstance(found, str | bytes):
            if MARK in (found if isinstance(found, str) else found.decode(errors="replace")):
                yield f"{way}: {found!r}"
            continue
        waiting += [(each, f"{way}.{type(each).__name__}") for each in _behind(found)]


async def _live_and_die(world: World, names: list[str]) -> None:
    for name in names:
        world.put(Widget(metadata=ObjectMeta(name=name)))
    await world.settle()
    world.cut_watches()
    for name in names[::10]:
        world.put(
            Widget(metadata=ObjectMeta(name=name, finalizers=["leak.example.com/finalizer"]), spec=WidgetSpec(size=2))
        )
    await world.advance(5)
    for name in names:
        world.delete(Widget, name)
    await world.advance(5)


def _names(ways: Iterable[str]) -> set[str]:
    return {name for way in ways for name in re.findall(MARK + r"\w+", way)}


@pytest.mark.slow("test_objects_outside_the_selector_are_remembered_up_to_a_number")
async def test_nothing_is_left_of_objects_that_are_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.runtime.recorder.CORRELATOR_ENTRIES", 20)
    operator = Operator()
    async with world.manager(operator.controller()) as manager:
        world.put(Widget(metadata=ObjectMeta(name=f"{MARK}first")))
        await world.settle()
        assert any(_named(manager, without=(EventRecorder,))), "the test does not see what is there"
        world.delete(Widget, f"{MARK}first")
        for first in range(0, NAMES, WAVE):
            await _live_and_die(world, [f"{MARK}{number}" for number in range(first, first + WAVE)])
        assert len(operator.failed) == len(operator.balked) == NAMES / 10
        await world.advance(2 * 3600)
        assert list(_named(manager, without=(EventRecorder,)))[:5] == []
        assert len(_names(_named(manager))) == 20, "the recorder remembers so many, to spare the server repeated events"


async def test_objects_outside_the_selector_are_remembered_up_to_a_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaito.runtime.cache.own_writes.OUTSIDE_KEYS", 5)
    async with world.manager(cache=[Cached(ConfigMap, labels={"kept": "yes"})]) as manager:
        for number in range(50):
            passing = ConfigMap(metadata=ObjectMeta(name=f"{MARK}{number}", namespace="default"))
            await manager.api.create(passing)
            world.put(ConfigMap(metadata=ObjectMeta(name=f"kept-{number}", labels={"kept": "yes"})))
            await world.settle()
        assert len(_names(_named(manager.cache))) == 5
