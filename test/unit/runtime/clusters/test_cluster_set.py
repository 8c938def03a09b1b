"""Clusters that are added and removed while the manager runs."""

import asyncio
import gc
from functools import partial

import pytest

from kaito.runtime import Cached, Controller, Index, ObjectKey, Request, View, changed
from kaito.runtime.client import MergePatch
from kaito.runtime.clusters import (
    ClusterKey,
    ClusterRemoved,
    ClusterRequest,
    ClusterSet,
    ClusterUnavailable,
    KubeconfigSecrets,
    Member,
)
from kaito.runtime.errors import ConfigurationError, NotLeader
from kaito.runtime.kinds import ConfigMap, Event, Lease, Secret
from kaito.runtime.manager import Cluster, Manager, Shards
from kaito.runtime.reconcile import KeyedRequest
from kaito.runtime.testing import World
from test.support.cluster_fleet import Fleet, config, kubeconfig, secret


class Copies:
    """Copies every ConfigMap of the home cluster to all members; reconciled by changes of both."""

    def __init__(self, fleet: Fleet, **options: object) -> None:
        self.fleet = fleet
        self.members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
        self.errors: dict[str, str] = {}
        self.runs: list[str] = []
        self.mapped: list[tuple[str, bool]] = []
        self.controller = (
            Controller(ConfigMap, self.reconcile, name="copies", workers=2)
            .watches(ConfigMap, to=self.home_object, cluster=self.members)
            .receives(self.members.changes(ConfigMap))
        )

    def home_object(self, copy: ConfigMap, view: View) -> ObjectKey | None:
        """The view is that of the member; the home cluster is reachable from it."""
        assert view.cluster in self.fleet.worlds
        assert view.home.cluster == ""
        at_home = view.home.find(ConfigMap, copy.name, copy.namespace) is not None
        self.mapped.append((view.cluster, at_home))
        return copy.key if at_home else None

    async def reconcile(self, request: Request[ConfigMap]) -> None:
        self.runs.append(request.key.name)

        async def copy(member: Member) -> None:
            await member.api.ensure(config(request.key.name, request.key.namespace).evolve(data=request.object.data))

        outcomes = await self.members.each(copy)
        self.errors = {name: str(error) for name, error in outcomes.errors.items()}


def data(world: World, name: str = "a") -> dict[str, str] | None:
    found = world.find(ConfigMap, name)
    return None if found is None else found.data


