"""Reading the cache: what is declared is there, private to its reader, ordered and selectable; the rest is refused."""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from kaito.runtime.cache import Cache, Cached, Index, UnreadableObject, View
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, NotFound, UndeclaredKind, UndeclaredNamespace
from kaito.runtime.kinds import ConfigMap, Namespace, Node, Pod, Secret
from kaito.runtime.meta import LabelSelector, ObjectKey, ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

by_color = Index(ConfigMap, lambda found: [found.data["color"]] if "color" in found.data else [], name="by-color")


@asynccontextmanager
async def running(world: World, *kinds: Cached, namespaces: tuple[str, ...] = ()) -> AsyncGenerator[Cache]:
    cache = Cache(world.transport(), kinds, clock=LoopClock(), namespaces=namespaces)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(60)
        yield cache


def config_map(
    name: str, namespace: str = "default", *, labels: dict[str, str] | None = None, **data: str
) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}), data=data)


def namespace(name: str) -> Namespace:
    return Namespace(metadata=ObjectMeta(name=name))


async def test_what_the_server_has_is_read_from_memory_and_followed(world: World) -> None:
    world.put(config_map("one", color="red"))
    async with running(world, Cached(ConfigMap)) as cache:
        view = View(cache)
        assert view.get(ConfigMap, "one", "default").data == {"color": "red"}

        world.put(config_map("two", color="blue"))
        world.patch(ConfigMap, "one", {"data": {"color": "green"}})
        await world.advance(1)
        assert [(found.name, found.data["color"]) for found in view.list(ConfigMap, namespace="default")] == [
            ("one", "green"),
            ("two", "blue"),
        ]

        world.delete(ConfigMap, "one")
        await world.advance(1)
        assert view.find(ConfigMap, "one", "default") is None
        with pytest.raises(NotFound, match="ConfigMap default/one"):
            view.get(ConfigMap, "one", "default")


@pytest.mark.conformance(29)
async def test_an_undeclared_kind_is_refused_by_name(world: World) -> None:
    async with running(world, Cached(ConfigMap)) as cache:
        with pytest.raises(UndeclaredKind, match=r"Secret .*add Cached\(Secret\)"):
            cache.list(Secret)
        with pytest.raises(UndeclaredKind, match="Secret"):
            View(cache).find(Secret, "a", "default")
        assert not cache.declares(Secret)
        assert world.count(kind=Secret) == 0


@pytest.mark.conformance(29)
async def test_a_read_before_the_first_list_says_so(world: World) -> None:
    cache = Cache(world.transport(), [Cached(ConfigMap)])
    with pytest.raises(CacheNotSynced, match="ConfigMap: no answer yet"):
        cache.get(ConfigMap, ObjectKey("default", "a"))
    with pytest.raises(CacheNotSynced):
        cache.list(ConfigMap)


@pytest.mark.conformance(31)
async def test_whatever_a_reader_does_to_an_object_no_other_read_sees_it(world: World) -> None:
    world.put(config_map("one", labels={"app": "x"}, color="red"))
    async with running(world, Cached(ConfigMap)) as cache:
        read = View(cache).get(ConfigMap, "one", "default")
        read.data["color"] = "spoilt"
        read.labels["app"] = "spoilt"
        read.metadata.finalizers.append("spoilt")
        again = View(cache).get(ConfigMap, "one", "default")
        assert (again.data, again.labels, again.metadata.finalizers) == ({"color": "red"}, {"app": "x"}, [])
        assert [found.name for found in cache.list(ConfigMap, labels=LabelSelector(match_labels={"app": "x"}))] == [
            "one"
        ]


async def test_lists_are_ordered_and_selected_by_namespace_labels_owner_and_index(world: World) -> None:
    world.put(namespace("other"))
    owner = world.put(config_map("owner"))
    reference = owner.owner_reference()
    for name, place in (("b", "default"), ("a", "other"), ("a", "default")):
        child = config_map(name, place, labels={"tier": name}, color="red" if name == "a" else "blue")
        world.put(child.with_metadata(owner_references=[reference]) if place == "default" else child)
    async with running(world, Cached(ConfigMap, indexes=[by_color])) as cache:
        view = View(cache)

        def keys(**selection: object) -> list[str]:
            found = view.list(ConfigMap, **selection)  # type: ignore[arg-type]
            return [str(obj.key) for obj in found if obj.name in {"a", "b"}]

        assert keys() == ["default/a", "default/b", "other/a"]
        assert keys(namespace="default") == ["default/a", "default/b"]
        assert keys(namespace="nowhere") == []
        assert keys(labels={"tier": "a"}) == ["default/a", "other/a"]
        assert keys(owned_by=owner) == ["default/a", "default/b"]
        assert keys(owned_by=owner, index=by_color("blue")) == ["default/b"]
        assert keys(index=by_color("red")) == ["default/a", "other/a"]
        assert keys(index=by_color("red"), namespace="other") == ["other/a"]
        assert keys(index=by_color("yellow")) == []
        assert keys(owned_by=owner, namespace="other") == []

        world.patch(ConfigMap, "a", {"data": {"color": "blue"}, "metadata": {"ownerReferences": None}})
        await world.advance(1)
        assert keys(index=by_color("red")) == ["other/a"]
        assert keys(index=by_color("blue")) == ["default/a", "default/b"]
        assert keys(owned_by=owner) == ["default/b"]


