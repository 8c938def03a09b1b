"""The deletion of an object that carries one of the controller's finalizers always reaches its clean-up.

A predicate hid the update that begins the deletion, and the object stayed until the operator restarted.
"""

from collections.abc import Callable

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.cache.declaration import Only
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import enqueue_self
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import Model, ObjectKey, ObjectMeta, Resource
from kaito.runtime.predicate import Predicate, changed, differs, labeled, matching, on
from kaito.runtime.reconcile import Again, KeyedRequest, Request
from kaito.runtime.source import EventType, KindSource
from kaito.runtime.testing import World

FINALIZER = "example.com/f"


class Spec(Model):
    size: int = 0


class App(Resource, api="example.com/v1", kind="App"):
    spec: Spec = Spec()


def app(name: str = "a", **metadata: object) -> App:
    return App(metadata=ObjectMeta.model_validate({"name": name, **metadata}))


async def nothing(_: Request[App]) -> None:
    """Converges at once."""


class CleanUp:
    def __init__(self) -> None:
        self.keys: list[ObjectKey] = []

    async def __call__(self, request: Request[App]) -> Again | None:
        self.keys.append(request.key)
        return None


def secret_data(obj: Secret) -> object:
    return obj.data


def small(obj: App) -> bool:
    return obj.spec.size > 100


def size(obj: App) -> int:
    return obj.spec.size


HIDING: dict[str, Callable[[], Predicate]] = {
    "changed": lambda: changed("spec"),
    "changed-generation": lambda: changed("generation"),
    "not-changed": lambda: ~changed("spec"),
    "differs": lambda: differs(size),
    "labeled": lambda: labeled("x"),
    "not-labeled": lambda: ~labeled("x"),
    "matching": lambda: matching(small),
    "on-create": lambda: on(EventType.CREATE),
    "on-nothing": on,
    "both": lambda: changed("spec") & labeled("x"),
    "either": lambda: matching(small) | on(EventType.CREATE),
    "not-either": lambda: ~(changed("spec") | on(EventType.CREATE)),
}
"""Each drops at least one of the events between creation and the beginning of the deletion."""


@pytest.mark.parametrize("name", HIDING)
async def test_no_predicate_hides_the_deletion(name: str, world: World) -> None:
    clean_up = CleanUp()
    controller = Controller(App, nothing, when=HIDING[name]()).finalizes(FINALIZER, clean_up)
    async with world.manager(controller):
        world.put(app(finalizers=[FINALIZER], labels={"x": "1"}))
        await world.settle()
        world.patch(App, "a", {"metadata": {"labels": {"x": None}}})
        await world.settle()
        world.delete(App, "a")
        await world.settle()
        assert world.find(App, "a") is None
    assert clean_up.keys == [ObjectKey("default", "a")]


@pytest.mark.parametrize("name", HIDING)
async def test_no_predicate_hides_an_object_that_is_being_deleted_at_the_start(name: str, world: World) -> None:
    clean_up = CleanUp()
    world.put(app(finalizers=[FINALIZER]))
    world.delete(App, "a")
    async with world.manager(Controller(App, nothing, when=HIDING[name]()).finalizes(FINALIZER, clean_up)):
        await world.settle()
        assert world.find(App, "a") is None
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_a_kind_without_generation(world: World) -> None:
    done: list[str] = []

    async def reconcile(_: Request[ConfigMap]) -> None: ...

    async def clean_up(request: Request[ConfigMap]) -> None:
        done.append(request.key.name)

    async with world.manager(
        Controller(ConfigMap, reconcile, when=changed("generation")).finalizes(FINALIZER, clean_up)
    ):
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        await world.settle()
        world.delete(ConfigMap, "a")
        await world.settle()
    assert done == ["a"]


async def test_a_predicate_that_raises_hides_nothing(world: World) -> None:
    clean_up = CleanUp()

    def broken(_: App) -> bool:
        message = "no"
        raise ValueError(message)

    world.put(app(finalizers=[FINALIZER]))
    world.delete(App, "a")
    async with world.manager(Controller(App, nothing, when=matching(broken)).finalizes(FINALIZER, clean_up)):
        await world.settle()
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_other_events_of_a_deleting_object_are_still_the_predicates_business(world: World) -> None:
    runs: list[str] = []

    async def wait(request: Request[App]) -> Again:
        runs.append(request.key.name)
        return Again(3600)

    async with world.manager(Controller(App, nothing, when=changed("spec")).finalizes(FINALIZER, wait)):
        world.put(app())
        await world.settle()
        world.delete(App, "a")
        await world.settle()
        world.patch(App, "a", {"metadata": {"annotations": {"note": "1"}}})
        await world.settle()
        assert runs == ["a"]


