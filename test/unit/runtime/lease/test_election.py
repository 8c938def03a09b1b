"""Leader election: the leader, the time it may write, and failures of the leader, the server and the clock."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from kaito.runtime.client import Client
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import KaitoRuntimeError, NotLeader
from kaito.runtime.kinds import ConfigMap, Lease
from kaito.runtime.lease import Elector, LeaseTerms
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport, World


def settings(identity: str) -> Settings:
    return Settings(identity=identity, metrics_bind_address="0", health_probe_bind_address="0")


def controller() -> Controller[ConfigMap]:
    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        if request.key.name != "source":
            return None
        await request.api.apply(
            ConfigMap(metadata=ObjectMeta(name=f"{request.key.name}-copy", namespace="default"), data={"k": "v"})
        )
        return Again(1)

    return Controller(ConfigMap, reconcile, name="copier")


def candidate(world: World, identity: str, transport: InMemoryTransport | None = None) -> Manager:
    return world.manager(
        controller(), lease="op", settings=settings(identity), transport=transport, name=identity, seed=len(identity)
    )


def lease_of(world: World) -> Lease:
    return world.get(Lease, "op")


@pytest.mark.conformance(45)
async def test_one_leads_and_a_clean_stop_hands_over_at_once(world: World) -> None:
    async with candidate(world, "second-to-come") as standby_first:
        await standby_first.wait_elected()
        async with candidate(world, "b") as standby:
            await world.advance(60)
            assert (standby_first.is_leader, standby.is_leader) == (True, False)
            assert lease_of(world).spec.holder_identity == "second-to-come"
            assert lease_of(world).labels == {"app.kubernetes.io/managed-by": "second-to-come"}


@pytest.mark.conformance(45)
async def test_after_a_clean_stop_another_leads_within_five_seconds(world: World) -> None:
    leader, standby = candidate(world, "a"), candidate(world, "b")
    await leader.__aenter__()
    await leader.wait_elected()
    async with standby:
        await world.advance(30)
        stopped_at = monotonic()
        await leader.__aexit__(None, None, None)
        await standby.wait_elected()
        assert monotonic() - stopped_at < 5
        spec = lease_of(world).spec
        assert (spec.holder_identity, spec.lease_transitions) == ("b", 1)


@pytest.mark.conformance(45)
async def test_after_a_kill_another_leads_when_the_lease_is_over(world: World) -> None:
    transport = world.transport()

    async def story() -> None:
        async with candidate(world, "a", transport) as leader, candidate(world, "b") as standby:
            await leader.wait_elected()
            await world.advance(30)
            transport.reachable = False
            transport.break_streams()
            killed_at = monotonic()
            await standby.wait_elected()
            assert 10 <= monotonic() - killed_at <= 15 + 2 * 2.2

    with pytest.raises(NotLeader, match="not renewed"):
        await story()


@pytest.mark.conformance(46)
async def test_without_the_api_server_leadership_ends_and_no_write_follows(world: World) -> None:
    transport = world.transport()
    manager = candidate(world, "a", transport)
    world.put(ConfigMap(metadata=ObjectMeta(name="source")))

    async def story() -> None:
        async with manager:
            await manager.wait_elected()
            await asyncio.sleep(20.5)
            transport.reachable = False
            cut_at = monotonic()
            try:
                await asyncio.sleep(60)
            finally:
                assert 8 <= monotonic() - cut_at <= 11
                transport.reachable = True

    with pytest.raises(NotLeader, match="leader election lost"):
        await story()
    writes = world.count("PATCH", ConfigMap)
    with pytest.raises(NotLeader):
        await manager.api.apply(ConfigMap(metadata=ObjectMeta(name="late", namespace="default")))
    assert world.count("PATCH", ConfigMap) == writes
    assert world.find(ConfigMap, "late") is None


@pytest.mark.conformance(46)
def test_a_lost_lease_ends_the_process_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(Settings(metrics_bind_address="0", health_probe_bind_address="0"), name="x")

    async def lose(_: Manager) -> Manager:
        message = "leader election lost: not renewed"
        raise NotLeader(message)

    monkeypatch.setattr(Manager, "__aenter__", lose)
    with pytest.raises(SystemExit) as exit_:
        manager.run()
    assert exit_.value.code == 1


class SteppingClock:
    """Wall time that a test can set."""

    def __init__(self, start: datetime) -> None:
        self.offset = timedelta()
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=monotonic()) + self.offset


@asynccontextmanager
async def campaign(
    world: World, identity: str, *, clock: SteppingClock | None = None, lag: list[float] | None = None
) -> AsyncGenerator[Elector]:
    """An elector that leads, and renews in the background."""
    lag = lag if lag is not None else [0.0]
    elector = elector_for(world, identity, clock=clock, lag=lag)
    await elector.acquire()
    async with TaskScope("test") as scope:
        scope.spawn(elector.renew(), name="renew")
        yield elector


def elector_for(
    world: World,
    identity: str,
    *,
    clock: SteppingClock | None = None,
    lag: list[float] | None = None,
    lease: str = "op",
    seed: int = 1,
    latency: float = 0.0,
) -> Elector:
    terms = LeaseTerms(name=lease, namespace="default", identity=identity)
    client = Client(world.transport(latency=latency), field_manager="test", timeout=terms.request_timeout)
    lag = lag if lag is not None else [0.0]
    return Elector(
        client,
        terms,
        now=asyncio.get_running_loop().time,
        clock=clock or world.clock,
        jitter=random.Random(seed).random,
        may_renew=lambda: lag[0] < terms.renew_deadline,
    )


@pytest.mark.conformance(47)
@pytest.mark.parametrize("hours", [1, -1])
async def test_a_jump_of_the_wall_clock_changes_nothing(world: World, hours: int) -> None:
    clock = SteppingClock(world.now)
    rival = elector_for(world, "rival", clock=SteppingClock(world.now + timedelta(hours=hours)))
    async with campaign(world, "a", clock=clock) as elector, TaskScope("rival") as scope:
        scope.spawn(rival.acquire(), name="acquire")
        await asyncio.sleep(30)
        clock.offset = timedelta(hours=hours)
        for _ in range(60):
            await asyncio.sleep(1)
            elector.check()
            assert rival.holder == "a"
    assert lease_of(world).spec.lease_transitions == 0


@pytest.mark.conformance(48)
async def test_a_blocked_main_loop_is_not_renewed_for_and_stays_fenced(world: World) -> None:
    lag = [0.0]
    elector = elector_for(world, "a", lag=lag)
    await elector.acquire()
    async with TaskScope("test") as scope:
        renewing = scope.spawn(elector.renew(), name="renew")
        await asyncio.sleep(20)
        before = lease_of(world).spec.renew_time
        lag[0] = 12.0
        await asyncio.sleep(5)
        assert lease_of(world).spec.renew_time == before
        assert "not renewed" in await renewing
        with pytest.raises(NotLeader):
            elector.check()
        lag[0] = 0.0
        with pytest.raises(NotLeader):
            elector.check()


async def test_the_fence_closes_before_the_lease_can_expire(world: World) -> None:
    elector = elector_for(world, "a")
    await elector.acquire()
    await asyncio.sleep(11.9)
    elector.check()
    await asyncio.sleep(0.2)
    with pytest.raises(NotLeader, match="write rejected"):
        elector.check()


async def test_the_lease_counts_from_before_the_request(world: World) -> None:
    elector = elector_for(world, "a", latency=4.0)
    started = monotonic()
    await elector.acquire()
    took = monotonic() - started
    assert elector.remaining <= 12 - took / 2


async def test_a_short_outage_is_survived(world: World) -> None:
    async with campaign(world, "a") as elector:
        await asyncio.sleep(10.5)
        fault = world.fail_next(kind=Lease, status=503, times=None)
        await asyncio.sleep(7)
        world.server.faults.remove(fault)
        for _ in range(30):
            await asyncio.sleep(1)
            elector.check()


async def test_a_lease_taken_by_another_hand_is_given_up(world: World) -> None:
    elector = elector_for(world, "a")
    await elector.acquire()
    world.patch(Lease, "op", {"spec": {"holderIdentity": "intruder"}})
    assert await elector.renew() == "intruder holds it"
    with pytest.raises(NotLeader):
        elector.check()


async def test_a_deleted_lease_is_made_again(world: World) -> None:
    async with campaign(world, "a"):
        world.delete(Lease, "op")
        await asyncio.sleep(3)
        assert lease_of(world).spec.holder_identity == "a"


async def test_release_leaves_a_lease_of_another_alone(world: World) -> None:
    elector = elector_for(world, "a")
    await elector.acquire()
    world.patch(Lease, "op", {"spec": {"holderIdentity": "b"}})
    await elector.release()
    assert lease_of(world).spec.holder_identity == "b"


@pytest.mark.slow("test_a_race_for_an_expired_lease_has_one_winner_in_any_interleaving")
@pytest.mark.conformance(49)
async def test_a_race_has_exactly_one_winner(world: World) -> None:
    for seed in range(1000):
        rng = random.Random(seed)
        lease = f"race-{seed}"
        electors = [
            elector_for(world, f"c{n}", lease=lease, seed=seed * 10 + n, latency=rng.choice([0.0, 0.01, 0.01]))
            for n in range(3)
        ]
        async with TaskScope("race") as scope:
            tasks = [scope.spawn(elector.acquire(), name=elector.terms.identity) for elector in electors]
            await asyncio.sleep(1.0 + rng.random())
            winners = [elector for elector, task in zip(electors, tasks, strict=True) if task.done()]
            assert len(winners) == 1, f"seed {seed}: {[winner.terms.identity for winner in winners]}"
            assert world.get(Lease, lease).spec.holder_identity == winners[0].terms.identity


@pytest.mark.sample(4)
@pytest.mark.conformance(49)
@pytest.mark.seeds(25)
async def test_a_race_for_an_expired_lease_has_one_winner_in_any_interleaving(world: World) -> None:
    dead = elector_for(world, "dead")
    await dead.acquire()
    electors = [elector_for(world, f"c{n}", seed=n) for n in range(4)]
    async with TaskScope("race") as scope:
        tasks = [scope.spawn(elector.acquire(), name=elector.terms.identity) for elector in electors]
        await asyncio.sleep(25)
        assert sum(task.done() for task in tasks) == 1
    assert lease_of(world).spec.lease_transitions == 1


async def test_the_standby_is_warm_and_the_election_is_reported(world: World) -> None:
    async with candidate(world, "a") as leader:
        await leader.wait_elected()
        async with candidate(world, "b") as standby:
            world.put(ConfigMap(metadata=ObjectMeta(name="source")))
            await world.settle()
            assert standby.queues[0].depth() == {0: 2}  # the source and the leader's copy of it
            assert standby.cache.synced
            assert standby.readyz.report().healthy
            assert leader.metrics.value("leader_election_master_status", name="op") == 1
            assert standby.metrics.value("leader_election_master_status", name="op") == 0
            assert leader.metrics.value("kaito_runtime_lease_remaining_seconds", name="op") > 9
    notes = [str(event.to_dict().get("note")) for event in world.events()]
    assert "a became leader" in notes
    assert "a stopped leading" in notes


async def test_writes_of_a_standby_are_fenced(world: World) -> None:
    async with candidate(world, "a") as leader:
        await leader.wait_elected()
        async with candidate(world, "b") as standby:
            with pytest.raises(KaitoRuntimeError, match="write rejected"):
                await standby.api.create(ConfigMap(metadata=ObjectMeta(name="x", namespace="default")))


async def test_a_renewal_whose_answer_was_lost_is_picked_up_from_the_record(world: World) -> None:
    async with campaign(world, "a") as elector:
        await asyncio.sleep(5)
        world.fail_next("PUT", Lease, drop_connection=True, times=2)
        for _ in range(20):
            await asyncio.sleep(1)
            elector.check()
    spec = lease_of(world).spec
    assert (spec.holder_identity, spec.lease_transitions) == ("a", 0)


async def test_a_campaign_without_permission_waits_and_says_so(world: World) -> None:
    fault = world.fail_next(kind=Lease, status=403, message="leases is forbidden", times=None)
    async with candidate(world, "a") as manager:
        await asyncio.sleep(60)
        assert not manager.is_leader
        world.server.faults.remove(fault)
        await manager.wait_elected()
