"""Dependents: stages, readiness, pruning, plans; what is never touched, and what survives a crash."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.controller import Controller
from kaito.runtime.dependents import (
    DEPENDENTS_LABEL,
    Child,
    Dependents,
    DependentsResult,
    Stage,
    completed,
    has_condition,
    rolled_out,
)
from kaito.runtime.errors import AlreadyOwned, ConfigurationError
from kaito.runtime.kinds import (
    ConfigMap,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    Job,
    Secret,
    Service,
    StatefulSet,
)
from kaito.runtime.kinds.apps import DeploymentSpec
from kaito.runtime.kinds.core import ServiceSpec
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import CrashingTransport, CrashPoint, World, workloads


class SiteSpec(Model):
    replicas: int = 1
    files: list[str] = []
    public: bool = False


class SiteStatus(Model):
    conditions: list[Condition] = []


class Site(Resource, api="example.com/v1", kind="Site"):
    spec: SiteSpec = SiteSpec()
    status: SiteStatus = SiteStatus()


class Monitor(Resource, api="monitoring.example.com/v1", kind="Monitor"):
    spec: SiteSpec = SiteSpec()


MONITORS = "monitors.monitoring.example.com"

SITE = Dependents("site", ConfigMap, Deployment, Service)


def config(name: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name), data={"text": name})


def deployment(site: Site) -> Deployment:
    pod = {"metadata": {"labels": {"app": site.name}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    selector = {"matchLabels": {"app": site.name}}
    spec = DeploymentSpec.model_validate({"replicas": site.spec.replicas, "selector": selector, "template": pod})
    return Deployment(metadata=ObjectMeta(name=site.name), spec=spec)


def service(site: Site) -> Service:
    spec = ServiceSpec.model_validate({"selector": {"app": site.name}, "ports": [{"port": 80}]})
    return Service(metadata=ObjectMeta(name=site.name), spec=spec)


class Operator:
    """The reconcile function of the tests; keeps the last result."""

    def __init__(self, dependents: Dependents = SITE) -> None:
        self.dependents = dependents
        self.result: DependentsResult | None = None
        self.errors: list[Exception] = []

    async def __call__(self, request: Request[Site]) -> None:
        site = request.object
        try:
            result = self.result = await self.dependents.apply(
                request,
                [config(f"{site.name}-{name}") for name in site.spec.files],
                Child(deployment(site), ready=rolled_out),
                service(site) if site.spec.public else None,
            )
        except Exception as error:
            self.errors.append(error)
            raise
        async with request.status() as status:
            status.set_condition(result.condition())

    def controller(self, **options: Any) -> Controller[Site]:
        return self.dependents.watched_by(Controller(Site, self, **options))


def put(world: World, name: str = "a", **spec: Any) -> Site:
    return world.put(Site(metadata=ObjectMeta(name=name), spec=SiteSpec(**spec)))


def names(world: World, kind: type[Resource] = ConfigMap) -> list[str]:
    return [obj.name for obj in world.list(kind) if not obj.name.startswith("kube-")]


def copy_of(world: World, name: str, copy: str) -> ConfigMap:
    """Puts what looks like a dependent, with labels and owner references, but was not applied by the operator."""
    original = world.get(ConfigMap, name)
    metadata = ObjectMeta(name=copy, labels=original.labels, owner_references=original.metadata.owner_references)
    return world.put(ConfigMap(metadata=metadata, data={"precious": "yes"}))


@pytest.mark.conformance("dependents-1")
async def test_a_stage_waits_for_the_readiness_of_the_stages_before_it(world: World) -> None:
    operator = Operator()
    await world.start(*workloads(ready_after=20))
    async with world.manager(operator.controller()):
        put(world, replicas=2, files=["x", "y"], public=True)
        await world.settle()
        assert names(world) == ["a-x", "a-y"]
        assert names(world, Deployment) == ["a"]
        assert names(world, Service) == []
        condition = world.condition(Site, "a", "Ready")
        assert (condition.status, condition.reason) == ("False", "Progressing")
        assert condition.message == "Deployment default/a is not ready: 0 of 2 pods are available"
        assert operator.result is not None
        assert [str(child.phase) for child in operator.result.children] == ["ready", "ready", "not ready", "waiting"]
        await world.advance(30)
        assert names(world, Service) == ["a"]
        assert world.condition(Site, "a", "Ready").is_true
        world.clear_requests()
        world.patch(Site, "a", {"metadata": {"labels": {"x": "y"}}})
        await world.settle()
        assert [run.outcome for run in world.reconciles("default/a")] == ["success"]
        assert world.requests == []  # nothing differs: no request at all


@pytest.mark.conformance("dependents-2")
async def test_what_is_no_longer_declared_is_pruned_once_every_stage_was_applied(world: World) -> None:
    operator = Operator()
    await world.start(*workloads(ready_after=5))
    async with world.manager(operator.controller()):
        put(world, files=["x", "y"], public=True)
        await world.advance(10)
        assert names(world) == ["a-x", "a-y"]
        put(world, files=["y", "z"], replicas=3, public=True)
        await world.settle()
        assert names(world) == ["a-x", "a-y", "a-z"]  # the Deployment is not rolled out: nothing is deleted yet
        await world.advance(10)
        assert names(world) == ["a-y", "a-z"]
        put(world, files=[], public=False)
        await world.advance(10)
        assert names(world) == names(world, Service) == []
        assert operator.result is not None
        assert operator.result.ready


@pytest.mark.conformance("dependents-3")
async def test_foreign_objects_are_never_touched(world: World) -> None:
    operator = Operator()
    async with world.manager(operator.controller()):
        site = put(world, files=["x"])
        put(world, "b", files=["x"])
        await world.settle()
        copy_of(world, "a-x", "copied")
        owner = site.owner_reference()
        label = {DEPENDENTS_LABEL: "site"}
        foreign = {
            "labeled": ObjectMeta(name="labeled", labels=label),
            "owned": ObjectMeta(name="owned", owner_references=[owner]),
            "other-set": ObjectMeta(name="other-set", labels={DEPENDENTS_LABEL: "s2"}, owner_references=[owner]),
            "not-controller": ObjectMeta(
                name="not-controller",
                labels=label,
                owner_references=[owner.evolve(controller=None, block_owner_deletion=None)],
            ),
        }
        for metadata in foreign.values():
            world.put(ConfigMap(metadata=metadata))
        world.clear_requests()
        put(world, files=[])
        await world.advance(60)
        assert world.count("delete") == 1
        assert set(names(world)) == {*foreign, "b-x", "copied"}


@pytest.mark.conformance("dependents-3")
async def test_an_object_of_that_name_is_not_taken_over_unless_wanted(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="a-x"), data={"precious": "yes"}))
    operator = Operator()
    async with world.manager(operator.controller()):
        put(world, files=["x", "y"])
        await world.settle()
        assert isinstance(operator.errors[0], AlreadyOwned)
        assert "exists without a controller: delete it" in str(operator.errors[0])
        assert world.get(ConfigMap, "a-x").data == {"precious": "yes"}
        assert names(world) == ["a-x", "a-y"]  # the others of the stage were applied
        assert names(world, Deployment) == []  # later stages were not

    async def adopt(request: Request[Site]) -> None:
        await SITE.apply(request, Child(config("a-x"), adopt=True))

    async with world.manager(SITE.watched_by(Controller(Site, adopt))):
        await world.settle()
        assert world.get(ConfigMap, "a-x").data == {"precious": "yes", "text": "a-x"}
        assert names(world) == ["a-x"]  # a-y is no longer declared


@pytest.mark.conformance("dependents-4")
async def test_two_controllers_that_declare_one_child_are_refused_and_do_not_prune_each_others(world: World) -> None:
    second_set = Dependents("second", ConfigMap)
    errors: list[Exception] = []
    declare = True

    async def second(request: Request[Site]) -> None:
        try:
            await second_set.apply(request, [config("a-x"), config("mine")] if declare else [])
        except Exception as error:
            errors.append(error)
            raise

    await world.start(*workloads())
    operator = Operator()
    controllers = (operator.controller(), second_set.watched_by(Controller(Site, second, name="second")))
    async with world.manager(*controllers):
        put(world, files=["x"])
        await world.advance(60)
        (loser,) = {type(error) for error in [*errors, *operator.errors]}
        assert loser is AlreadyOwned
        assert "two sets of one owner declare it" in str([*errors, *operator.errors][0])
        before = world.get(ConfigMap, "a-x")
        await world.advance(300)
        assert world.get(ConfigMap, "a-x").metadata.resource_version == before.metadata.resource_version  # no fight
        declare = False
        world.patch(Site, "a", {"metadata": {"labels": {"now": "undeclared"}}})
        await world.advance(120)
        assert "a-x" in names(world)
        assert "mine" not in names(world)
        assert world.get(ConfigMap, "a-x").labels[DEPENDENTS_LABEL] == "site"


@pytest.mark.sample(3)
@pytest.mark.conformance("dependents-5")
@pytest.mark.parametrize("writes", range(1, 9))
async def test_a_crash_at_any_write_leaves_nothing_behind(world: World, writes: int) -> None:
    """There is no record between an apply and a deletion: the label is part of the object."""
    await world.start(*workloads())
    async with world.manager(Operator().controller()):
        put(world, files=["1", "2", "3"], public=True)
        await world.advance(5)
    put(world, files=["3", "4", "5"])
    crashing = CrashingTransport(world.transport(), CrashPoint(writes))
    manager = world.manager(Operator().controller(), transport=crashing)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.start())
        await asyncio.sleep(30)
        running.cancel()
    async with world.manager(Operator().controller()):
        await world.advance(120)
        assert names(world) == ["a-3", "a-4", "a-5"]
        assert names(world, Service) == []
        assert world.condition(Site, "a", "Ready").is_true


@pytest.mark.conformance("dependents-6")
async def test_an_optional_kind_that_is_not_served_or_disappears_is_skipped(world: World) -> None:
    dependents = Dependents("site", ConfigMap, optional=[Monitor])
    monitors = True
    results: list[DependentsResult] = []

    async def reconcile(request: Request[Site]) -> None:
        monitor = Monitor(metadata=ObjectMeta(name=request.key.name))
        results.append(await dependents.apply(request, monitor if monitors else None, config("last")))

    manager = world.manager(dependents.watched_by(Controller(Site, reconcile)))
    world.delete(CustomResourceDefinition, MONITORS)
    async with manager:
        put(world)
        await world.settle()
        assert [child.phase for child in results[-1].children] == ["skipped", "ready"]
        assert results[-1].ready
        world.install(Monitor)
        await world.advance(30)
        world.patch(Site, "a", {"metadata": {"labels": {"n": "1"}}})
        await world.settle()
        assert [child.phase for child in results[-1].children] == ["ready", "ready"]
        assert names(world, Monitor) == ["a"]
        world.delete(CustomResourceDefinition, MONITORS)
        monitors = False
        for number in range(3):
            world.patch(Site, "a", {"metadata": {"labels": {"n": f"later-{number}"}}})
            await world.advance(30)
        assert results[-1].ready
        assert results[-1].pruned == []


async def test_a_child_that_is_being_deleted_is_waited_for(world: World) -> None:
    results: list[DependentsResult] = []

    async def reconcile(request: Request[Site]) -> None:
        results.append(await SITE.apply(request, config("x"), config("y")))

    async with world.manager(SITE.watched_by(Controller(Site, reconcile))):
        put(world)
        await world.settle()
        world.patch(ConfigMap, "x", {"metadata": {"finalizers": ["example.com/hold"]}})
        world.delete(ConfigMap, "x")
        await world.settle()
        assert str(results[-1].children[0]) == "ConfigMap default/x is not ready: it is being deleted"
        assert results[-1].children[1].phase == "waiting"
        uid = world.get(ConfigMap, "x").uid
        world.patch(ConfigMap, "x", {"metadata": {"finalizers": []}})
        await world.settle()
        assert world.get(ConfigMap, "x").uid != uid
        assert results[-1].ready


async def test_a_dependent_that_changes_while_it_is_pruned_is_looked_at_again(world: World) -> None:
    files = ["x"]

    async def reconcile(request: Request[Site]) -> None:
        await SITE.apply(request, [config(name) for name in files])

    async with world.manager(SITE.watched_by(Controller(Site, reconcile))):
        put(world)
        await world.settle()
        files.clear()
        fault = world.fail_next("delete", ConfigMap, status=409)
        world.patch(Site, "a", {"metadata": {"labels": {"n": "1"}}})
        await world.settle()
        assert fault.hits == 1
        assert names(world) == ["x"]
        await world.advance(1)
        assert names(world) == []


@pytest.mark.conformance("dependents-7")
async def test_a_plan_shows_what_would_change_and_stores_nothing(world: World) -> None:
    wanted: list[Stage] = [config("x"), config("y")]
    everything = Dependents("site", ConfigMap, Secret, Deployment, optional=[Monitor])
    plans: list[str] = []
    planning = False

    async def reconcile(request: Request[Site]) -> None:
        if planning:
            plans.append(str(await everything.plan(request, *wanted)))
        else:
            await everything.apply(request, *wanted)

    manager = world.manager(everything.watched_by(Controller(Site, reconcile)))
    world.delete(CustomResourceDefinition, MONITORS)
    async with manager:
        secret = Secret(metadata=ObjectMeta(name="s")).with_values(password=b"one")
        wanted += [secret, deployment(put(world))]
        await world.settle()
        planning = True
        world.patch(Site, "a", {"metadata": {"labels": {"n": "1"}}})
        await world.settle()
        assert plans[-1] == "no changes"
        world.put(ConfigMap(metadata=ObjectMeta(name="taken")))
        before = {(obj.kind, obj.name): obj.metadata.resource_version for obj in _all(world)}
        changed = deployment(put(world, replicas=3))
        wanted[:] = [
            ConfigMap(metadata=ObjectMeta(name="x"), data={"text": "new", "more": "1"}),
            config("z"),
            config("taken"),
            Secret(metadata=ObjectMeta(name="s")).with_values(password=b"two"),
            changed,
            Monitor(metadata=ObjectMeta(name="m")),
        ]
        await world.settle()
        world.patch(Site, "a", {"metadata": {"labels": {"n": "2"}}})
        await world.settle()
        taken = "ConfigMap default/taken exists without a controller: delete it, rename the child, or declare it with "
        taken += "adopt=True"
        assert plans[-1].splitlines() == [
            "~ ConfigMap default/x",
            "    data.text: x -> new",
            "    data.more: <absent> -> 1",
            "+ ConfigMap default/z",
            f"! ConfigMap default/taken: {taken}",
            "~ Secret default/s",
            "    data.password: <hidden> -> <hidden>",
            "~ Deployment default/a",
            "    spec.replicas: 1 -> 3",
            "? Monitor default/m: its kind is not served",
            "- ConfigMap default/y",
        ]
        assert {(obj.kind, obj.name): obj.metadata.resource_version for obj in _all(world)} == before


async def test_a_plan_of_a_child_that_is_being_deleted(world: World) -> None:
    plans: list[str] = []

    async def reconcile(request: Request[Site]) -> None:
        plans.append(str(await SITE.plan(request, config("x"))))
        await SITE.apply(request, config("x"))

    async with world.manager(SITE.watched_by(Controller(Site, reconcile))):
        put(world)
        await world.settle()
        world.patch(ConfigMap, "x", {"metadata": {"finalizers": ["example.com/hold"]}})
        world.delete(ConfigMap, "x")
        await world.settle()
        assert plans[-1] == "+ ConfigMap default/x: once the present one is deleted"


async def test_a_required_kind_that_disappears_fails_its_child_only(world: World) -> None:
    dependents = Dependents("site", ConfigMap, Monitor)
    declared = [True]

    async def reconcile(request: Request[Site]) -> None:
        monitor = Monitor(metadata=ObjectMeta(name="m"))
        await dependents.apply(request, [config("x"), monitor if declared[0] else None], config("y"))

    async with world.manager(dependents.watched_by(Controller(Site, reconcile))) as manager:
        world.delete(CustomResourceDefinition, MONITORS)
        await world.advance(5)
        put(world)
        await world.advance(5)
        assert names(world) == ["x"]
        assert manager.metrics.value("kaito_runtime_failing_keys", controller="site") == 1
        declared[0] = False  # it cannot be pruned, and prevents nothing
        world.patch(Site, "a", {"metadata": {"labels": {"n": "1"}}})
        await world.advance(60)
        assert names(world) == ["x", "y"]
        assert manager.metrics.value("kaito_runtime_failing_keys", controller="site") == 0


@pytest.mark.conformance("dependents-4")
async def test_two_controllers_that_create_one_child_at_once_end_with_one_of_them(world: World) -> None:
    """Neither sees the other's child when it applies its own: the watch is late."""

    def applying(dependents: Dependents) -> Callable[[Request[Site]], Any]:
        async def reconcile(request: Request[Site]) -> None:
            await dependents.apply(request, config("x"))

        return reconcile

    sets = [Dependents(name, ConfigMap) for name in ("one", "two")]
    controllers = [each.watched_by(Controller(Site, applying(each), name=each.name)) for each in sets]
    async with world.manager(*controllers):
        lag = world.lag(ConfigMap, 1.5)
        put(world)
        await world.advance(10)
        world.heal(lag)
        await world.advance(60)
        label = world.get(ConfigMap, "x").labels[DEPENDENTS_LABEL]
        world.clear_requests()
        await world.advance(600)
        assert world.get(ConfigMap, "x").labels == {DEPENDENTS_LABEL: label}
        assert world.count("patch", ConfigMap) == world.count("delete", ConfigMap) == 0


