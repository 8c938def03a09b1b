"""Sharding: replicas share the keys, no key is reconciled by two at a time, and every change reaches a replica."""

import asyncio
import random
from collections.abc import AsyncGenerator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kaito.runtime.cache import View
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError, NotLeader
from kaito.runtime.kinds import ConfigMap, Lease, Namespace, Secret
from kaito.runtime.manager import Manager, Settings, Shards
from kaito.runtime.manager.sharding.membership import quota
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Again, PeriodicRequest, Request
from kaito.runtime.testing import InMemoryTransport, World

OBJECTS = 40


@dataclass
class Journal:
    """What the replicas did."""

    seconds: float = 0.5
    running: dict[ObjectKey, str] = field(default_factory=dict[ObjectKey, str])
    seen: dict[ObjectKey, str] = field(default_factory=dict[ObjectKey, str])
    """The last content that a reconcile of the key has seen."""
    by: dict[ObjectKey, list[str]] = field(default_factory=dict[ObjectKey, list[str]])
    """The replicas that have reconciled the key, in order."""
    overlaps: list[str] = field(default_factory=list[str])
    fenced: list[str] = field(default_factory=list[str])

    def controller(self, replica: str) -> Controller[ConfigMap]:
        async def reconcile(request: Request[ConfigMap]) -> None:
            key = request.key
            if key in self.running:
                self.overlaps.append(f"{replica} and {self.running[key]} reconcile {key}")
            self.running[key] = replica
            try:
                content = request.object.data.get("v", "")
                await asyncio.sleep(self.seconds)
                self.seen[key] = content
                self.by.setdefault(key, []).append(replica)
            finally:
                self.running.pop(key, None)

        return Controller(ConfigMap, reconcile, name="maps", workers=8)


def settings(identity: str, **changes: Any) -> Settings:
    return Settings(identity=identity, metrics_bind_address="0", health_probe_bind_address="0", **changes)


def put(world: World, number: int, content: str = "0", namespace: str = "default") -> ConfigMap:
    return world.put(ConfigMap(metadata=ObjectMeta(name=f"m{number}", namespace=namespace), data={"v": content}))


def replica(
    world: World,
    journal: Journal,
    name: str,
    *,
    shards: Shards | None = None,
    transport: InMemoryTransport | None = None,
) -> Manager:
    return world.manager(
        journal.controller(name),
        lease="op",
        shards=shards or Shards(8),
        settings=settings(name),
        transport=transport,
        name="op",
        seed=ord(name[-1]),
    )


def holders(world: World) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for lease in world.list(Lease):
        if lease.name.startswith("op-shard-") and lease.spec.holder_identity:
            found.setdefault(lease.spec.holder_identity, []).append(int(lease.name.rpartition("-")[2]))
    return found


def sizes(world: World) -> list[int]:
    return sorted(len(each) for each in holders(world).values())


@asynccontextmanager
async def cut_off(manager: Manager) -> AsyncGenerator[Manager]:
    """Runs a manager that may fail, because the test cuts it off."""
    with suppress(NotLeader):
        async with manager:
            yield manager


async def until_sizes(world: World, expected: list[int], within: float) -> None:
    deadline = monotonic() + within
    while sizes(world) != expected:
        assert monotonic() < deadline, f"{sizes(world)} after {within} s, not {expected}"
        await asyncio.sleep(0.5)


@pytest.fixture
def journal(world: World) -> Journal:
    for number in range(OBJECTS):
        put(world, number)
    return Journal()


@pytest.mark.conformance("sharding-1")
async def test_replicas_share_the_keys_evenly(world: World, journal: Journal) -> None:
    async with AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            await stack.enter_async_context(replica(world, journal, name))
        await until_sizes(world, [2, 3, 3], within=15)
        await world.advance(20)
        assert len(journal.seen) == OBJECTS
        journal.by.clear()
        for number in range(OBJECTS):
            put(world, number, "1")
        await world.advance(10)
        assert set(journal.seen.values()) == {"1"}
        assert {len(names) for names in journal.by.values()} == {1}
        assert {names[0] for names in journal.by.values()} == {"a", "b", "c"}
        assert journal.overlaps == []


async def test_a_replica_that_takes_all_shards_reads_its_cache_once(world: World, journal: Journal) -> None:
    delivered: list[str] = []

    def mapper(changed: ConfigMap, _: View) -> list[ObjectKey]:
        delivered.append(changed.name)
        return []

    controller = journal.controller("a").watches(ConfigMap, to=mapper)
    async with world.manager(controller, lease="op", shards=Shards(8), settings=settings("a"), name="op"):
        await until_sizes(world, [8], within=5)
        await world.advance(20)
        assert len(journal.seen) == OBJECTS
        assert delivered.count("m0") == 2, "in the first list, and once for all shards"


