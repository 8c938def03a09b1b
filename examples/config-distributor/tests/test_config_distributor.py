import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kaito.runtime import LabelSelector, ObjectMeta
from kaito.runtime.clusters import ClusterConfig, ClusterSet, KubeconfigSecrets
from kaito.runtime.kinds import ConfigMap, Event, Namespace, Secret
from kaito.runtime.testing import InMemoryTransport, World

from config_distributor.__main__ import NAMESPACE
from config_distributor.api import ConfigDistribution, ConfigDistributionSpec, definition
from config_distributor.controller import COPY, DISTRIBUTION, Distributor

DEPLOY = Path(__file__).parents[1] / "deploy"
ACCOUNT = "system:serviceaccount:config-distributor:config-distributor"


class Clusters:
    """Two clusters in the same virtual time; Secrets at home add them."""

    def __init__(self, home: World, *, user: str = "") -> None:
        self.home = home
        self.east, self.west = World(seed=2), World(seed=3)
        self.transports: dict[str, InMemoryTransport] = {}
        self.user = user
        self.set = ClusterSet("clusters", provider=KubeconfigSecrets(NAMESPACE), connect=self.connect)
        self.controllers = Distributor(self.set).controllers()
        home.install(definition())

    def connect(self, config: ClusterConfig) -> InMemoryTransport:
        name = config.server.removeprefix("https://")
        world = self.east if name == "east" else self.west
        return self.transports.setdefault(name, world.transport(user=self.user))

    def add(self, name: str, **labels: str) -> None:
        labels["sigs.k8s.io/multicluster-runtime-kubeconfig"] = "true"
        kubeconfig = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"https://{name}"}}],
        }
        encoded = base64.b64encode(json.dumps(kubeconfig).encode()).decode()
        metadata = ObjectMeta(name=name, namespace=NAMESPACE, labels=labels)
        self.home.put(Secret(metadata=metadata, data={"kubeconfig": encoded}))

    def break_off(self, name: str) -> None:
        self.transports[name].reachable = False
        self.transports[name].break_streams()


@pytest.fixture
async def clusters(world: World) -> AsyncIterator[Clusters]:
    world.put(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    clusters = Clusters(world)
    clusters.add("east", region="eu")
    clusters.add("west", region="us")
    async with world.manager(*clusters.controllers, clusters=[clusters.set]):
        yield clusters


def distribution(name: str = "settings", **spec: Any) -> ConfigDistribution:
    selector = LabelSelector(match_labels={"distribute": "true"})
    return ConfigDistribution(metadata=ObjectMeta(name=name), spec=ConfigDistributionSpec(selector=selector, **spec))


def config(name: str = "app", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, labels={"distribute": "true"}), data=data)


def secret(name: str, **data: bytes) -> Secret:
    return Secret(metadata=ObjectMeta(name=name, labels={"distribute": "true"})).with_values(**data)


def ready(world: World) -> tuple[str, str]:
    condition = world.condition(ConfigDistribution, "settings", "Ready")
    return condition.status, condition.message


async def test_selected_objects_are_copied_to_selected_clusters(world: World, clusters: Clusters) -> None:
    world.put(config(level="info"))
    world.put(secret("login", password=b"hunter2"))
    world.put(ConfigMap(metadata=ObjectMeta(name="other")))
    world.put(distribution(clusters=LabelSelector(match_labels={"region": "eu"})))
    await world.settle()
    assert clusters.east.get(ConfigMap, "app").data == {"level": "info"}
    assert clusters.east.get(Secret, "login").value("password") == b"hunter2"
    assert clusters.east.find(ConfigMap, "other") is None
    assert clusters.west.find(ConfigMap, "app") is None
    assert ready(world) == ("True", "2 objects in 1 clusters")
    assert [(each.name, each.copies) for each in world.get(ConfigDistribution, "settings").status.clusters] == [
        ("east", 2)
    ]


async def test_changes_and_drift_are_repaired_and_nothing_else_is_written(world: World, clusters: Clusters) -> None:
    world.put(config(level="info"))
    world.put(distribution())
    await world.settle()
    world.put(config(level="debug"))
    clusters.west.delete(ConfigMap, "app")
    await world.settle()
    clusters.east.put(clusters.east.get(ConfigMap, "app").evolve(data={"level": "drift"}))
    await world.settle()
    for away in (clusters.east, clusters.west):
        assert away.get(ConfigMap, "app").data == {"level": "debug"}
        away.clear_requests()
    world.clear_requests()
    await world.advance(3600)
    for each in (world, clusters.east, clusters.west):
        assert each.count("PATCH") == each.count("POST") == each.count("DELETE") == 0


async def test_copies_are_deleted_when_they_are_no_longer_wanted(world: World, clusters: Clusters) -> None:
    world.put(config())
    world.put(config("second"))
    world.put(distribution())
    await world.settle()
    world.delete(ConfigMap, "second")
    await world.settle()
    assert clusters.east.find(ConfigMap, "second") is None
    clusters.add("west", region="eu")  # another label
    world.put(distribution(clusters=LabelSelector(match_labels={"region": "us"})))
    await world.settle()
    assert clusters.east.find(ConfigMap, "app") is None
    assert clusters.west.find(ConfigMap, "app") is None
    world.delete(ConfigDistribution, "settings")
    await world.settle()
    assert world.find(ConfigDistribution, "settings") is None