def _all(world: World) -> Sequence[Resource]:
    return [*world.list(ConfigMap), *world.list(Secret), *world.list(Deployment)]


async def test_a_clean_up_deletes_in_reverse_order_and_leaves_foreign_objects(world: World) -> None:
    dependents = Dependents("site", ConfigMap, Secret)
    order: list[str] = []

    async def reconcile(request: Request[Site]) -> None:
        await dependents.apply(request, config("x"), Secret(metadata=ObjectMeta(name="s")))

    async def clean_up(request: Request[Site]) -> Again | None:
        left = await dependents.delete(request)
        order.append(", ".join(str(key) for key in left))
        return Again(1, "dependents are being deleted") if left else None

    controller = dependents.watched_by(Controller(Site, reconcile)).finalizes("example.com/order", clean_up)
    async with world.manager(controller):
        put(world)
        await world.settle()
        copy_of(world, "x", "copied")
        world.patch(Secret, "s", {"metadata": {"finalizers": ["example.com/hold"]}})
        world.delete(Site, "a")
        await world.advance(5)
        assert set(order) == {"default/s"}
        assert names(world) == ["copied", "x"]
        world.patch(Secret, "s", {"metadata": {"finalizers": []}})
        await world.advance(5)
        assert world.find(Site, "a") is None
        assert order[-1] == ""
        assert names(world) == []