@pytest.mark.conformance(30)
@pytest.mark.parametrize("seed", range(5))
async def test_an_index_answers_what_a_search_through_all_objects_would(world: World, seed: int) -> None:
    rng = random.Random(seed)
    words = ["", "a", "ab", "abc", "abd", "b", "ba", "a\uffff", "ab\U0010ffff", "z"]
    by_word = Index(ConfigMap, lambda found: found.data.get("words", "").split(","), name="by-word")

    def shuffled(name: str) -> ConfigMap:
        return config_map(name, words=",".join(rng.choices(words, k=rng.randrange(1, 4))))

    for number in range(20):
        world.put(shuffled(f"c{number}"))
    async with running(world, Cached(ConfigMap, indexes=[by_word])) as cache:
        for _ in range(10):
            for name in rng.sample([f"c{number}" for number in range(20)], 5):
                if cache.get(ConfigMap, ObjectKey("default", name)) is not None and rng.random() < 0.3:
                    world.delete(ConfigMap, name)
                else:
                    world.put(shuffled(name))
            await world.advance(1)
            chosen = rng.sample(words, rng.randrange(3))
            for question in (by_word(*chosen), by_word.notin(*chosen), by_word.prefix(*chosen)):
                found = [obj.name for obj in cache.list(ConfigMap, index=question)]
                assert found == [obj.name for obj in cache.list(ConfigMap) if question.matches(obj)]


def test_what_the_questions_to_an_index_mean() -> None:
    red, none = config_map("a", color="red"), config_map("b")
    for question, answer in (
        (by_color("red", "blue"), (True, False)),
        (by_color("blue"), (False, False)),
        (by_color(), (False, False)),
        (by_color.notin("red"), (False, True)),
        (by_color.notin("blue"), (True, True)),
        (by_color.prefix("r", "x"), (True, False)),
        (by_color.prefix(""), (True, False)),
    ):
        assert (question.matches(red), question.matches(none)) == answer


async def test_an_index_added_later_answers_completely(world: World) -> None:
    for number in range(300):
        world.put(config_map(f"c{number:03}", color="red" if number % 2 else "blue"))
    async with running(world, Cached(ConfigMap)) as cache:
        with pytest.raises(ConfigurationError, match="ConfigMap has no index 'by-color'"):
            cache.list(ConfigMap, index=by_color("red"))
        async with TaskScope("late") as scope:
            adding = scope.spawn(cache.add_index(by_color), name="add")
            world.put(config_map("c900", color="red"))
            world.delete(ConfigMap, "c001")
            await adding
        await world.advance(1)
        red = [found.name for found in cache.list(ConfigMap, index=by_color("red"))]
        assert len(red) == 150
        assert "c900" in red
        assert "c001" not in red
        await cache.add_index(by_color)
        with pytest.raises(ConfigurationError, match="two indexes are named 'by-color'"):
            await cache.add_index(Index(ConfigMap, lambda _: [], name="by-color"))


class Strict(Resource, api="v1", kind="ConfigMap"):
    """A config map whose data must be numbers."""

    data: dict[str, int]


async def test_an_object_that_does_not_fit_its_model_fails_alone_and_by_name(world: World) -> None:
    by_size = Index(Strict, lambda found: [str(found.data["size"])], name="by-size")
    world.put(config_map("good", size="3"))
    async with running(world, Cached(Strict, labels="app!=system", indexes=[by_size])) as cache:
        # The server's own config map in kube-system has no such data.
        assert cache.get(Strict, ObjectKey("default", "good")) is not None
        world.put(config_map("bad", size="three"))
        await world.advance(1)
        with pytest.raises(UnreadableObject, match=r"ConfigMap default/bad does not fit its model: data\.size"):
            cache.get(Strict, ObjectKey("default", "bad"))
        with pytest.raises(UnreadableObject, match="default/bad"):
            cache.list(Strict, index=by_size("3"))
        with pytest.raises(UnreadableObject, match="default/bad"):
            cache.list(Strict, namespace="default", unreadable="fail")
        found = cache.list(Strict, namespace="default")
        assert [each.name for each in found] == ["good"]
        assert [(error.key, error.resource_version != "") for error in found.unreadable] == [("default/bad", True)]
        assert ObjectKey("default", "bad") in set(cache.keys(Strict))
        world.delete(ConfigMap, "bad")
        await world.advance(1)
        assert [found.name for found in cache.list(Strict, namespace="default", index=by_size("3"))] == ["good"]


async def test_two_models_of_one_kind_share_the_memory(world: World) -> None:
    world.put(config_map("one", size="3"))
    async with running(world, Cached(ConfigMap)) as cache:
        assert cache.declares(Strict)
        found = cache.get(Strict, ObjectKey("default", "one"))
        assert found is not None
        assert found.data == {"size": 3}
        assert world.count("watch", ConfigMap) == 1


