"""Rate limits as documented by AKS, and lists shared by all reads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Fault, Simulator, SimulatorSettings, named
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.errors import AccessDenied, AlreadyExists, Busy, CloudUnavailable, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.tasks import TaskScope

pytestmark = pytest.mark.virtual_time

SPEC = InstanceSpec(
    name="ws1", instance_type="Standard_NC6s_v3", owner=InstanceOwner("uid", "NodeClaim", "ws1", "here"), disk_gib=100
)


def provider_for(simulator: Simulator, metrics: CloudMetrics | None = None, **changes: Any) -> AzureProvider:
    values: dict[str, Any] = {
        "subscription_id": SimulatorSettings().subscription_id,
        "resource_group": "kaito",
        "cluster": "kaito",
        "endpoint": "http://simulator",
        "credential_mode": "fake",
        **changes,
    }
    return AzureProvider(
        AzureSettings(**values), metrics or CloudMetrics(), transport=InProcessTransport(simulator.api)
    )


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(clock=LoopClock()) as simulator:
        yield simulator


@pytest.fixture
async def scope() -> AsyncIterator[TaskScope]:
    async with TaskScope("test") as scope:
        yield scope


@pytest.fixture
async def azure(simulator: Simulator) -> AsyncIterator[AzureProvider]:
    provider = provider_for(simulator)
    yield provider
    await provider.close()


def kinds(simulator: Simulator) -> Counter[str]:
    """Number of requests by kind."""
    counted: Counter[str] = Counter()
    for entry in simulator.api.requests:
        path = entry.path.lower()
        kind = "operation" if "/operations/" in path else "list" if path.endswith("/agentpools") else entry.method
        counted[kind] += 1
    return counted


def throttled_requests(simulator: Simulator) -> int:
    return sum(entry.status == 429 for entry in simulator.api.requests)


async def test_reads_share_the_next_list(azure: AzureProvider, simulator: Simulator) -> None:
    await azure.create(SPEC)
    simulator.api.requests.clear()
    answers = await asyncio.gather(*(azure.get(f"ws{number}") for number in range(100)))
    assert [answer.name for answer in answers if answer is not None] == ["ws1"]
    assert kinds(simulator) == {"list": 2}, "one list; its second page is empty"


async def test_read_does_not_use_a_list_that_started_before(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    simulator.faults.add(Fault(method="GET", path="/agentPools$", delay=10, after=True))
    first = scope.spawn(azure.get("ws1"), name="work")
    await asyncio.sleep(11)
    simulator.faults.add(Fault(method="GET", path="/agentPools$", delay=5))
    before = scope.spawn(azure.get("ws1"), name="work")
    await asyncio.sleep(1)
    simulator.cluster.put("ws1", {"properties": {"vmSize": "Standard_NC6s_v3"}})
    after = await azure.get("ws1")
    assert after is not None, "the pool exists when the read starts"
    await asyncio.gather(first, before)


async def test_failed_list_fails_the_reads_that_wait_for_it_only(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    simulator.faults.add(named("unauthorized", path="/agentPools$", delay=5))

    async def ask_later() -> object:
        await asyncio.sleep(1)
        return await azure.get("ws1")

    first, second = await asyncio.gather(azure.get("ws1"), ask_later(), return_exceptions=True)
    assert isinstance(first, AccessDenied)
    assert second is None


async def test_canceled_read_does_not_cancel_the_others(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    simulator.faults.add(Fault(method="GET", path="/agentPools$", delay=5, truncate=False, status=None))
    first = scope.spawn(azure.get("ws1"), name="work")
    second = scope.spawn(azure.get("ws1"), name="work")
    await asyncio.sleep(1)
    first.cancel()
    assert await second is None


async def test_deletions_wait_for_the_rate_limit_in_order(azure: AzureProvider, simulator: Simulator) -> None:
    """60 requests at once, then 1 per second, for all pools together; PUTs do not count."""
    order: list[int] = []

    async def delete(number: int) -> None:
        await azure.delete(f"ws{number}")
        order.append(number)

    await asyncio.gather(*(delete(number) for number in range(90)))
    assert order == list(range(90))
    assert monotonic() == pytest.approx(30, abs=0.1)
    assert throttled_requests(simulator) == 0


async def test_each_pool_has_a_rate_limit_for_puts(azure: AzureProvider, simulator: Simulator) -> None:
    """20 PUTs of a pool at once, then 1 per minute; other pools do not wait."""
    simulator.faults.add(named("busy", times=None))

    async def put(name: str) -> float:
        with pytest.raises(Busy):
            await azure.create(replace(SPEC, name=name))
        return monotonic()

    times = await asyncio.gather(*(put("ws1") for _ in range(22)), *(put(f"other{n}") for n in range(30)))
    assert sorted(times[:22])[-3:] == pytest.approx([0, 60, 120], abs=0.1)
    assert max(times[22:]) == 0
    assert throttled_requests(simulator) == 0


async def test_operation_statuses_have_a_separate_rate_limit(azure: AzureProvider, simulator: Simulator) -> None:
    started = await azure.create(SPEC)
    await asyncio.gather(*(azure.operation_status(started.status_url) for _ in range(220)))
    assert monotonic() == pytest.approx(10, abs=0.1), "200 at once and then 2 a second"
    assert throttled_requests(simulator) == 0
    assert await azure.get("ws2") is None, "the rate limit of the pools is not used"
    assert monotonic() == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ("path", "stopped"),
    [("/usages", {"check"}), ("/operations/", {"progress"}), ("/agentPools/ws2$", {"put2"}), ("/agentPools$", {"get"})],
)
async def test_429_pauses_its_own_rate_limit_only(
    azure: AzureProvider, simulator: Simulator, path: str, stopped: set[str]
) -> None:
    """One 429 paused all requests."""
    started = await azure.create(SPEC)
    calls: dict[str, Any] = {
        "get": lambda: azure.get("other"),
        "check": lambda: azure.check_availability(replace(SPEC, name="ws9")),
        "progress": lambda: azure.operation_status(started.status_url),
        "put1": lambda: azure.create(replace(SPEC, name="ws3")),
        "put2": lambda: azure.create(replace(SPEC, name="ws2")),
    }
    await calls["check"]()
    await asyncio.sleep(60)  # the cached usage is stale
    simulator.faults.add(named("throttled", path=path, times=1, headers={"Retry-After": "60"}))
    held: set[str] = set()
    for _ in range(2):
        for name, call in calls.items():
            try:
                await call()
            except Throttled:
                held.add(name)
            except AlreadyExists:
                assert name.startswith("put"), "the second PUT of a pool meets the first"
    assert held == stopped
    assert throttled_requests(simulator) == 1


async def test_long_retry_after_is_capped(azure: AzureProvider, simulator: Simulator) -> None:
    """A Retry-After of 20 minutes delayed the deletion of another claim's instance by 1310 s."""
    simulator.faults.add(named("throttled", path="/agentPools$", headers={"Retry-After": "1200"}))
    with pytest.raises(Throttled):
        await azure.get("ws1")
    with pytest.raises(Throttled) as held:
        await azure.get("ws1")
    assert held.value.retry_after == pytest.approx(120, abs=1)
    await asyncio.sleep(121)
    assert await azure.get("ws1") is None
    assert len(simulator.api.requests) == 2


