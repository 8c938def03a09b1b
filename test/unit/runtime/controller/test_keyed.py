"""Controllers whose keys are the user's values."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kaito.runtime.cache import Cached, View
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError, Terminal
from kaito.runtime.handler import KeyMapper
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.manager import Cluster, Manager
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Again, KeyedRequest, PeriodicRequest, Request
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff, ExponentialLimiter


@dataclass(frozen=True)
class Tenant:
    name: str


@dataclass(frozen=True)
class Place:
    cluster: str
    key: ObjectKey


@dataclass
class Mutable:
    name: str


def config(name: str, tenant: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, labels={"tenant": tenant}))


def tenant_of(obj: ConfigMap | Secret, view: View) -> Tenant | None:
    return Tenant(obj.labels["tenant"]) if "tenant" in obj.labels else None


class Visits:
    def __init__(self) -> None:
        self.reports: list[str] = []
        self.running = 0

    async def __call__(self, visit: KeyedRequest[Tenant]) -> Again | None:
        self.running += 1
        assert self.running == 1
        of_tenant = await visit.api.list(ConfigMap, labels={"tenant": visit.key.name})
        self.reports.append(f"{visit.key.name}: {', '.join(each.name for each in of_tenant)}")
        await asyncio.sleep(1)
        self.running -= 1
        return None


async def nothing(visit: KeyedRequest[Any]) -> Again | None:
    return None


async def test_equal_keys_are_one_run_and_objects_without_a_key_are_none(world: World) -> None:
    visits = Visits()
    controller = Controller.keyed(Tenant, visits, name="tenants").watches(ConfigMap, to=tenant_of)
    controller.watches(Secret, to=lambda secret, view: [Tenant("red"), Tenant("blue")])
    for name, tenant in (("a", "red"), ("b", "red"), ("c", "blue")):
        world.put(config(name, tenant))
    world.put(ConfigMap(metadata=ObjectMeta(name="unlabeled")))
    async with world.manager(controller) as manager:
        await world.settle()
        assert sorted(visits.reports) == ["blue: c", "red: a, b"]
        visits.reports.clear()
        world.put(config("c", "red"))  # moved: both tenants are concerned
        await world.settle()
        assert sorted(visits.reports) == ["blue: ", "red: a, b, c"]
        visits.reports.clear()
        world.put(Secret(metadata=ObjectMeta(name="s")))
        await world.settle()
        assert sorted(visits.reports) == ["blue: ", "red: a, b, c"]
        assert manager.metrics.value("controller_runtime_reconcile_total", controller="tenants", result="success") == 6


async def test_outcomes_are_those_of_every_controller(world: World) -> None:
    attempts: list[tuple[int, float]] = []

    async def fail_then_stop(visit: KeyedRequest[Tenant]) -> Again | None:
        attempts.append((visit.attempt, asyncio.get_running_loop().time()))
        if len(attempts) == 1:
            raise OSError("once")
        if len(attempts) == 2:
            return Again(30, "look again")
        raise Terminal("enough")

    controller = Controller.keyed(
        Tenant, fail_then_stop, name="t", backoff=Backoff(base=1, cap=1, jitter=False), deadline=5
    ).watches(ConfigMap, to=tenant_of)
    world.put(config("a", "red"))
    async with world.manager(controller):
        await world.advance(1000)
    assert attempts == [(1, 0), (2, 1), (1, 31)]


async def test_keys_may_name_a_cluster(world: World) -> None:
    away = World(seed=2)
    member = Cluster("member", transport=away.transport())
    seen: list[Place] = []

    async def visit_place(visit: KeyedRequest[Place]) -> Again | None:
        seen.append(visit.key)
        api = member.api if visit.key.cluster else visit.api
        assert await api.find(ConfigMap, visit.key.key.name, visit.key.key.namespace) is not None
        return None

    def place_in(cluster: str) -> KeyMapper[ConfigMap, Place]:
        return lambda obj, view: Place(cluster, obj.key)

    controller = (
        Controller.keyed(Place, visit_place, name="places")
        .watches(ConfigMap, to=place_in(""))
        .watches(ConfigMap, to=place_in("member"), cluster=member)
    )
    world.put(config("a", "x"))
    away.put(config("a", "x"))
    async with world.manager(controller, clusters=[member]):
        await world.settle()
    assert sorted(seen, key=lambda place: place.cluster) == [
        Place("", ObjectKey("default", "a")),
        Place("member", ObjectKey("default", "a")),
    ]


async def test_a_mapper_that_names_something_else_is_told_so(world: World) -> None:
    controller = Controller.keyed(Tenant, nothing, name="tenants")
    controller.watches(ConfigMap, to=lambda obj, view: obj.key)  # type: ignore[arg-type,return-value] # pyright: ignore[reportArgumentType] -- the point
    world.put(config("a", "red"))
    async with world.manager(controller) as manager:
        await asyncio.sleep(1)
        stats = {each.kind: each for each in manager.cache.stats()}
    assert stats["ConfigMap"].handler_errors["tenants.watches-0"] >= 1


async def request(request: Request[ConfigMap]) -> Again | None:
    return None


async def tick(tick: PeriodicRequest) -> Again | None:
    return None


def keyed(*args: Any, **options: Any) -> Any:
    return Controller.keyed(*args, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keyed(ConfigMap, nothing, name="k"), r"ConfigMap is a kind: write Controller\(ConfigMap"),
        (lambda: keyed(Mutable, nothing, name="k"), r"not hashable: @dataclass\(frozen=True\)"),
        (lambda: keyed(Tenant("a"), nothing, name="k"), "the key must be a type"),
        (lambda: keyed(Tenant, request, name="k"), r"takes a KeyedRequest, .* annotated with Request\[ConfigMap\]"),
        (lambda: keyed(Tenant, tick, name="k"), "takes a KeyedRequest, .* annotated with PeriodicRequest"),
        (lambda: keyed(Tenant, nothing, name="k", workers=0), "workers=0"),
        (lambda: keyed(Tenant, nothing, name="K"), "lower case"),
        (lambda: keyed(Tenant, nothing, name="k", cache=[ConfigMap]), r"write Cached\(ConfigMap\)"),
        (
            lambda: keyed(Tenant, nothing, name="k", backoff=Backoff(), limiter=ExponentialLimiter()),
            "not both",
        ),
        (lambda: keyed(Tenant, nothing, name="k").watches(ConfigMap, to=None), "needs a function"),
        (
            lambda: keyed(Tenant, nothing, name="k", cache=[Cached(Secret)]).watches(
                Secret, to=tenant_of, only="metadata"
            ),
            "contradict",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_construction(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


async def test_a_keyed_controller_that_runs_takes_no_more_watches(world: World) -> None:
    controller = keyed(Tenant, nothing, name="tenants").watches(ConfigMap, to=tenant_of)
    async with world.manager(controller):
        with pytest.raises(ConfigurationError, match="runs already"):
            controller.watches(Secret, to=tenant_of)


def test_a_keyed_controller_that_could_never_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="watches nothing and would never run"):
        Manager(controllers=[keyed(Tenant, nothing, name="tenants")])