@pytest.mark.conformance("sharding-2")
async def test_a_replica_that_joins_takes_its_share_and_every_key_of_it(world: World, journal: Journal) -> None:
    async with replica(world, journal, "a"):
        await until_sizes(world, [8], within=5)
        await world.advance(20)
        journal.by.clear()
        async with replica(world, journal, "b"):
            await until_sizes(world, [4, 4], within=10)
            await world.advance(10)
            taken = {key for key, names in journal.by.items() if "b" in names}
            shards = Shards(8)
            assert taken == {key for key in journal.seen if shards.shard_of(key) in holders(world)["b"]}
            assert journal.overlaps == []


@pytest.mark.conformance("sharding-2")
async def test_after_a_clean_stop_the_others_take_over_within_five_seconds(world: World, journal: Journal) -> None:
    async with replica(world, journal, "a"):
        async with replica(world, journal, "b"):
            await until_sizes(world, [4, 4], within=15)
            await world.advance(10)
        stopped_at = monotonic()
        assert not [lease for lease in world.list(Lease) if lease.name.startswith("op-member-")][1:]
        await until_sizes(world, [8], within=5)
        for number in range(OBJECTS):
            put(world, number, "1")
        await world.advance(10)
        assert monotonic() - stopped_at < 20
        assert set(journal.seen.values()) == {"1"}
        assert journal.overlaps == []


@pytest.mark.conformance("sharding-3")
async def test_shards_of_a_replica_that_is_cut_off_are_taken_when_their_leases_have_expired(
    world: World, journal: Journal
) -> None:
    transport = world.transport()
    async with replica(world, journal, "a"), cut_off(replica(world, journal, "b", transport=transport)):
        await until_sizes(world, [4, 4], within=15)
        await world.advance(10)
        transport.reachable = False
        transport.break_streams()
        for number in range(OBJECTS):
            put(world, number, "1")
        cut_at = monotonic()
        await until_sizes(world, [8], within=25)
        assert monotonic() - cut_at > 9
        await world.advance(10)
        assert set(journal.seen.values()) == {"1"}
        assert journal.overlaps == []


@pytest.mark.conformance("sharding-3")
async def test_writes_of_a_reconcile_are_fenced_with_the_lease_of_its_shard(world: World) -> None:
    """The reconcile ignores its cancellation, which comes when the lease is lost."""
    transport = world.transport()
    put(world, 0)
    outcomes: list[str] = []

    async def stubborn(request: Request[ConfigMap]) -> Again | None:
        transport.reachable = False
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        transport.reachable = True
        try:
            await request.api.apply(Secret(metadata=ObjectMeta(name="late", namespace="default")))
        except NotLeader as error:
            outcomes.append(str(error))
        return None

    world.install(Secret)
    manager = world.manager(
        Controller(ConfigMap, stubborn), lease="op", shards=Shards(1), settings=settings("a"), transport=transport
    )
    async with cut_off(manager):
        await asyncio.sleep(40)
    assert len(outcomes) == 1
    assert "op-shard-0" in outcomes[0]
    assert world.find(Secret, "late") is None


@pytest.mark.conformance("sharding-4")
async def test_a_shard_is_handed_over_after_its_reconciles_have_ended(world: World, journal: Journal) -> None:
    journal.seconds = 20.0
    async with replica(world, journal, "a"):
        await world.advance(5)
        async with replica(world, journal, "b"):
            await until_sizes(world, [4, 4], within=60)
            await world.advance(200)
            assert len(journal.seen) == OBJECTS
            assert journal.overlaps == []


@pytest.mark.conformance("sharding-4")
async def test_a_reconcile_that_does_not_end_is_cancelled_and_the_lease_expires(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="m", namespace="default")))
    started: list[tuple[str, float]] = []
    ended: list[float] = []

    def controller(name: str) -> Controller[ConfigMap]:
        async def reconcile(_: Request[ConfigMap]) -> None:
            started.append((name, monotonic()))
            try:
                await asyncio.sleep(250)
            finally:
                ended.append(monotonic())

        return Controller(ConfigMap, reconcile, name="maps")

    def make(name: str) -> Manager:
        shards = Shards(2, by=lambda _: "x")
        return world.manager(controller(name), lease="op", shards=shards, settings=settings(name), name="op")

    assert Shards(2, by=lambda _: "x").shard_of("m") == 1, "the shard with the greatest number is handed over first"
    async with make("b"):
        await asyncio.sleep(5)
        async with make("a"):
            await asyncio.sleep(70)
    assert [name for name, _ in started] == ["b", "a"]
    assert 30 <= ended[0] - 5 <= 34
    assert 5 <= started[1][1] - ended[0] <= 18, "requests of the cancelled reconcile may still reach the server"


@pytest.mark.conformance("sharding-5")
async def test_periodic_controllers_run_only_in_the_leader(world: World, journal: Journal) -> None:
    runs: list[str] = []

    def make(name: str) -> Manager:
        async def tick(_: PeriodicRequest) -> None:
            runs.append(name)

        return world.manager(
            journal.controller(name),
            Controller.every(10, tick, name="tick"),
            lease="op",
            shards=Shards(4),
            settings=settings(name),
            name="op",
        )

    async with make("a") as first, make("b"):
        await first.wait_elected()
        await world.advance(60)
        assert set(runs) == {"a"}
        assert {name for names in journal.by.values() for name in names} == {"a", "b"}


