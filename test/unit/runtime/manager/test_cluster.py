"""A second cluster: watched, read, written and waited for; no lease and no servers of its own."""

import random
from pathlib import Path
from typing import Any

import pytest

from kaito.apiserver import ApiServer, Fault
from kaito.runtime.cache import Cached, View
from kaito.runtime.client import Client
from kaito.runtime.controller import Controller
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, NotLeader, UndeclaredKind, UndeclaredNamespace
from kaito.runtime.kinds import ConfigMap, Event, Lease, Secret
from kaito.runtime.manager import Cluster, Manager, Settings
from kaito.runtime.meta import ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import InMemoryTransport, World

OFF = Settings(metrics_bind_address="0", health_probe_bind_address="0")


class Member:
    """A further API server in the same virtual time."""

    def __init__(self, world: World) -> None:
        self.server = ApiServer(now=world.clock.now, seed=2)
        self.cluster = Cluster("member", transport=InMemoryTransport(self.server), live=[Secret])
        self.client = Client(InMemoryTransport(self.server), field_manager="test")

    async def put(self, name: str, **data: str) -> None:
        await self.client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data))


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


def same_name(obj: ConfigMap, view: View) -> ObjectKey:
    assert view.find(ConfigMap, obj.name, obj.namespace) is not None  # the view is the other cluster's
    return obj.key


def manager_of(
    world: World, *controllers: Controller[Any], clusters: list[Cluster], lease: str | None = None
) -> Manager:
    manager = Manager(
        OFF,
        controllers=controllers,
        clusters=clusters,
        lease=lease,
        transport=world.transport(),
        clock=world.clock,
        name="placer",
        rng=random.Random(1),
    )
    world.track(manager)
    return manager


async def test_a_kind_of_another_cluster_triggers_runs_that_use_both(world: World) -> None:
    member = Member(world)

    async def follow(request: Request[ConfigMap]) -> Again | None:
        there = member.cluster.api
        found = await there.find(ConfigMap, request.key.name, request.key.namespace)
        if found is not None and "seen" not in found.data:
            await there.ensure(config(found.name, seen=request.object.data["home"]))
            assert (await there.get(ConfigMap, found.name, "default")).data["seen"] == "yes"  # own writes
            there.event(found, "Normal", "Followed", "reconciled")
        return None

    world.put(config("a", home="yes"))
    controller = Controller(ConfigMap, follow).watches(ConfigMap, to=same_name, cluster=member.cluster)
    async with manager_of(world, controller, clusters=[member.cluster], lease="placer") as manager:
        await world.settle()
        await member.put("a", member="yes")
        await world.advance(30)
        assert (await member.client.get(ConfigMap, "a", "default")).data == {"member": "yes", "seen": "yes"}
        assert world.get(ConfigMap, "a").data == {"home": "yes"}
        assert await member.client.find(Lease, "placer", "default") is None
        assert [each.reason for each in await member.client.list(Event)] == ["Followed"]
        text = manager.metrics.exposition().decode()
        assert 'kaito_runtime_cache_objects{kind="ConfigMap"} 1.0' in text
        assert 'kaito_runtime_cache_objects{cluster="member",kind="ConfigMap"} 1.0' in text
        with pytest.raises(UndeclaredKind):
            await manager.api.find(Secret, "s", "default")
        assert await member.cluster.api.find(Secret, "s", "default") is None  # live there
        await manager.remove("configmap")
        await world.settle()
        assert not member.cluster.cache.declares(ConfigMap)


async def test_its_cache_may_have_defaults_and_namespaces_of_its_own(world: World) -> None:
    away = World(seed=2)
    for name, app in (("a", "x"), ("b", "y")):
        away.put(ConfigMap(metadata=ObjectMeta(name=name, labels={"app": app})))
    defaults = Cached(Resource, labels="app=x")
    member = Cluster("member", transport=away.transport(), namespaces=["default"], cache=[defaults, Cached(ConfigMap)])
    async with world.manager(clusters=[member]):
        assert [each.name for each in await member.api.list(ConfigMap)] == ["a"]
        with pytest.raises(UndeclaredNamespace):
            await member.api.find(ConfigMap, "a", "elsewhere")


async def test_its_caches_are_waited_for_and_watched_over(world: World) -> None:
    member = Member(world)
    member.server.inject(Fault(kind="ConfigMap", times=None, status=403, message="configmaps is forbidden there"))
    controller = Controller(Secret, _nothing).watches(ConfigMap, to=same_name, cluster=member.cluster)
    manager = manager_of(world, controller, clusters=[member.cluster])
    with pytest.raises(CacheNotSynced, match="forbidden there"):
        await manager.start()
    assert "ConfigMap of cluster member" in manager.readyz.report().text


async def test_writes_there_pass_the_same_fence(world: World) -> None:
    member = Member(world)
    leader = manager_of(world, clusters=[Cluster("other", transport=world.transport())], lease="placer")
    standby = manager_of(world, clusters=[member.cluster], lease="placer")
    async with leader:
        await leader.wait_elected()
        async with standby:
            with pytest.raises(NotLeader):
                await member.cluster.api.create(config("a"))
            await member.cluster.client.create(config("b"))  # the plain client is not fenced


async def _nothing(request: Request[Any]) -> Again | None:
    return None


async def test_wrong_use_is_told_at_construction(world: World) -> None:
    member, twin = Member(world).cluster, Member(world).cluster
    watching = Controller(Secret, _nothing).watches(ConfigMap, to=same_name, cluster=member)
    with pytest.raises(ConfigurationError, match=r"watches ConfigMap of cluster 'member'.*clusters=\["):
        manager_of(world, watching, clusters=[])
    with pytest.raises(ConfigurationError, match="two clusters are named 'member'"):
        manager_of(world, clusters=[member, twin])
    with pytest.raises(ConfigurationError, match="kubeconfig= or transport="):
        Cluster("member")
    with pytest.raises(ConfigurationError, match="kubeconfig= or transport="):
        Cluster("member", kubeconfig=Path("k"), transport=world.transport())
    with pytest.raises(ConfigurationError, match="cluster name"):
        Cluster("Member One", kubeconfig=Path("k"))
    with pytest.raises(ConfigurationError, match="only kinds of the manager's own cluster can be waited for"):
        Controller(Secret, _nothing).watches(ConfigMap, to=same_name, cluster=member, optional=True)
    with pytest.raises(ConfigurationError, match="is not connected"):
        _ = member.api
    narrow = Cluster("narrow", transport=world.transport(), cache=[Cached(ConfigMap, labels="a=b")])
    wide = Controller(Secret, _nothing).watches(ConfigMap, to=same_name, labels="a=c", cluster=narrow)
    with pytest.raises(ConfigurationError, match=r"Cluster\('narrow', cache=\.\.\.\) keeps"):
        manager_of(world, wide, clusters=[narrow])
    with pytest.raises(ConfigurationError, match=r"Secret is cached.*and live"):
        manager_of(
            world,
            Controller(ConfigMap, _nothing).watches(Secret, to=_nowhere, cluster=member),
            clusters=[member],
        )
    async with manager_of(world, clusters=[member]):
        pass
    with pytest.raises(ConfigurationError, match="belongs to a manager already"):
        await manager_of(world, clusters=[member]).start()


def _nowhere(obj: Secret, view: View) -> ObjectKey | None:
    return None
