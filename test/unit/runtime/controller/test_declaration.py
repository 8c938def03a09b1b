"""A controller that cannot work is refused when it is built, in words that say what to do."""

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import pytest

from kaito.runtime.cache import Cached, View
from kaito.runtime.controller import Controller, label_key
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import enqueue_self
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Node, Pod
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.predicate import Predicate, changed
from kaito.runtime.reconcile import Again, PeriodicRequest, Request
from kaito.runtime.source import Channel
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff, ExponentialLimiter


async def reconcile(request: Request[ConfigMap]) -> Again | None:
    return None


async def tick(tick: PeriodicRequest) -> Again | None:
    return None


async def another_kind(request: Request[Deployment]) -> Again | None:
    return None


async def any_kind(request: Request[Resource]) -> Again | None:
    return None


async def bare_object(config: ConfigMap) -> Again | None:
    return None


async def quoted(request: "Request[Deployment]") -> Again | None:
    return None


async def keys(obj: Resource, view: View) -> AsyncGenerator[ObjectKey]:
    yield obj.key


def one_argument(obj: Resource) -> None:
    return None


def mapper(obj: Resource, view: View) -> ObjectKey:
    return obj.key


def plain(request: Request[ConfigMap]) -> None:
    return None


async def two(request: Request[ConfigMap], more: int) -> Again | None:
    return None


class Callee:
    async def __call__(self, request: Request[ConfigMap]) -> Again | None:
        return None

    async def method(self, request: Request[ConfigMap]) -> Again | None:
        return None


class NoKind(Resource):
    """Forgot to say what it is."""