@pytest.mark.conformance(22)
async def test_an_object_that_leaves_the_selector_is_gone(world: World) -> None:
    world.put(config_map("one", labels={"app": "x"}))
    world.put(config_map("two"))
    async with running(world, Cached(ConfigMap, labels={"app": "x"})) as cache:
        received: list[str] = []
        cache.informer(ConfigMap).subscribe(lambda event: received.append(repr(event)), name="all")
        assert [found.name for found in cache.list(ConfigMap)] == ["one"]
        world.patch(ConfigMap, "one", {"metadata": {"labels": {"app": "y"}}})
        world.patch(ConfigMap, "two", {"metadata": {"labels": {"app": "x"}}})
        await world.advance(1)
        assert [found.name for found in cache.list(ConfigMap)] == ["two"]
        assert received == [
            "<create ConfigMap default/one initial>",
            "<delete ConfigMap default/one>",
            "<create ConfigMap default/two>",
        ]


async def test_one_informer_per_namespace_and_nothing_outside(world: World) -> None:
    for place in ("a", "b", "c"):
        world.put(namespace(place))
        world.put(config_map("one", place))
    async with running(world, Cached(ConfigMap, namespaces=["a", "b"])) as cache:
        assert [found.namespace for found in cache.list(ConfigMap)] == ["a", "b"]
        assert {row.namespace for row in cache.health()} == {"a", "b"}
        with pytest.raises(UndeclaredNamespace, match=r"ConfigMap in namespace 'c' .* keeps only a, b"):
            cache.get(ConfigMap, ObjectKey("c", "one"))
        with pytest.raises(UndeclaredNamespace):
            cache.list(ConfigMap, namespace="c")
        assert {requested.path for requested in world.requests} == {
            "/api/v1/namespaces/a/configmaps",
            "/api/v1/namespaces/b/configmaps",
        }


async def test_the_namespace_of_a_cluster_scoped_kind_means_nothing(world: World) -> None:
    world.put(Node(metadata=ObjectMeta(name="one")))
    async with running(world, Cached(Node)) as cache:
        view = View(cache)
        assert view.get(Node, "one", "default").name == "one"
        assert [found.name for found in view.list(Node, namespace="default")] == ["one"]


async def test_the_caches_namespaces_are_the_default(world: World) -> None:
    world.put(namespace("a"))
    world.put(config_map("one", "a"))
    world.put(config_map("two"))
    kinds = [
        Cached(ConfigMap),
        Cached(Node),
        Cached(Secret, namespaces=[""]),
        Cached(Pod, fields="metadata.namespace=z"),
    ]
    async with running(world, *kinds, namespaces=("a",)) as cache:
        assert [found.name for found in cache.list(ConfigMap)] == ["one"]
        assert {(row.kind, row.namespace) for row in cache.health()} == {
            ("ConfigMap", "a"),
            ("Node", ""),
            ("Secret", ""),
            ("Pod", "z"),
        }


async def test_dropped_paths_are_never_stored_and_bytes_are_counted(world: World) -> None:
    world.put(config_map("one", keep="x", large="y" * 10_000))
    async with running(world, Cached(ConfigMap, drop=["metadata.managedFields", "data.large"])) as cache:
        assert View(cache).get(ConfigMap, "one", "default").data == {"keep": "x"}
        (stats,) = cache.stats()
        assert stats.kind == "ConfigMap"
        assert stats.objects == len(cache.list(ConfigMap))
        assert 0 < stats.size < 5_000
        before = stats.size
        world.put(config_map("two", keep="z" * 1_000))
        await world.advance(1)
        assert 1_000 < cache.stats()[0].size - before < 2_000
        assert cache.stats()[0].last_event == world.now.timestamp() - 1
        world.delete(ConfigMap, "two")
        await world.advance(1)
        assert cache.stats()[0].size == before


async def test_a_secret_of_which_only_the_metadata_is_kept_can_be_printed(world: World) -> None:
    world.put(Secret(metadata=ObjectMeta(name="users")).with_values(auth=b"hunter2"))
    async with running(world, Cached(Secret, only="metadata")) as cache:
        (found,) = cache.list(Secret)
        assert str(found) == "Secret(default/users, keys=[])"


async def test_metadata_only_has_metadata_and_refuses_the_rest(world: World) -> None:
    by_tier = Index(ConfigMap, lambda found: [found.labels.get("tier", "")], name="by-tier")
    world.put(config_map("one", labels={"tier": "web"}, color="red"))
    async with running(world, Cached(ConfigMap, only="metadata", indexes=[by_tier])) as cache:
        (found,) = cache.list(ConfigMap, index=by_tier("web"))
        assert (found.name, found.labels, found.key) == ("one", {"tier": "web"}, ObjectKey("default", "one"))
        with pytest.raises(
            AttributeError, match=r'ConfigMap default/one: only the metadata is cached.*consistency="live"'
        ):
            _ = found.data
        with pytest.raises(AttributeError, match="no attribute 'datum'"):
            _ = found.datum  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue] -- the test
        assert cache.stats()[0].size / cache.stats()[0].objects < 400