async def test_a_foreign_finalizer_changes_nothing(world: World) -> None:
    reconciled: list[str] = []

    async def reconcile(request: Request[App]) -> None:
        reconciled.append(request.key.name)

    async with world.manager(Controller(App, reconcile, when=labeled("x")).finalizes(FINALIZER, CleanUp())):
        world.put(app(finalizers=["example.com/foreign"]))
        await world.settle()
        world.delete(App, "a")
        await world.settle()
    assert reconciled == []


@pytest.mark.parametrize("only", [None, "metadata"])
async def test_the_form_of_the_cache_does_not_matter(only: Only, world: World) -> None:
    clean_up = CleanUp()
    controller = Controller(App, nothing, when=labeled("x"), cache=[Cached(App, only=only)])
    async with world.manager(controller.finalizes(FINALIZER, clean_up)):
        world.put(app(labels={"x": "1"}))
        await world.settle()
        world.patch(App, "a", {"metadata": {"labels": {"x": None}}})
        world.delete(App, "a")
        await world.settle()
        assert world.find(App, "a") is None
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_a_deletion_missed_by_the_watch_is_found_by_the_next_list(world: World) -> None:
    clean_up = CleanUp()
    controller = Controller(App, nothing, when=changed("spec")).finalizes(FINALIZER, clean_up)
    async with world.manager(controller):
        world.put(app())
        await world.settle()
        fault = world.fail_next("GET", App, status=500, times=None)
        world.cut_watches(App)
        world.delete(App, "a")
        await world.advance(5)
        world.compact_history()
        world.server.faults.remove(fault)
        await world.advance(60)
        assert world.find(App, "a") is None
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_a_source_of_the_program_is_held_to_it_too(world: World) -> None:
    clean_up = CleanUp()
    source = KindSource(App, enqueue_self, when=on())
    controller = Controller(App, nothing, when=on()).receives(source).finalizes(FINALIZER, clean_up)
    async with world.manager(controller):
        world.put(app(finalizers=[FINALIZER]))
        world.delete(App, "a")
        await world.settle()
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_an_object_that_leaves_the_caches_selection_is_cleaned_up_when_it_is_deleted(world: World) -> None:
    clean_up = CleanUp()
    controller = Controller(App, nothing, when=changed("spec"), cache=[Cached(App, labels="tier=front")])
    async with world.manager(controller.finalizes(FINALIZER, clean_up)):
        world.put(app(labels={"tier": "front"}))
        await world.settle()
        assert world.get(App, "a").metadata.finalizers == [FINALIZER]
        world.patch(App, "a", {"metadata": {"labels": {"tier": None}}})
        await world.advance(300)
        assert world.find(App, "a") is not None
        assert clean_up.keys == []
        world.delete(App, "a")
        await world.advance(61)
        assert world.find(App, "a") is None
    assert clean_up.keys == [ObjectKey("default", "a")]


async def test_an_object_that_leaves_the_selection_without_our_finalizer_is_forgotten(world: World) -> None:
    controller = Controller(App, nothing, cache=[Cached(App, labels="tier=front")])
    async with world.manager(controller.finalizes(FINALIZER, CleanUp())):
        world.put(app(labels={"tier": "front"}))
        await world.settle()
        world.patch(App, "a", {"metadata": {"labels": {"tier": None}, "finalizers": []}})
        await world.settle()
        world.clear_requests()
        await world.advance(600)
        assert not [each for each in world.requests if each.path.endswith("/apps/a")]


def test_a_cache_without_finalizers_is_refused(world: World) -> None:
    controller = Controller(App, nothing, cache=[Cached(App, drop=["metadata.finalizers"])])
    with pytest.raises(ConfigurationError, match=r"finalizes\('example.com/f'\) looks at metadata.finalizers"):
        world.manager(controller.finalizes(FINALIZER, CleanUp()))


@pytest.mark.parametrize("when", [changed("spec"), changed("data.a"), differs(secret_data)])
async def test_changed_and_differs_let_the_beginning_of_any_deletion_pass(when: Predicate, world: World) -> None:
    seen: list[str] = []

    async def visit(visit: KeyedRequest[str]) -> None:
        seen.append(visit.key)

    keyed = Controller.keyed(str, visit, name="keyed").watches(Secret, to=lambda obj, _: [obj.name], when=when)
    async with world.manager(keyed):
        world.put(Secret(metadata=ObjectMeta(name="a", finalizers=["example.com/by-hand"])))
        await world.settle()
        seen.clear()
        world.delete(Secret, "a")
        await world.settle()
    assert seen == ["a"]