def build(*args: Any, **options: Any) -> Controller[Any]:
    return Controller(*args, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(ConfigMap, plain), "not an async function"),
        (lambda: build(ConfigMap, two), "exactly one argument"),
        (lambda: build(ConfigMap, None), "not an async function"),
        (lambda: build(NoKind, reconcile), "subclass Resource with api= and kind="),
        (lambda: build("ConfigMap", reconcile), "is not a kind"),
        (lambda: build(ConfigMap, reconcile, workers=0), "at least 1"),
        (lambda: build(ConfigMap, reconcile, deadline=0), "use None for no limit"),
        (lambda: build(ConfigMap, reconcile, name="Con Trol"), "lower case"),
        (lambda: build(ConfigMap, reconcile, spacing=-1), "spacing"),
        (lambda: build(ConfigMap, reconcile, backoff=Backoff(), limiter=ExponentialLimiter()), "not both"),
        (lambda: build(ConfigMap, reconcile).owns(Deployment).owns(Deployment), "owns Deployment twice"),
        (lambda: build(ConfigMap, reconcile).owns(Node), "cannot own Node"),
        (lambda: build(ConfigMap, reconcile).watches(Pod, to=None), "needs a function"),
        (lambda: build(ConfigMap, reconcile).finalizes("noslash", reconcile), "domain/name"),
        (lambda: build(ConfigMap, reconcile).finalizes("a.b/c", reconcile).finalizes("a.b/c", reconcile), "twice"),
        (lambda: build(ConfigMap, reconcile).finalizes("a.b/c", plain), "cleanup of finalizer a.b/c"),  # type: ignore[arg-type]
        (lambda: Controller.every(0, tick, name="t"), "period=0: more than 0 seconds"),
        (lambda: Controller.every(5, reconcile, name="t"), "takes a PeriodicRequest"),  # type: ignore[arg-type]
        (lambda: build(reconcile, ConfigMap), "is not a kind"),
        (lambda: build(ConfigMap(), reconcile), "give the class ConfigMap, not one of its objects"),
        (lambda: build(ConfigMap, Callee), "not the class Callee"),
        (lambda: build(ConfigMap, reconcile(None)), "without calling it"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, another_kind), r"takes a Request\[Deployment\], and .* reconciles ConfigMap"),
        (lambda: build(ConfigMap, quoted), r"takes a Request\[Deployment\]"),
        (lambda: build(ConfigMap, bare_object), r"gets a Request\[ConfigMap\], whose \.object is the ConfigMap"),
        (lambda: build(ConfigMap, tick), "PeriodicRequest is for controllers without a kind"),
        (lambda: build(ConfigMap, reconcile, workers="4"), "workers='4'"),
        (lambda: build(ConfigMap, reconcile, backoff=5), r"write backoff=Backoff\("),
        (lambda: build(ConfigMap, reconcile, limiter=Backoff()), "has not all of when, forget, failures"),
        (lambda: build(ConfigMap, plain), r"plain \(test_declaration\.py:\d+\) is not an async"),
        (lambda: build(ConfigMap, reconcile, workers=True), "workers=True"),
        (lambda: build(ConfigMap, reconcile, deadline="5m"), "deadline='5m' is not a number of seconds; use None"),
        (lambda: build(ConfigMap, reconcile, resync=-1), "resync=-1: 0 or more"),
        (lambda: build(ConfigMap, reconcile, sync_timeout=0), "sync_timeout=0: more than 0"),
        (lambda: build(ConfigMap, reconcile, when="generation"), r"write when=changed\('generation'\)"),
        (lambda: build(ConfigMap, reconcile, cache=[Pod]), r"write Cached\(Pod\), not Pod"),
        (lambda: build(ConfigMap, reconcile, cache=Cached(Pod)), r"write cache=\[Cached\(Pod\)\]"),
        (lambda: build(ConfigMap, reconcile).owns(Pod, when="status"), "is not a predicate"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, reconcile).watches(Pod), "to= .* or handler="),
        (lambda: build(ConfigMap, reconcile).watches(Pod, to=mapper, handler=enqueue_self), "to= .* or handler="),
        (lambda: build(ConfigMap, reconcile).watches(Pod, to=one_argument), r"\(obj, view\): too many positional"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, reconcile).watches(Pod, to=keys), "async generator: return a list"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, reconcile).watches(Pod, handler=mapper), r"\(event, queue, view\): too many"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, reconcile).receives("channel"), "takes a Channel, Polling, Inbound or Source"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: build(ConfigMap, reconcile).receives(mapper), r"write FunctionSource\(\.\.\.\)"),  # type: ignore[arg-type]
        (
            lambda: build(ConfigMap, reconcile).owns(Pod, labels="a=b").watches(Pod, to=mapper, only="metadata"),
            "contradict each other",
        ),
        (lambda: Controller.every(5, plain, name="t"), "not an async function"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_at_construction(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="worker"):
        build(ConfigMap, reconcile, worker=3)


@pytest.mark.parametrize("function", [reconcile, any_kind, Callee(), Callee().method, partial(two, more=1)])
def test_every_kind_of_async_callable_is_welcome(function: Any) -> None:
    assert build(ConfigMap, function).reconcile is function


def test_the_name_is_the_kind_in_lower_case() -> None:
    assert build(ConfigMap, reconcile).name == "configmap"


def test_a_cluster_scoped_kind_may_own_namespaced_ones() -> None:
    async def converge_namespace(request: Request[Namespace]) -> Again | None:
        return None

    controller = Controller(Namespace, converge_namespace).owns(ConfigMap).watches(Node, to=label_key("n"))
    assert [kind.kind for kind in controller.kinds] == ["Namespace", "ConfigMap", "Node"]


@pytest.mark.conformance(44)
def test_two_controllers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two controllers are named 'configmap'"):
        Manager(Settings(), controllers=[build(ConfigMap, reconcile), build(ConfigMap, reconcile)])


@pytest.mark.conformance(44)
def test_the_same_kind_twice_is_fine_under_two_names() -> None:
    Manager(Settings(), controllers=[build(ConfigMap, reconcile), build(ConfigMap, reconcile, name="other")])


def test_a_kind_cannot_be_cached_and_live() -> None:
    with pytest.raises(ConfigurationError, match=r"ConfigMap is cached \(controller configmap declares it\)"):
        Manager(Settings(), controllers=[build(ConfigMap, reconcile)], live=[ConfigMap])


def metadata_only(when: Predicate) -> Controller[ConfigMap]:
    return Controller(ConfigMap, reconcile).owns(Pod, only="metadata", when=when)


def test_a_predicate_may_look_at_what_is_kept() -> None:
    Manager(controllers=[metadata_only(changed("labels", "generation"))])


def make_manager(*args: Any, **options: Any) -> Manager:
    return Manager(*args, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_manager([1]), r"\[1\] is not Settings"),
        (lambda: make_manager(controllers=build(ConfigMap, reconcile)), r"takes a list of Controller\(\.\.\.\)"),
        (lambda: make_manager(lease="My Lease"), "lease='My Lease': lower case"),
        (lambda: make_manager(lease=True), "lease=True: lower case"),
        (
            lambda: make_manager(controllers=[metadata_only(changed("status.phase"))]),
            r"controller configmap: when=.*status\.phase.*, which controller configmap does not keep",
        ),
        (lambda: make_manager(cache=[Pod]), r"cache= takes Cached\(\.\.\.\)"),
        (lambda: make_manager(live=["Pod"]), "live= takes kinds"),
        (lambda: make_manager(clusters=["member"]), r"clusters= takes Cluster"),
    ],
)
def test_a_manager_says_what_belongs_where(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


async def test_a_controller_that_runs_takes_no_more_declarations(world: World) -> None:
    running = build(ConfigMap, reconcile)
    async with world.manager(running):
        changes: list[Callable[[], object]] = [
            lambda: running.owns(Pod),
            lambda: running.watches(Pod, to=mapper),
            lambda: running.finalizes("a.b/c", reconcile),
            lambda: running.receives(Channel(ConfigMap)),
        ]
        for change in changes:
            with pytest.raises(ConfigurationError, match=r"runs already: \w+\(\) would change nothing"):
                change()


def test_a_manager_takes_controllers_and_runnables_only() -> None:
    with pytest.raises(ConfigurationError, match="controllers= takes"):
        Manager(Settings(), controllers=[reconcile])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="a runnable has a name"):
        Manager(Settings(), runnables=[reconcile])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
