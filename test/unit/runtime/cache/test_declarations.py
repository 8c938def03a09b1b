"""Declaring what to keep: contradictions are found at construction; informers are shared, and come and go."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kaito.runtime.cache import ALL_NAMESPACES, Cache, Cached, Index
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, InvariantError, UndeclaredKind, UnreadableObject
from kaito.runtime.kinds import ConfigMap, Node, Pod, Secret
from kaito.runtime.meta import LabelSelector, LabelSelectorRequirement, ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World, pod
from kaito.runtime.testing.scripted import ScriptedTransport, status

by_node = Index(Pod, lambda pod: [pod.spec.node_name or ""], name="by-node")
by_ip = Index(Pod, lambda pod: [pod.status.pod_ip or ""], name="by-ip")


class Nameless(Resource):
    """A kind without a name."""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": Node, "namespaces": ["a"]}, "cluster-scoped"),
        ({"kind": Pod, "namespaces": ["", "a"]}, "whole cluster and single namespaces"),
        ({"kind": ConfigMap, "indexes": [by_node]}, "index of another kind"),
        ({"kind": Pod, "indexes": [by_node, Index(Pod, lambda _: [], name="by-node")]}, "two indexes"),
        ({"kind": Pod, "drop": ["spec..["]}, "not a field path"),
        ({"kind": Pod, "drop": ["metadata.name"]}, "identity"),
        ({"kind": Pod, "drop": ["metadata"]}, "identity"),
        ({"kind": Nameless}, "has no kind"),
        ({"kind": Pod, "namespaces": ["a"], "fields": "metadata.namespace=b"}, "different namespaces"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Cached(options.pop("kind"), **options)


def test_an_index_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="needs a name"):
        Index(Pod, lambda _: [], name="")


def test_selectors_in_every_form() -> None:
    selector = LabelSelector(match_expressions=[LabelSelectorRequirement(key="a", operator="Exists")])
    assert [
        Cached(Pod, labels=form).resolved[0].labels for form in (None, "a,b=c", {"b": "c", "a": "x"}, selector)
    ] == [
        "",
        "a,b=c",
        "a=x,b=c",
        "a",
    ]


def test_a_field_selector_for_a_namespace_becomes_a_namespace() -> None:
    cached = Cached(Pod, fields="metadata.namespace=gpu,status.phase=Running")
    assert [(kept.namespace, kept.fields) for kept in cached.resolved] == [("gpu", "status.phase=Running")]


def make(*kinds: Cached) -> Cache:
    return Cache(ScriptedTransport(), kinds)


async def test_declarations_of_one_kind_add_up_when_they_agree() -> None:
    cache = make(Cached(Pod), Cached(Pod, labels="app", indexes=[by_node]), Cached(Pod), Cached(Pod, indexes=[by_ip]))
    informer = cache.informer(Pod)
    assert [kept.labels for kept in informer.declaration.resolved] == ["app"]
    assert informer.declaration.indexes == (by_node, by_ip)


@pytest.mark.parametrize(
    "other",
    [
        Cached(Pod, labels="app=other"),
        Cached(Pod, only="metadata"),
        Cached(Pod, labels="app", only="metadata"),
        Cached(Pod, labels="app", namespaces=["a"]),
    ],
)
async def test_declarations_that_contradict_each_other_are_refused(other: Cached) -> None:
    with pytest.raises(ConfigurationError, match="contradict each other"):
        make(Cached(Pod, labels="app"), other)


async def test_all_namespaces_contradicts_some() -> None:
    with pytest.raises(ConfigurationError, match="contradict each other"):
        make(Cached(Pod, namespaces=["a"]), Cached(Pod, namespaces=ALL_NAMESPACES))


@asynccontextmanager
async def running(world: World, *kinds: Cached) -> AsyncGenerator[Cache]:
    cache = Cache(world.transport(), kinds, clock=LoopClock())
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(10)
        yield cache


async def test_a_declaration_does_not_pull_an_informer_from_under_its_users(world: World) -> None:
    cache = Cache(world.transport(), clock=LoopClock())
    hold = cache.acquire(Pod)
    cache.declare(Cached(Pod))
    with pytest.raises(ConfigurationError, match="in use already"):
        cache.declare(Cached(Pod, labels="app"))
    assert cache.informer(Pod) is hold.informer


async def test_informers_are_shared_and_stop_with_the_last_share(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="one")))
    async with running(world, Cached(Secret)) as cache:
        first = cache.acquire(ConfigMap)
        second = cache.acquire(Cached(ConfigMap))
        assert first.informer is second.informer
        await first.informer.wait_synced()
        assert [found.name for found in cache.list(ConfigMap) if found.name == "one"] == ["one"]
        assert world.count("watch", ConfigMap) == 1

        first.release()
        first.release()
        assert cache.declares(ConfigMap)
        second.release()
        assert not cache.declares(ConfigMap)
        with pytest.raises(UndeclaredKind):
            cache.list(ConfigMap)

        third = cache.acquire(ConfigMap)
        with pytest.raises(CacheNotSynced):
            cache.list(ConfigMap)
        await third.informer.wait_synced()
        assert world.count("watch", ConfigMap) == 2

        declared = cache.acquire(Secret)
        declared.release()
        assert cache.declares(Secret)


async def test_a_released_informer_closes_its_watch(world: World) -> None:
    transport = world.transport()
    cache = Cache(transport, [], clock=LoopClock())
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await asyncio.sleep(0)
        hold = cache.acquire(ConfigMap)
        await hold.informer.wait_synced()
        assert transport.open_streams == 1
        hold.release()
        await asyncio.sleep(0.1)
        assert transport.open_streams == 0


async def test_a_running_informer_is_not_widened_behind_its_users_backs(world: World) -> None:
    async with running(world, Cached(Pod)) as cache:
        with pytest.raises(ConfigurationError, match="already cached with a narrower declaration"):
            cache.acquire(Cached(Pod, labels="app"))
        with pytest.raises(ConfigurationError, match="already cached with a narrower declaration"):
            cache.acquire(Cached(Pod, indexes=[by_node]))
        await cache.add_index(by_node)
        cache.acquire(Cached(Pod, indexes=[by_node])).release()
        with pytest.raises(ConfigurationError, match="runs already"):
            cache.declare(Cached(Node))


@pytest.mark.virtual_time
async def test_starting_tells_which_kind_is_missing_and_the_message_of_the_server() -> None:
    denied = [status(403, "Forbidden", f"pods is forbidden: attempt {number}") for number in range(9)]
    cache = Cache(ScriptedTransport(*denied), [Cached(Pod)], clock=LoopClock(), streaming=False)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        with pytest.raises(CacheNotSynced, match=r"Pod: .*pods is forbidden"):
            await cache.wait_synced(5)
        assert not cache.synced


async def test_a_handler_that_finds_the_framework_broken_ends_the_cache(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="one")))
    cache = Cache(world.transport(), [Cached(ConfigMap)], clock=LoopClock())

    def broken(_: object) -> None:
        raise InvariantError("two workers hold one key")

    cache.informer(ConfigMap).subscribe(broken, name="broken")
    with pytest.raises(InvariantError, match="two workers"):
        await cache.run()


@pytest.mark.virtual_time
async def test_an_informer_that_ends_by_itself_ends_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(_: object) -> None:
        await asyncio.sleep(1)

    monkeypatch.setattr("kaito.runtime.cache.reflector.reflector.Reflector.run", ends)
    with pytest.raises(InvariantError, match="reflector of Pod ended"):
        await make(Cached(Pod)).run()


def declare(*args: Any, **options: Any) -> Cached:
    return Cached(*args, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: declare("Pod"), "takes a kind, not 'Pod'"),
        (lambda: declare(Pod(metadata=ObjectMeta(name="p"))), "pass the class Pod"),
        (lambda: declare(Pod, only="labels"), "not 'labels'"),
        (lambda: declare(Pod, indexes=by_node), r"write indexes=\[Index\(Pod"),
        (lambda: declare(Pod, indexes=["by-node"]), "takes Index objects, not 'by-node'"),
    ],
)
def test_what_is_no_declaration_is_told_so(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


async def test_an_index_function_that_returns_one_text_is_told_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    lettered = Index(Pod, lambda each: each.name, name="lettered")  # a text is a sequence of texts, letter by letter
    world.put(pod("abc"))
    async with running(world, Cached(Pod, indexes=[lettered])) as cache:
        with pytest.raises(UnreadableObject, match="could not be filed by index 'lettered'"):
            cache.list(Pod, index=lettered("abc"))
    assert "returned one text: return a list of texts" in capsys.readouterr().err
