"""One kind kept differently in different namespaces: what is asked for, what is stored, and what a read may assume."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from kaito.runtime.cache import ALL_NAMESPACES, Cache, Cached, NamespaceOptions, UnreadableObject, View
from kaito.runtime.client import Api, Client, MergePatch
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import ConfigurationError, UndeclaredNamespace
from kaito.runtime.kinds import ConfigMap, Namespace, Node, Pod
from kaito.runtime.meta import ObjectKey, ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

WIDE = {"web": NamespaceOptions(labels="tier=front"), "jobs": NamespaceOptions(labels=""), "": NamespaceOptions()}


@asynccontextmanager
async def running(world: World, *kinds: Cached, namespaces: tuple[str, ...] = ()) -> AsyncGenerator[Cache]:
    cache = Cache(world.transport(), kinds, clock=LoopClock(), namespaces=namespaces)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(60)
        yield cache


def config_map(name: str, namespace: str, labels: Mapping[str, str] | None = None, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=dict(labels or {})), data=data)


@pytest.fixture
async def places(world: World) -> World:
    """Three namespaces, each with a front and a back."""
    for place in ("web", "jobs", "other"):
        world.put(Namespace(metadata=ObjectMeta(name=place)))
        for tier in ("front", "back"):
            world.put(config_map(tier, place, {"tier": tier}, text=tier, secret="x"))
    return world


def held(cache: Cache, **selection: Any) -> set[str]:
    return {str(found.key) for found in cache.list(ConfigMap, **selection) if "tier" in found.labels}


async def test_each_namespace_has_its_selector_and_the_rest_is_one_informer_without_them(places: World) -> None:
    async with running(places, Cached(ConfigMap, labels="tier=back", namespaces=WIDE)) as cache:
        assert held(cache) == {"web/front", "jobs/front", "jobs/back", "other/back"}
        assert held(cache, namespace="web") == {"web/front"}
        assert held(cache, namespace="other") == {"other/back"}
        assert cache.get(ConfigMap, ObjectKey("web", "back")) is None
        assert cache.get(ConfigMap, ObjectKey("other", "back")) is not None
        requested = [(request.path, dict(request.query)) for request in places.requests]
        assert {(path, query.get("labelSelector"), query.get("fieldSelector")) for path, query in requested} == {
            ("/api/v1/namespaces/web/configmaps", "tier=front", None),
            ("/api/v1/namespaces/jobs/configmaps", None, None),
            ("/api/v1/configmaps", "tier=back", "metadata.namespace!=web,metadata.namespace!=jobs"),
        }


async def test_changes_reach_the_informer_of_their_namespace(places: World) -> None:
    received: list[str] = []
    async with running(places, Cached(ConfigMap, labels="tier=back", namespaces=WIDE)) as cache:
        cache.informer(ConfigMap).subscribe(lambda event: received.append(str(event.key)), name="test")
        await places.advance(1)
        received.clear()
        for place in ("web", "other"):
            places.patch(ConfigMap, "front", {"data": {"text": "new"}}, namespace=place)
            places.patch(ConfigMap, "back", {"metadata": {"labels": {"tier": "front"}}}, namespace=place)
        await places.advance(1)
        assert sorted(received) == ["other/back", "web/back", "web/front"]
        assert held(cache) == {"web/front", "web/back", "jobs/front", "jobs/back"}


async def test_own_writes_are_waited_for_where_they_belong(places: World) -> None:
    async with running(places, Cached(ConfigMap, namespaces=WIDE)) as cache:
        api = Api(Client(places.transport(), field_manager="test"), cache)
        places.lag(ConfigMap, 0.5)
        for place in ("web", "jobs", "other"):
            await api.create(config_map("mine", place, {"tier": "front"}))
            assert (await api.get(ConfigMap, "mine", place)).namespace == place
        assert len([found for found in await api.list(ConfigMap) if found.name == "mine"]) == 3
        places.clear_requests()

        # Out of the selector of "web": read live at once, and the list requests what the informers follow.
        back = await api.get(ConfigMap, "mine", "web")
        await api.patch(back, MergePatch({"metadata": {"labels": {"tier": "back"}}}))
        assert (await api.get(ConfigMap, "mine", "web")).labels == {"tier": "back"}
        assert [found.name for found in await api.list(ConfigMap, namespace="web")] == ["front"]


async def test_a_list_read_live_asks_each_namespace_its_own_question(places: World) -> None:
    async with running(places, Cached(ConfigMap, labels="tier=back", namespaces=WIDE)) as cache:
        api = Api(Client(places.transport(), field_manager="test"), cache)
        places.lag(ConfigMap, 10)
        await api.create(config_map("mine", "jobs"))
        places.clear_requests()
        found = {str(each.key) for each in await api.list(ConfigMap) if each.name in {"mine", "front", "back"}}
        assert found == {"web/front", "jobs/front", "jobs/back", "jobs/mine", "other/back"}
        assert places.count("list", ConfigMap) == 3


async def test_paths_are_dropped_by_namespace_and_predicates_know(places: World) -> None:
    cached = Cached(ConfigMap, namespaces={"web": {"drop": []}, "jobs": {"drop": ["data.secret"]}})
    assert cached.keeps(("data", "text"))
    assert not cached.keeps(("data", "secret"))
    async with running(places, cached) as cache:
        view = View(cache)
        assert view.get(ConfigMap, "front", "web").data == {"text": "front", "secret": "x"}
        assert view.get(ConfigMap, "front", "jobs").data == {"text": "front"}
        with pytest.raises(UndeclaredNamespace, match="keeps only web, jobs"):
            view.find(ConfigMap, "front", "other")


async def test_what_a_kind_leaves_open_the_cache_answers(places: World) -> None:
    everywhere = Cached(
        Resource, labels="tier=back", drop=["data.secret"], namespaces={"web": {"labels": "tier=front"}, "jobs": {}}
    )
    kinds = [
        Cached(ConfigMap),
        everywhere,
        Cached(Pod, labels="", namespaces=ALL_NAMESPACES),
        Cached(Node),
    ]
    async with running(places, *kinds, namespaces=("other",)) as cache:
        assert held(cache) == {"web/front", "jobs/back"}
        assert cache.list(ConfigMap, namespace="web")[0].data == {"text": "front"}
        assert not cache.declares(Resource)
        assert {(row.kind, row.namespace) for row in cache.health()} == {
            ("ConfigMap", "web"),
            ("ConfigMap", "jobs"),
            ("Pod", ""),
            ("Node", ""),
        }
        late = cache.acquire(Cached(Namespace, labels={}))
        assert [kept.labels for kept in late.informer.declaration.resolved] == [""]


@pytest.mark.parametrize(
    ("specific", "kind", "namespace_default", "default", "decided"),
    [
        ("a", "b", "c", "d", "a"),
        (None, "b", "c", "d", "b"),
        (None, None, "c", "d", "c"),
        (None, None, None, "d", "d"),
        (None, None, None, None, ""),
        ("", "b", "c", "d", ""),
        (None, "", "c", "d", ""),
        (None, None, "", "d", ""),
    ],
)
def test_the_nearest_answer_counts_and_empty_is_an_answer(
    specific: str | None, kind: str | None, namespace_default: str | None, default: str | None, decided: str
) -> None:
    defaults = Cached(
        Resource,
        labels=default,
        fields=default,
        namespaces={"n": {"labels": namespace_default, "fields": namespace_default}},
    )
    cached = Cached(Pod, labels=kind, fields=kind, namespaces={"n": {"labels": specific, "fields": specific}})
    (kept,) = cached.with_defaults(defaults, ()).resolved
    assert (kept.labels, kept.fields) == (decided, decided)
    assert kept.drop == (("metadata", "managedFields"),)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"namespaces": "web"}, "a list of names"),
        ({"namespaces": {"web": {"label": "a"}}}, "unknown options \\['label'\\]"),
        ({"namespaces": {"web": {"fields": "metadata.namespace=jobs"}}}, "name another, 'jobs'"),
        ({"namespaces": {"web": {"drop": ["metadata.uid"]}}}, "identity"),
        ({"namespaces": {"web": {}, "jobs": {}}, "fields": "metadata.namespace=web"}, "different namespaces"),
        ({"relist": -1}, "must not be negative"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Cached(ConfigMap, **options)


@pytest.mark.parametrize(
    ("kinds", "complaint"),
    [
        ([Cached(Resource), Cached(Resource)], "once, before other kinds"),
        ([Cached(Node), Cached(Node, namespaces={"": {"labels": "a"}}), Cached(Node, labels="b")], "contradict"),
        ([Cached(ConfigMap, namespaces={"a": {}}), Cached(ConfigMap, namespaces={"a": {"labels": "b"}})], "contradict"),
    ],
)
def test_declarations_that_do_not_fit_together_are_refused(world: World, kinds: list[Cached], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Cache(world.transport(), kinds)


def test_a_relist_is_every_kinds_unless_the_kind_says_otherwise(world: World) -> None:
    kinds = [Cached(Resource, relist=3600), Cached(ConfigMap), Cached(Pod, relist=60), Cached(Node, relist=0)]
    cache = Cache(world.transport(), kinds)
    assert [cache.informer(kind).declaration.relist_seconds for kind in (ConfigMap, Pod, Node)] == [3600, 60, 0]
    with pytest.raises(ConfigurationError, match="contradict"):
        Cache(world.transport(), [*kinds, Cached(Pod, relist=61)])


def test_defaults_have_no_form_and_no_indexes_and_keep_nothing(world: World) -> None:
    with pytest.raises(ConfigurationError, match="defaults of every kind"):
        Cached(Resource, only="metadata")
    with pytest.raises(ConfigurationError, match="cluster-scoped"):
        Cached(Node, namespaces={"web": {}})
    with pytest.raises(ConfigurationError, match="keeps nothing"):
        Cache(world.transport()).acquire(Cached(Resource))


def without_secret(document: dict[str, Any]) -> Mapping[str, Any]:
    """Keeps the length only."""
    return {**document, "data": {name: str(len(value)) for name, value in document.get("data", {}).items()}}


async def test_a_transform_decides_what_is_kept(places: World) -> None:
    cached = Cached(ConfigMap, transform=without_secret, namespaces={"web": {}, "jobs": {"transform": dict}})
    async with running(places, cached) as cache:
        view = View(cache)
        assert view.get(ConfigMap, "front", "web").data == {"text": "5", "secret": "1"}
        assert view.get(ConfigMap, "front", "jobs").data == {"text": "front", "secret": "x"}
        places.patch(ConfigMap, "front", {"data": {"text": "longer"}}, namespace="web")
        await places.advance(1)
        assert view.get(ConfigMap, "front", "web").data == {"text": "6", "secret": "1"}


def failing(document: dict[str, Any]) -> Mapping[str, Any]:
    """Fails on the front, renames the back."""
    metadata = document["metadata"]
    if metadata["name"] == "front":
        raise ValueError("secret of the user")
    return {**document, "metadata": {**metadata, "uid": "another"}} if metadata["name"] == "back" else document


async def test_an_object_its_transform_failed_on_is_known_and_not_readable(
    places: World,
) -> None:
    with structlog.testing.capture_logs() as logged:
        async with running(places, Cached(ConfigMap, transform=failing, namespaces=["web"])) as cache:
            for name in ("front", "back"):
                assert ObjectKey("web", name) in set(cache.keys(ConfigMap))
                with pytest.raises(UnreadableObject, match=f"web/{name}: the transform="):
                    cache.get(ConfigMap, ObjectKey("web", name))
            places.put(config_map("fine", "web"))
            await places.advance(1)
            assert cache.get(ConfigMap, ObjectKey("web", "fine")) is not None
    assert "secret of the user" not in str(logged)
    assert {line["object"] for line in logged if line["log_level"] == "error"} == {"web/front", "web/back"}
