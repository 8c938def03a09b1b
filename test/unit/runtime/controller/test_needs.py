"""Controllers carry what they need of the cache; contradictions are refused when the manager is put together."""

from collections.abc import Sequence
from typing import Any

import pytest

from kaito.runtime.cache import Cached, Index, View
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError, UndeclaredKind
from kaito.runtime.kinds import ConfigMap, Deployment, Pod, Secret
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, PeriodicRequest, Request
from kaito.runtime.testing import World, pod


def node_of(pod: Pod) -> Sequence[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []


by_node = Index(Pod, node_of, name="by-node")
by_phase = Index(Pod, lambda pod: [pod.status.phase or ""], name="by-phase")


async def reconcile(request: Request[Any]) -> Again | None:
    return None


async def collect(tick: PeriodicRequest) -> Again | None:
    return None


def nowhere(obj: Resource, view: View) -> ObjectKey | None:
    return None


def pods(**options: Any) -> Controller[Pod]:
    return Controller(Pod, reconcile, name="pods", cache=[Cached(Pod, **options)])


def together(*controllers: Any, cache: Sequence[Cached] = (), settings: Settings | None = None) -> Manager:
    return Manager(settings, controllers=controllers, cache=cache)


async def test_a_controller_brings_indexes_selectors_and_further_kinds(world: World) -> None:
    found: list[str] = []

    async def look(request: Request[ConfigMap]) -> Again | None:
        on_node = await request.api.list(Pod, index=by_node("n1"))
        secret = await request.api.find(Secret, "s", "default")
        found.append(f"{[each.name for each in on_node]} {secret is not None}")
        return None

    controller = Controller(
        ConfigMap, look, cache=[Cached(Pod, labels="app=a", indexes=[by_node]), Cached(Secret)]
    ).owns(Deployment, labels={"app": "a"}, only="metadata")
    for name, app in (("p", "a"), ("q", "b")):
        world.put(pod(name, labels={"app": app}, node_name="n1"))
    world.put(Secret(metadata=ObjectMeta(name="s")))
    world.put(ConfigMap(metadata=ObjectMeta(name="c")))
    async with world.manager(controller) as manager:
        await world.settle()
        assert found == ["['p'] True"]
        assert manager.cache.informer(Deployment).metadata_only
    selectors = {dict(request.query).get("labelSelector") for request in world.requests if request.kind == "Deployment"}
    assert selectors == {"app=a"}


async def test_a_periodic_controller_brings_the_kinds_it_reads(world: World) -> None:
    found: list[str] = []

    async def look(tick: PeriodicRequest) -> Again | None:
        found.extend(each.name for each in await tick.api.list(Secret))
        return None

    world.put(Secret(metadata=ObjectMeta(name="s")))
    async with world.manager(Controller.every(60, look, name="looker", cache=[Cached(Secret)])):
        await world.settle()
    assert found == ["s"]


def test_indexes_of_several_controllers_add_up() -> None:
    together(pods(indexes=[by_node]), Controller(Pod, reconcile, name="more", cache=[Cached(Pod, indexes=[by_phase])]))


def test_what_the_manager_says_holds_for_controllers_that_only_name_the_kind() -> None:
    together(Controller(ConfigMap, reconcile).owns(Pod), cache=[Cached(Pod, labels="app=a")])
    together(pods(labels="app=a"), cache=[Cached(Pod, labels="app=a")])
    together(pods(indexes=[by_node]), cache=[Cached(Pod, labels="app=a")])


def test_the_managers_namespaces_are_no_contradiction() -> None:
    settings = Settings(namespaces=("prod",))
    together(pods(namespaces=["prod"]), Controller(ConfigMap, reconcile).owns(Pod), settings=settings)
    with pytest.raises(ConfigurationError, match="controller pods keeps"):
        together(pods(namespaces=["prod"]), Controller(ConfigMap, reconcile).owns(Pod))


@pytest.mark.parametrize(
    ("controllers", "cache", "message"),
    [
        (
            [pods(labels="app=a"), Controller(ConfigMap, reconcile).owns(Pod)],
            [],
            r"controller pods keeps Cached\(Pod, labels='app=a'\), controller configmap .*for all, in Manager\(cache=",
        ),
        (
            [Controller(ConfigMap, reconcile).owns(Pod), pods(labels="app=a")],
            [],
            r"controller configmap keeps Cached\(Pod\), controller pods needs",
        ),
        ([pods(labels="app=a")], [Cached(Pod, labels="app=b")], "remove the options of controller pods"),
        ([pods(labels="app=a")], [Cached(Pod)], "remove the options of controller pods"),
        ([], [Cached(Pod, labels="app=a"), Cached(Pod, labels="app=b")], "contradict|keeps"),
        (
            [pods(indexes=[by_node])],
            [Cached(Pod, indexes=[Index(Pod, node_of, name="by-node")])],
            r"controller pods: .*two indexes are named 'by-node'",
        ),
    ],
)
def test_contradictions_are_told_at_construction_with_names_and_remedy(
    controllers: Sequence[Controller[Any]], cache: Sequence[Cached], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        together(*controllers, cache=cache)


async def test_a_contradiction_is_told_when_a_controller_joins_and_nothing_is_left_of_it(world: World) -> None:
    async with world.manager(Controller(ConfigMap, reconcile).owns(Pod)) as manager:
        with pytest.raises(ConfigurationError, match="controller pods needs"):
            manager.add(pods(labels="app=a"))
        assert [queue.name for queue in manager.queues] == ["configmap"]
        manager.add(pods(indexes=[by_node]))
        await world.settle()
        world.put(pod("p", node_name="n1"))
        await world.settle()
        assert [each.name for each in await manager.api.list(Pod, index=by_node("n1"))] == ["p"]


async def test_informers_go_with_the_last_controller_that_needs_them(world: World) -> None:
    first = Controller(ConfigMap, reconcile, cache=[Cached(Secret)]).owns(Pod)
    second = Controller(Deployment, reconcile).owns(Pod).watches(ConfigMap, to=nowhere)
    async with world.manager(first, second, cache=[Cached(Deployment)]) as manager:
        await world.settle()
        await manager.remove("configmap")
        await world.settle()
        assert not manager.cache.declares(Secret)
        assert manager.cache.declares(Pod)
        assert manager.cache.declares(ConfigMap)
        with pytest.raises(UndeclaredKind):
            await manager.api.list(Secret)
        await manager.remove("deployment")
        await world.settle()
        assert not manager.cache.declares(Pod)
        assert not manager.cache.declares(ConfigMap)
        assert manager.cache.declares(Deployment)  # the manager's own
        assert world.cut_watches() == 1
