"""A controller that cannot work is refused when it is built, in words that say what to do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kaito.runtime.controller import Controller, label_key
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Node, Pod
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import Resource
from kaito.runtime.reconcile import Again, Request, Tick
from kaito.runtime.workqueue import Backoff, ExponentialLimiter


async def converge(request: Request[ConfigMap]) -> Again | None:
    return None


async def tick(tick: Tick) -> Again | None:
    return None


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
        (lambda: build(NoKind, converge), "subclass Resource with api= and kind="),
        (lambda: build("ConfigMap", converge), "is not a kind"),
        (lambda: build(ConfigMap, converge, workers=0), "at least 1"),
        (lambda: build(ConfigMap, converge, deadline=0), "use None for no limit"),
        (lambda: build(ConfigMap, converge, name="Con Trol"), "lower case"),
        (lambda: build(ConfigMap, converge, spacing=-1), "spacing"),
        (lambda: build(ConfigMap, converge, backoff=Backoff(), limiter=ExponentialLimiter()), "not both"),
        (lambda: build(ConfigMap, converge).owns(Deployment).owns(Deployment), "owns Deployment twice"),
        (lambda: build(ConfigMap, converge).owns(Node), "cannot own Node"),
        (lambda: build(ConfigMap, converge).watches(Pod, to=None), "needs a function"),  # type: ignore[arg-type]
        (lambda: build(ConfigMap, converge).finalizes("noslash", converge), "domain/name"),
        (lambda: build(ConfigMap, converge).finalizes("a.b/c", converge).finalizes("a.b/c", converge), "twice"),
        (lambda: build(ConfigMap, converge).finalizes("a.b/c", plain), "cleanup of finalizer a.b/c"),  # type: ignore[arg-type]
        (lambda: Controller.every(0, tick, name="t"), "not a period"),
        (lambda: Controller.every(5, plain, name="t"), "not an async function"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_at_construction(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="worker"):
        build(ConfigMap, converge, worker=3)


@pytest.mark.parametrize("function", [converge, Callee(), Callee().method, partial(two, more=1)])
def test_every_kind_of_async_callable_is_welcome(function: Any) -> None:
    assert build(ConfigMap, function).reconcile is function


def test_the_name_is_the_kind_in_lower_case() -> None:
    assert build(ConfigMap, converge).name == "configmap"


def test_a_cluster_scoped_kind_may_own_namespaced_ones() -> None:
    async def converge_namespace(request: Request[Namespace]) -> Again | None:
        return None

    controller = Controller(Namespace, converge_namespace).owns(ConfigMap).watches(Node, to=label_key("n"))
    assert [kind.kind for kind in controller.kinds] == ["Namespace", "ConfigMap", "Node"]


@pytest.mark.conformance(44)
def test_two_controllers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two controllers are named 'configmap'"):
        Manager(Settings(), controllers=[build(ConfigMap, converge), build(ConfigMap, converge)])


@pytest.mark.conformance(44)
def test_the_same_kind_twice_is_fine_under_two_names() -> None:
    Manager(Settings(), controllers=[build(ConfigMap, converge), build(ConfigMap, converge, name="other")])


def test_a_kind_cannot_be_cached_and_live() -> None:
    with pytest.raises(ConfigurationError, match="ConfigMap is cached"):
        Manager(Settings(), controllers=[build(ConfigMap, converge)], live=[ConfigMap])


def test_a_manager_takes_controllers_and_runnables_only() -> None:
    with pytest.raises(ConfigurationError, match="controllers= takes"):
        Manager(Settings(), controllers=[converge])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="a runnable has a name"):
        Manager(Settings(), runnables=[converge])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