@pytest.mark.conformance("clusters-1")
async def test_a_cluster_is_added_and_removed_while_running(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    async with world.manager(copies.controller, clusters=[copies.members]) as manager:
        await world.settle()
        assert data(fleet.worlds["east"]) == {"x": "1"}
        assert data(fleet.worlds["west"]) is None

        world.put(secret("west"))
        await world.settle()
        assert data(fleet.worlds["west"]) == {"x": "1"}
        assert manager.metrics.value("kaito_runtime_cluster_up", cluster="west") == 1
        assert 'cache_objects{cluster="west",kind="ConfigMap"}' in manager.metrics.exposition().decode()

        fleet.worlds["west"].put(config("a", x="drift"))
        await world.settle()
        assert data(fleet.worlds["west"]) == {"x": "1"}
        assert ("west", True) in copies.mapped

        world.delete(Secret, "west", "fleet")
        await world.settle()
        assert [member.name for member in copies.members.list()] == ["east"]
        assert "west" not in manager.metrics.exposition().decode()
        assert fleet.opened[-1].open_streams == 0
        fleet.worlds["west"].put(config("a", x="drift"))
        world.put(config("a", x="2"))
        await world.settle()
        assert data(fleet.worlds["west"]) == {"x": "drift"}
        assert data(fleet.worlds["east"]) == {"x": "2"}


@pytest.mark.parametrize("hang", [False, True])
@pytest.mark.conformance("clusters-2")
async def test_a_dead_or_slow_cluster_delays_neither_the_start_nor_the_others(world: World, hang: bool) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    world.put(secret("west"))
    fleet.take_down("west", hang=hang)
    started = asyncio.get_running_loop().time()
    async with world.manager(copies.controller, clusters=[copies.members]) as manager:
        assert asyncio.get_running_loop().time() == started  # ready
        assert manager.readyz.report().text == "ok"
        await asyncio.sleep(0.1)
        assert data(fleet.worlds["east"]) == {"x": "1"}
        await asyncio.sleep(30)
        assert set(copies.errors) == {"west"}
        world.put(config("a", x="2"))
        await asyncio.sleep(0.1)  # the dead one is skipped, so not even the next change of the same object waits
        assert data(fleet.worlds["east"]) == {"x": "2"}
        assert manager.metrics.value("kaito_runtime_cluster_up", cluster="west") == 0

        fleet.bring_back("west")
        await asyncio.sleep(120)
        assert data(fleet.worlds["west"]) == {"x": "2"}
        assert copies.errors == {}
        assert manager.metrics.value("kaito_runtime_cluster_up", cluster="west") == 1


async def test_a_cluster_that_dies_later_is_skipped_and_caught_up(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    world.put(secret("west"))
    async with world.manager(copies.controller, clusters=[copies.members]):
        await world.settle()
        fleet.take_down("west")
        await asyncio.sleep(10)
        assert copies.members.get("west").problem
        with pytest.raises(ClusterUnavailable, match="cluster west"):
            copies.members.get("west").check()
        world.put(config("a", x="2"))
        await asyncio.sleep(0.1)
        assert data(fleet.worlds["east"]) == {"x": "2"}
        assert set(copies.errors) == {"west"}
        fleet.bring_back("west")
        await asyncio.sleep(120)
        assert data(fleet.worlds["west"]) == {"x": "2"}


async def test_a_call_without_an_answer_makes_a_cluster_unreachable_until_it_answers(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(secret("east"))
    world.put(secret("west"))
    async with world.manager(copies.controller, clusters=[copies.members]):
        await world.settle()
        fault = fleet.worlds["west"].fail_next(hang=True, times=None)  # its watches stay open
        world.put(config("a", x="1"))
        await asyncio.sleep(11)
        assert copies.errors == {"west": "cluster west: no answer within 10 s"}
        world.put(config("a", x="2"))
        await asyncio.sleep(0.1)
        assert data(fleet.worlds["east"]) == {"x": "2"}
        fleet.worlds["west"].heal(fault)
        await asyncio.sleep(60)
        assert data(fleet.worlds["west"]) == {"x": "2"}


@pytest.mark.conformance("clusters-3")
async def test_a_rotated_kubeconfig_replaces_the_connection_without_a_new_list(world: World) -> None:
    fleet = Fleet(world, "east")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    async with world.manager(copies.controller, clusters=[copies.members]):
        await world.settle()
        member, runs = copies.members.get("east"), len(copies.runs)
        fleet.worlds["east"].clear_requests()
        world.put(secret("east", kubeconfig("https://east.example:6443", user={"token": "t2"})))
        await world.settle()
        await asyncio.sleep(5)
        assert len(fleet.opened) == 2
        assert [transport.open_streams for transport in fleet.opened] == [0, 1]
        assert copies.members.get("east") is member
        assert len(copies.runs) == runs  # nothing was lost, so nothing is reconciled
        assert fleet.worlds["east"].count("list") == 0
        fleet.worlds["east"].put(config("a", x="drift"))
        await world.settle()
        assert data(fleet.worlds["east"]) == {"x": "1"}


async def test_another_server_is_another_cluster(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    async with world.manager(copies.controller, clusters=[copies.members]):
        await world.settle()
        old = copies.members.get("east")
        world.put(secret("east", kubeconfig("https://west.example:6443")))
        await world.settle()
        assert data(fleet.worlds["west"]) == {"x": "1"}
        assert old.is_removed
        with pytest.raises(ClusterRemoved):
            old.api  # noqa: B018
        assert fleet.opened[0].open_streams == 0


@pytest.mark.slow("test_a_cluster_is_added_and_removed_while_running")
@pytest.mark.conformance("clusters-4")
async def test_nothing_is_left_of_a_hundred_clusters_that_came_and_went(world: World) -> None:
    fleet = Fleet(world, "east", "west")

    async def audit(request: ClusterRequest[ConfigMap]) -> None:
        if request.object.data.get("fail"):
            message = "this object always fails"
            raise ValueError(message)

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
    copies = Controller(ConfigMap, nothing, name="home").receives(members.changes(ConfigMap))
    audits = members.controller(ConfigMap, audit, name="audit")
    world.put(secret("east"))
    fleet.worlds["west"].put(config("bad", fail="yes"))
    fleet.worlds["west"].put(config("good"))
    async with world.manager(copies, audits, clusters=[members]) as manager:
        await world.settle()
        [queue] = [queue for queue in manager.queues if queue.name == "audit"]

        def counts() -> tuple[int, int, int, int]:
            gc.collect()
            series = manager.metrics.exposition().count(b"\n")
            return len(asyncio.all_tasks()), fleet.open_streams, len(queue.dump()), series

        before: tuple[int, ...] | None = None
        for cycle in range(100):
            world.put(secret("west"))
            await world.settle()
            assert any("west" in row.key for row in queue.dump())  # the failing key
            assert fleet.open_streams == 2
            world.delete(Secret, "west", "fleet")
            await world.settle()
            if cycle == 0:
                before = counts()
        assert before == counts()
        assert before is not None
        assert before[2] == 0
        assert len(fleet.unclosed) == 1
        assert manager.metrics.value("kaito_runtime_failing_keys", controller="audit") == 0


async def nothing(request: Request[ConfigMap]) -> None:
    """Nothing to do."""


async def test_a_reconcile_of_a_removed_cluster_ends_at_once_and_is_no_failure(world: World) -> None:
    fleet = Fleet(world, "east")
    ended: list[str] = []

    async def audit(request: ClusterRequest[ConfigMap]) -> None:
        assert request.cluster.name == request.key.cluster == "east"
        assert await request.api.find(Secret, "east", "fleet", consistency="live") is not None  # the home cluster
        try:
            await request.cluster.api.get(ConfigMap, "slow", "default", consistency="live")
        except ClusterRemoved as error:
            ended.append(str(error))
            raise

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
    world.put(secret("east"))
    fleet.worlds["east"].put(config("a"))
    fleet.worlds["east"].fail_next("get", name="slow", hang=True)
    controller = members.controller(ConfigMap, audit, name="audit", cache=[Cached(Secret)])
    async with world.manager(controller, clusters=[members]) as manager:
        await asyncio.sleep(1)
        world.delete(Secret, "east", "fleet")
        await asyncio.sleep(0.1)
        assert ended == ["cluster east: removed from its set"]
        assert manager.metrics.value("controller_runtime_reconcile_errors_total", controller="audit") == 0
        assert list(manager.queues[0].dump()) == []


async def test_a_keyed_controller_with_clusters_in_its_keys(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    seen: set[str] = set()

    async def reconcile(request: KeyedRequest[ClusterKey]) -> None:
        seen.add(str(request.key))

    members = ClusterSet("members", connect=fleet.connect)
    members.add("east", fleet.worlds["east"].transport(), labels={"region": "eu"})
    keyed = Controller.keyed(ClusterKey, reconcile, name="keyed").watches(
        ConfigMap, to=lambda obj, view: ClusterKey(view.cluster, obj.namespace, obj.name), cluster=members
    )
    for world_of in fleet.worlds.values():
        world_of.put(config("a"))
    async with world.manager(keyed, clusters=[members]):
        await world.settle()
        members.add("west", fleet.worlds["west"].transport())
        await world.settle()
        assert seen == {"east:default/a", "west:default/a"}
        assert [each.name for each in members.list({"region": "eu"})] == ["east"]
        await members.remove("east")
        await members.remove("east")
        assert members.find("east") is None


async def test_names_are_unique_in_the_manager(world: World) -> None:
    fleet = Fleet(world, "east")
    members, others = ClusterSet("members"), ClusterSet("others")
    fixed = Cluster("fixed", transport=fleet.worlds["east"].transport())
    async with world.manager(cache=[Cached(Secret)], clusters=[members, others, fixed]):
        members.add("east", fleet.worlds["east"].transport())
        for name in ("east", "fixed", "members"):
            with pytest.raises(ConfigurationError, match=f"the name '{name}' is taken"):
                others.add(name, fleet.worlds["east"].transport())
        with pytest.raises(ConfigurationError, match="lower case"):
            members.add("Not a name", fleet.worlds["east"].transport())
        await members.remove("east")
        others.add("east", fleet.worlds["east"].transport())


async def test_shutdown_ends_with_a_hanging_cluster(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    copies = Copies(fleet)
    world.put(config("a", x="1"))
    world.put(secret("east"))
    world.put(secret("west"))
    fleet.take_down("west", hang=True)
    loop = asyncio.get_running_loop()
    async with world.manager(copies.controller, clusters=[copies.members], lease="copies"):
        await asyncio.sleep(12)
        stopping = loop.time()
    assert loop.time() - stopping < 5
    assert fleet.open_streams == 0
    assert fleet.unclosed == []


@pytest.mark.conformance("clusters-5")
async def test_leases_stay_at_home_and_a_standby_has_warm_caches_of_all_clusters(world: World) -> None:
    fleet, other = Fleet(world, "east"), Fleet(world, "east")
    other.worlds = fleet.worlds
    world.put(config("a", x="1"))
    world.put(secret("east"))
    leader, standby = Copies(fleet), Copies(other)
    async with world.manager(leader.controller, clusters=[leader.members], lease="copies", name="one"):
        await world.settle()
        manager = world.manager(standby.controller, clusters=[standby.members], lease="copies", name="two", seed=2)
        async with manager:
            await world.settle()
            assert not manager.is_leader
            assert standby.members.get("east").cache.synced
            assert standby.runs == []
            assert fleet.worlds["east"].list(Lease) == []
            assert [lease.name for lease in world.list(Lease)] == ["copies"]
            with pytest.raises(NotLeader):
                await standby.members.get("east").api.ensure(config("b"))
            with pytest.raises(NotLeader):
                await standby.members.each(lambda member: member.api.ensure(config("b")))
            events = [event for event in world.list(Event, namespace="fleet") if event.reason == "ClusterReady"]
            assert [event.reporting_controller for event in events] == ["one"]


@pytest.mark.conformance("clusters-6")
async def test_shards_divide_the_objects_of_all_clusters(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    seen: dict[str, list[str]] = {"one": [], "two": []}
    managers: list[Manager] = []
    for number, name in enumerate(seen):

        async def audit(request: ClusterRequest[ConfigMap], name: str = name) -> None:
            await request.cluster.api.patch(request.object, MergePatch({"data": {"by": name}}))
            seen[name].append(str(request.key))

        members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
        controller = members.controller(ConfigMap, partial(audit), name="audit", when=changed("metadata.labels"))
        managers.append(
            world.manager(controller, clusters=[members], lease="audit", shards=Shards(8), name=name, seed=number + 1)
        )
    world.put(secret("east"))
    async with managers[0], managers[1]:
        await asyncio.sleep(60)
        for each in fleet.worlds.values():
            for number in range(20):
                each.put(config(f"c{number}", by=""))
        world.put(secret("west"))
        await asyncio.sleep(30)
        keys = [key for of_replica in seen.values() for key in of_replica]
        assert sorted(keys) == sorted({f"{name}:default/c{number}" for name in fleet.worlds for number in range(20)})
        assert all(seen.values())


async def test_mappers_of_a_fixed_cluster_see_both_clusters(world: World) -> None:
    away = World(seed=2)
    seen: list[tuple[str, bool]] = []

    def mapper(obj: ConfigMap, view: View) -> None:
        seen.append((view.cluster, view.home.find(ConfigMap, "at-home", "default") is not None))

    async def reconcile(request: Request[ConfigMap]) -> None: ...

    member = Cluster("member", transport=away.transport())
    world.put(config("at-home"))
    away.put(config("away"))
    controller = Controller(ConfigMap, reconcile, name="both").watches(ConfigMap, to=mapper, cluster=member)
    async with world.manager(controller, clusters=[member]):
        await world.settle()
        assert seen == [("member", True)]


async def test_a_controller_added_later_watches_the_members(world: World) -> None:
    fleet = Fleet(world, "east")
    fleet.worlds["east"].put(config("a", labels={"x": "y"}))
    seen: list[str] = []

    async def audit(request: ClusterRequest[ConfigMap]) -> None:
        seen.append(str(request.key))
        by_x = [each.name for each in await request.cluster.api.list(ConfigMap, index=index("y"))]
        assert by_x == ["a"]

    index = Index(ConfigMap, lambda obj: [obj.labels["x"]] if "x" in obj.labels else [], name="by-x")
    members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
    world.put(secret("east"))
    async with world.manager(clusters=[members]) as manager:
        await world.settle()
        assert fleet.open_streams == 0
        manager.add(members.controller(ConfigMap, audit, name="audit", indexes=[index]))
        await world.settle()
        assert seen == ["east:default/a"]
        await manager.remove("audit")
        await world.settle()
        assert fleet.open_streams == 0