async def test_pruning_needs_no_more_than_the_usual_permissions(world: World) -> None:
    await world.start(*workloads())
    async with world.manager(Operator().controller()):
        put(world, files=["x"])
        await world.advance(5)
        put(world)
        await world.advance(5)
    rules = {(rule.resources[0]): set(rule.verbs) for rule in world.rules_needed()}
    assert rules["configmaps"] == {"get", "list", "watch", "create", "patch", "delete"}


def ready_of(child: Child[Any]) -> bool | str:
    return child.ready(child.object)


@pytest.mark.parametrize(
    ("kind", "spec", "status", "expected"),
    [
        (Deployment, {"replicas": 2}, {"observedGeneration": 0}, "its controller has not observed the change"),
        (Deployment, {"replicas": 2}, {"observedGeneration": 1, "updatedReplicas": 1}, "1 of 2 pods are updated"),
        (StatefulSet, {}, {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
        (StatefulSet, {"replicas": 0}, {"observedGeneration": 1}, True),
        (
            DaemonSet,
            {},
            {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2},
            "2 of 3 pods are available",
        ),
    ],
)
def test_rolled_out(kind: type[Any], spec: Any, status: Any, expected: bool | str) -> None:
    obj = kind.model_validate({"metadata": {"name": "a", "generation": 1}, "spec": spec, "status": status})
    assert rolled_out(obj) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "the Job has not completed"), (["Complete"], True), (["Failed"], "the Job has failed")],
)
def test_completed(conditions: list[str], expected: bool | str) -> None:
    listed = [{"type": each, "status": "True"} for each in conditions]
    assert completed(Job.model_validate({"metadata": {"name": "j"}, "status": {"conditions": listed}})) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, "Ready is Unknown"),
        (Condition(type="Ready", status="True", observed_generation=1), "Ready is of an earlier generation"),
        (Condition(type="Ready", status="True", observed_generation=2), True),
        (Condition(type="Ready", status="False", message="no"), "Ready is False: no"),
    ],
)
def test_has_condition(condition: Condition | None, expected: bool | str) -> None:
    status = SiteStatus(conditions=[condition] if condition is not None else [])
    site = Site(metadata=ObjectMeta(name="a", generation=2), status=status)
    assert has_condition("Ready")(site) == expected


async def _apply(world: World, *stages: Any) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        site = put(world)
        await SITE.apply(Request(key=site.key, object=site, api=manager.api), *stages)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((Secret(metadata=ObjectMeta(name="s")),), "add Secret to its kinds"),
        ((config("x"), config("x")), "ConfigMap default/x is declared twice"),
        ((ConfigMap(),), "has no name"),
        (("x",), "a dependent is an object or a Child"),
        (([[config("x")]],), "a stage is a list of objects"),
        ((42,), "not 42"),
    ],
)
async def test_wrong_children_are_refused(world: World, stages: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await _apply(world, *stages)
    assert names(world) == []


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Dependents("no spaces", ConfigMap), "value of a label"),
        (lambda: Dependents("x"), "each kind of a dependent once"),
        (lambda: Dependents("x", ConfigMap, optional=[ConfigMap]), "each kind of a dependent once"),
    ],
)
def test_wrong_declarations_are_refused(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declare()