@pytest.mark.conformance("sharding-5")
async def test_keys_with_the_same_part_belong_to_one_replica(world: World) -> None:
    journal = Journal()
    for namespace in ("one", "two", "three", "four"):
        world.put(Namespace(metadata=ObjectMeta(name=namespace)))
        for number in range(5):
            put(world, number, namespace=namespace)

    def by_namespace(key: Hashable) -> str:
        assert isinstance(key, ObjectKey)
        return key.namespace

    shards = Shards(8, by=by_namespace)
    async with replica(world, journal, "a", shards=shards), replica(world, journal, "b", shards=shards):
        await until_sizes(world, [4, 4], within=15)
        await world.advance(20)
        journal.by.clear()
        for namespace in ("one", "two", "three", "four"):
            for number in range(5):
                put(world, number, "1", namespace)
        await world.advance(10)
        of_namespace: dict[str, set[str]] = {}
        for key, names in journal.by.items():
            of_namespace.setdefault(key.namespace, set()).update(names)
        assert {len(names) for names in of_namespace.values()} == {1}


@pytest.mark.sample(2)
@pytest.mark.conformance("sharding-4")
@pytest.mark.parametrize("seed", range(6))
async def test_no_change_is_lost_while_replicas_come_and_go(world: World, seed: int) -> None:
    rng = random.Random(seed)
    journal = Journal(seconds=1.0)
    for number in range(20):
        put(world, number)
    transports: dict[str, InMemoryTransport] = {}
    async with AsyncExitStack() as stack:
        running: dict[str, AsyncExitStack] = {}
        for step in range(12):
            name = rng.choice("abcd")
            if name in running:
                if rng.random() < 0.5:  # a crash: the replica cannot reach the server any more
                    transports[name].reachable = False
                    transports[name].break_streams()
                    await world.advance(rng.uniform(0, 12))
                with suppress(NotLeader):
                    await running.pop(name).aclose()
            elif len(running) < 3:
                transports[name] = world.transport()
                own = running[name] = await stack.enter_async_context(AsyncExitStack())
                await own.enter_async_context(cut_off(replica(world, journal, name, transport=transports[name])))
            for number in rng.sample(range(20), 5):
                put(world, number, f"{step}")
            await world.advance(rng.uniform(0, 15))
        async with replica(world, journal, "e"):
            await world.advance(60)
            current = {each.key: each.data["v"] for each in world.list(ConfigMap) if each.name.startswith("m")}
            assert journal.seen == current
            assert journal.overlaps == []


async def test_the_lease_of_a_replica_that_ended_long_ago_is_deleted(world: World, journal: Journal) -> None:
    transport = world.transport()
    async with replica(world, journal, "a"):
        async with cut_off(replica(world, journal, "b", transport=transport)):
            await until_sizes(world, [4, 4], within=15)
            transport.reachable = False
            transport.break_streams()
            await world.advance(15)
        members = [lease.name for lease in world.list(Lease) if lease.name.startswith("op-member-")]
        assert len(members) == 2
        await world.advance(80)
        members = [lease.name for lease in world.list(Lease) if lease.name.startswith("op-member-")]
        assert len(members) == 1


async def test_without_leader_election_one_process_reconciles_everything(world: World, journal: Journal) -> None:
    manager = world.manager(
        journal.controller("a"), lease="op", shards=Shards(4), settings=settings("a", leader_elect=False)
    )
    async with manager:
        await world.advance(20)
        assert len(journal.seen) == OBJECTS
        assert world.list(Lease) == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Shards(0), "Shards\\(count=0\\): a number from 1 to 256 is needed"),
        (lambda: Shards(257), "from 1 to 256"),
        (lambda: Shards(True), "from 1 to 256"),
        (lambda: Shards(4, by="namespace"), "write by=lambda key: key.namespace"),  # type: ignore[arg-type]
        (lambda: Manager(settings("a"), shards=Shards(4)), "shards= needs lease="),
        (lambda: Manager(settings("a"), lease="a" * 64, shards=Shards(4)), "at most 63 characters"),
        (lambda: Manager(settings("a"), lease="op", shards=4), "takes Shards\\(8\\), not 4"),  # type: ignore[arg-type]
    ],
)
def test_values_that_cannot_work_are_refused(make: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        make()


def test_shares_add_up_to_all_shards() -> None:
    for shards in (1, 3, 8, 16):
        for count in range(1, 12):
            members = [f"member-{number}" for number in range(count)]
            shares = [quota(member, members, shards) for member in members]
            assert sum(shares) == shards
            assert max(shares) - min(shares) <= 1
    assert quota("new", [], 8) == 8