async def test_short_pause_is_waited_for(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.faults.add(named("throttled", headers={"Retry-After": "3"}))
    with pytest.raises(Throttled):
        await azure.get("ws1")
    assert await azure.get("ws1") is None
    assert monotonic() <= 5


async def test_pause_fails_requests_that_wait_already(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.faults.add(named("throttled", method="DELETE", skip=60, headers={"Retry-After": "100"}))
    results = await asyncio.gather(*(azure.delete(f"ws{n}") for n in range(70)), return_exceptions=True)
    assert [type(result).__name__ for result in results[:60]] == ["NoneType"] * 60
    assert all(isinstance(result, Throttled) for result in results[60:])
    assert len(simulator.api.requests) == 61, "nothing was sent during the pause"


async def test_lists_go_before_waiting_deletions(azure: AzureProvider, simulator: Simulator, scope: TaskScope) -> None:
    deletions = [scope.spawn(azure.delete(f"ws{number}"), name="delete") for number in range(120)]
    await asyncio.sleep(1)
    await azure.list()
    assert monotonic() < 5, "before the 60 deletions that wait"
    await asyncio.gather(*deletions)
    assert throttled_requests(simulator) == 0


async def test_many_tracked_pools_are_watched_within_the_rate_limit(scope: TaskScope) -> None:
    """90 pools for an hour: no 429, and the end of each creation is reported soon."""
    async with Simulator(SimulatorSettings(provision_seconds=200), clock=LoopClock()) as simulator:
        azure = provider_for(simulator)
        seen: dict[str, float] = {}
        following = scope.spawn(azure.watch(lambda name: seen.update({name: monotonic()})), name="work")
        for number in range(90):
            await azure.create(replace(SPEC, name=f"ws{number}"))
            await asyncio.sleep(1)
        await asyncio.sleep(3600)
        late = [seen[f"ws{number}"] - number - 200 for number in range(90)]
        assert max(late) < 11
        assert throttled_requests(simulator) == 0
        assert kinds(simulator)["list"] < 60 + 300
        assert kinds(simulator)["operation"] == 0
        before = len(simulator.api.requests)
        await asyncio.sleep(3600)
        assert len(simulator.api.requests) == before, "no operation is running: no request"
        following.cancel()
        await azure.close()


async def test_tracked_pool_is_read_from_the_last_list(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    changes: list[tuple[str, float]] = []
    following = scope.spawn(azure.watch(lambda name: changes.append((name, monotonic()))), name="work")
    await asyncio.sleep(0)
    await azure.create(SPEC)
    simulator.api.requests.clear()
    for _ in range(50):
        known = await azure.get("ws1")
        assert known is not None
        assert known.state == "creating"
    assert kinds(simulator) == {}, "the created pool is tracked"
    await asyncio.sleep(240)
    assert [name for name, _ in changes] == ["ws1"]
    assert changes[0][1] == pytest.approx(225, abs=11)
    ready = await azure.get("ws1")
    assert ready is not None
    assert ready.state == "ready"

    await azure.delete("ws1")
    deleting = await azure.get("ws1")
    assert deleting is not None
    assert deleting.state == "deleting"
    await asyncio.sleep(45)
    assert [name for name, _ in changes] == ["ws1", "ws1"]
    assert await azure.get("ws1") is None
    following.cancel()


async def test_list_that_started_before_a_write_is_ignored_for_its_pool(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    changes: list[str] = []
    following = scope.spawn(azure.watch(changes.append), name="work")
    await asyncio.sleep(0)
    await azure.create(replace(SPEC, name="other"))
    simulator.faults.add(Fault(method="GET", path="/agentPools$", delay=30, after=True, status=200, body={"value": []}))
    listing = scope.spawn(azure.list(), name="work")
    await asyncio.sleep(1)
    await azure.create(SPEC)
    await listing
    known = await azure.get("ws1")
    assert known is not None, "the list started before the pool was created"
    assert "ws1" not in changes
    following.cancel()


async def test_failing_lists_fail_reads_of_tracked_pools(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    """A watch whose lists fail must not return the last list."""
    following = scope.spawn(azure.watch(lambda _: None), name="work")
    await asyncio.sleep(0)
    await azure.create(SPEC)
    simulator.faults.add(named("server-error", path="/agentPools", times=None))
    await asyncio.sleep(60)
    with pytest.raises(CloudUnavailable):
        await azure.get("ws1")
    simulator.faults.clear()
    await asyncio.sleep(60)
    assert (await azure.get("ws1")) is not None
    following.cancel()


async def test_overall_rate_is_limited_and_waiting_is_counted(simulator: Simulator) -> None:
    metrics, registry = CloudMetrics(), CollectorRegistry()
    metrics.register(registry)
    azure = provider_for(simulator, metrics, requests_per_second=2, request_burst=5)
    await asyncio.gather(*(azure.delete(f"ws{number}") for number in range(25)))
    assert monotonic() == pytest.approx(10, abs=0.1)
    assert registry.get_sample_value("gpu_provisioner_arm_throttled_total", {"by": "us"}) == 20
    await azure.close()


async def test_rate_limits_refill_on_the_clock_of_the_simulator() -> None:
    """At 60 times the speed, the limits of AKS and of the client refill 60 times as fast."""
    async with Simulator(SimulatorSettings(speed=60), clock=LoopClock()) as simulator:
        azure = provider_for(simulator)
        await asyncio.gather(*(azure.delete(f"ws{number}") for number in range(180)))
        assert monotonic() == pytest.approx(2, abs=0.2)
        assert throttled_requests(simulator) == 0
        await azure.close()


@pytest.mark.parametrize("fault", ["server-error", "truncated"])
async def test_pool_is_read_alone_if_the_list_fails(azure: AzureProvider, simulator: Simulator, fault: str) -> None:
    await azure.create(SPEC)
    simulator.faults.add(named(fault, path="/agentPools$", times=None))
    found = await azure.get("ws1")
    assert found is not None
    assert found.owner == SPEC.owner
    assert await azure.get("ws2") is None


async def test_two_processes_share_one_rate_limit(simulator: Simulator, scope: TaskScope) -> None:
    """A process that shares the rate limit is throttled at first, and both continue."""
    both = [provider_for(simulator), provider_for(simulator)]
    seen: set[tuple[int, str]] = set()
    for number, azure in enumerate(both):
        scope.spawn(azure.watch(lambda name, number=number: seen.add((number, name))), name="follow")  # type: ignore[misc]
    await asyncio.sleep(0)
    for number in range(4):
        await both[number % 2].create(replace(SPEC, name=f"ws{number}"))
    await asyncio.sleep(900)
    assert seen == {(number % 2, f"ws{number}") for number in range(4)}
    assert throttled_requests(simulator) < 20


async def test_list_that_reports_a_change_answers_the_next_read(
    azure: AzureProvider, simulator: Simulator, scope: TaskScope
) -> None:
    """Otherwise each of 60 pools that end at once would wait for one more list and occupy a worker."""
    reported = asyncio.Event()
    scope.spawn(azure.watch(lambda _: reported.set()), name="follow")
    await asyncio.sleep(0)
    await azure.create(SPEC)
    await reported.wait()
    simulator.api.requests.clear()
    ready = await azure.get("ws1")
    assert ready is not None
    assert ready.state == "ready"
    assert kinds(simulator) == {}
    await asyncio.sleep(10)
    await azure.get("ws1")
    assert kinds(simulator) == {"list": 1}, "later reads need a list; its first page is sufficient"
    reported.clear()
    await azure.delete("ws1")
    await reported.wait()
    simulator.api.requests.clear()
    assert await azure.get("ws1") is None
    await azure.create(SPEC)
    again = await azure.get("ws1")
    assert again is not None
    assert again.state == "creating", "a later write of this process overrides the list"
    assert kinds(simulator) == {"PUT": 1}