async def test_a_foreign_object_is_not_taken_over(world: World, clusters: Clusters) -> None:
    clusters.east.put(ConfigMap(metadata=ObjectMeta(name="app"), data={"mine": "yes"}))
    world.put(config(level="info"))
    world.put(distribution())
    await world.settle()
    assert clusters.east.get(ConfigMap, "app").data == {"mine": "yes"}
    assert clusters.west.get(ConfigMap, "app").data == {"level": "info"}
    assert ready(world) == ("False", "not current in east")
    world.delete(ConfigDistribution, "settings")
    await world.settle()
    assert clusters.east.find(ConfigMap, "app") is not None
    assert clusters.west.find(ConfigMap, "app") is None


async def test_a_cluster_that_is_added_gets_the_copies(world: World, clusters: Clusters) -> None:
    world.delete(Secret, "west", NAMESPACE)
    world.put(config(level="info"))
    world.put(distribution())
    await world.settle()
    assert clusters.west.find(ConfigMap, "app") is None
    clusters.transports.clear()
    clusters.add("west")
    await world.settle()
    assert clusters.west.get(ConfigMap, "app").data == {"level": "info"}


async def test_an_unreachable_cluster_is_reported_and_caught_up(world: World, clusters: Clusters) -> None:
    world.put(config(level="info"))
    world.put(distribution())
    await world.settle()
    clusters.break_off("west")
    await world.advance(10)
    world.put(config(level="debug"))
    await world.settle()
    assert clusters.east.get(ConfigMap, "app").data == {"level": "debug"}
    assert ready(world) == ("False", "not current in west")
    clusters.transports["west"].reachable = True
    await world.advance(90)
    assert clusters.west.get(ConfigMap, "app").data == {"level": "debug"}
    assert ready(world)[0] == "True"


async def test_a_deletion_waits_for_an_unreachable_cluster_but_not_without_a_limit(
    world: World, clusters: Clusters
) -> None:
    world.put(config())
    world.put(distribution(cleanup_timeout_seconds=300))
    await world.settle()
    clusters.break_off("west")
    await world.advance(10)
    world.delete(ConfigDistribution, "settings")
    await world.advance(200)
    assert clusters.east.find(ConfigMap, "app") is None
    assert world.find(ConfigDistribution, "settings") is not None
    await world.advance(150)
    assert world.find(ConfigDistribution, "settings") is None
    assert "CopiesLeft" in [event.reason for event in world.list(Event)]
    clusters.transports["west"].reachable = True
    await world.advance(120)  # what was left is deleted when its cluster returns
    assert clusters.west.find(ConfigMap, "app") is None


async def test_a_deletion_does_not_wait_for_a_removed_cluster(world: World, clusters: Clusters) -> None:
    world.put(config())
    world.put(distribution())
    await world.settle()
    clusters.break_off("west")
    world.delete(ConfigDistribution, "settings")
    await world.settle()
    assert world.find(ConfigDistribution, "settings") is not None
    world.delete(Secret, "west", NAMESPACE)
    await world.advance(15)
    assert world.find(ConfigDistribution, "settings") is None


async def test_another_process_does_not_lose_the_copies_at_its_start(world: World) -> None:
    world.put(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    first, second = Clusters(world), Clusters(world)
    second.east, second.west = first.east, first.west
    first.add("east")
    world.put(config(level="info"))
    world.put(distribution())
    async with world.manager(*first.controllers, clusters=[first.set]):
        await world.settle()
    before = first.east.get(ConfigMap, "app")
    async with world.manager(*second.controllers, clusters=[second.set]):
        await world.settle()
        assert first.east.get(ConfigMap, "app") == before
        assert before.labels == {"distribute": "true", **COPY}
        assert before.annotations == {DISTRIBUTION: "settings"}


async def test_the_roles_are_sufficient(world: World) -> None:
    for name in ("crd.yaml", "operator.yaml", "sample.yaml"):
        world.apply(DEPLOY / name)
    clusters = Clusters(world, user=ACCOUNT)
    clusters.east.apply(DEPLOY / "member.yaml")
    clusters.add("east", region="eu")
    world.put(config(level="info"))
    async with world.manager(*clusters.controllers, clusters=[clusters.set], user=ACCOUNT):
        await world.settle()
        assert clusters.east.get(ConfigMap, "app").data == {"level": "info"}
        assert ready(world) == ("True", "1 objects in 1 clusters")
        clusters.east.put(clusters.east.get(ConfigMap, "app").evolve(data={}))
        await world.settle()
        assert clusters.east.get(ConfigMap, "app").data == {"level": "info"}
        world.delete(ConfigDistribution, "settings")
        await world.settle()
        assert clusters.east.find(ConfigMap, "app") is None


@pytest.mark.seeds(5)
async def test_failed_requests_only_cost_time(world: World, clusters: Clusters) -> None:
    clusters.east.fail_next("PATCH", ConfigMap, drop_connection=True)
    clusters.west.fail_next("PATCH", ConfigMap, status=503, times=3)
    world.fail_next("PATCH", ConfigDistribution, status=429, retry_after=7)
    world.put(config(level="info"))
    world.put(distribution())
    await world.advance(180)
    for away in (clusters.east, clusters.west):
        assert away.get(ConfigMap, "app").data == {"level": "info"}
    assert ready(world) == ("True", "1 objects in 2 clusters")
