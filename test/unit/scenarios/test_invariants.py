"""Prices of mistakes: whatever the cloud, the prices or other controllers do, these hold at every step.

* never more nodes than planned: neither claims nor agent pools, evicted and deleted ones excepted;
* never above the limits of the cost;
* every wait has a cause, and a time if nothing is in progress;
* when the trouble ends, the Workspace becomes ready, and nothing else is left.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from kaito.api import labels
from kaito.cloud.azure.simulator import named
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.kinds import Namespace
from kaito.runtime.meta import ObjectMeta

if TYPE_CHECKING:
    from test.unit.scenarios.conftest import System

A100, H100, A100_2 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5", "Standard_NC48ads_A100_v4"
PRESET = "qwen2.5-coder-32b-instruct"
PRICES: Final = {A100.lower(): 4.0, H100.lower(): 7.0, A100_2.lower(): 8.0}
COPIES = 2
CEILING = 8.0
STEP = 15.0
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")

pytestmark = pytest.mark.timeout(300)
"""Hours of virtual time are many reconciles."""

Act = Callable[["System"], Awaitable[None]]


def table(**changes: float) -> PriceBook:
    """Prices per hour; spot costs a quarter."""
    prices = PRICES | {name.lower(): price for name, price in changes.items()}
    rows = [f"{{region: eastus, instanceType: {name}, onDemand: {p}, spot: {p / 4}}}" for name, p in prices.items()]
    return PriceBook(own=parse_table(f"prices: [{', '.join(rows)}]", "own"))


class Watch:
    """Advances the time and checks the invariants at every step."""

    def __init__(self, system: "System", most_puts: int) -> None:
        self.system, self.most_puts = system, most_puts

    def check(self) -> None:
        live = [claim for claim in self.system.claims() if not claim.deleting]
        assert len(live) <= COPIES, [claim.name for claim in live]
        cost = sum(PRICES[claim.instance_type.lower()] for claim in live)
        assert cost <= CEILING, f"{cost} per hour"
        owned = {claim.name for claim in self.system.claims()}
        assert len(self.system.pools.keys() & {claim.name for claim in live}) <= COPIES
        assert len(self.system.puts) <= self.most_puts, f"{len(self.system.puts)} requests for agent pools: {owned}"
        self._check_wait(is_progressing=bool(self.system.claims()))

    def _check_wait(self, *, is_progressing: bool) -> None:
        if not self.system.workspace().status.conditions or self.system.is_ready():
            return
        causes = [self.system.condition(each) for each in ("WorkspaceReady", "ResourceReady", "InferenceReady")]
        waiting = [(reason, message) for status, reason, message in causes if status != "True"]
        assert waiting, causes
        assert all(reason and message for reason, message in waiting), causes
        if not is_progressing:
            assert any(TIME.search(message) for _, message in waiting), waiting

    async def run(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP)):
            await self.system.world.advance(STEP)
            self.check()

    async def until_ready(self, within: float) -> None:
        waited = 0.0
        while not self.system.is_ready():
            assert waited < within, self.system.condition("WorkspaceReady")
            await self.run(STEP)
            waited += STEP


def quota(name: str, cores: int) -> tuple[Act, Act]:
    async def begin(system: "System") -> None:
        cluster = system.simulator.cluster
        family = next(size.family for size in cluster.catalog.sizes.values() if size.name == A100).lower()
        cluster.quota[family if name == "family" else name] = cores

    async def end(system: "System") -> None:
        system.simulator.cluster.quota.clear()

    return begin, end


def fault(name: str, times: int) -> tuple[Act, Act]:
    async def begin(system: "System") -> None:
        system.simulator.faults.add(named(name, times=times))

    async def end(system: "System") -> None:
        system.simulator.faults.clear()

    return begin, end


def nodes(**knobs: Any) -> tuple[Act, Act]:
    async def begin(system: "System") -> None:
        system.simulator.knobs.set(**knobs)

    async def end(system: "System") -> None:
        system.simulator.knobs.clear()
        system.simulator.knobs.set(heartbeat_seconds=3600)

    return begin, end


def stock(left: int) -> tuple[Act, Act]:
    async def begin(system: "System") -> None:
        system.out_of_stock(A100, left=left)

    async def end(system: "System") -> None:
        system.in_stock(A100)

    return begin, end


def prices(**changes: float) -> tuple[Act, Act]:
    """The table of prices is read at the start of the controller. A node is lost at the same time."""

    async def begin(system: "System") -> None:
        await system.stop_controller()
        system.prices = table(**changes)
        system.world.delete(system.kind, system.claims()[0].name)
        await system.start_controller()

    async def end(system: "System") -> None:
        await system.stop_controller()
        system.prices = table()
        await system.start_controller()

    return begin, end


def budget(amount: str) -> tuple[Act, Act]:
    """The budget of the namespace is lowered, and a node is lost."""

    async def begin(system: "System") -> None:
        annotations = {labels.HOURLY_BUDGET: amount}
        system.world.put(Namespace(metadata=ObjectMeta(name="default", annotations=annotations)))
        system.world.delete(system.kind, system.claims()[0].name)

    async def end(system: "System") -> None:
        system.world.put(Namespace(metadata=ObjectMeta(name="default")))

    return begin, end


BEFORE: Final = {
    "no quota of the family": quota("family", 0),
    "quota of the family for one node": quota("family", 24),
    "no quota of the region": quota("cores", 0),
    "no stock": stock(0),
    "stock of one node": stock(1),
    "no stock in a zone": fault("zonal-capacity", 6),
    "nodes that never join": nodes(never_join=True),
    "nodes without GPUs": nodes(gpu_count_override=0),
    "succeeded, and failed later": fault("succeeded-but-failed", 4),
    "operations that never end": fault("never-ends", 4),
    "accepted, and the answer lost": fault("accepted-then-dropped", 4),
    "the operation's status lost": fault("status-lost", 4),
    "the subnet is full": fault("subnet-full", 6),
    "a policy refuses": fault("policy", 6),
}
"""Troubles that exist before the Workspace."""

DURING: Final = {
    "evictions with notice": nodes(evicted_after=30.0),
    "evictions without notice": nodes(evicted_after=0.0),
    "nodes that fall silent": nodes(heartbeat_stop=True),
    "nodes that become not ready": nodes(not_ready=True),
    "the price rises above the limit": prices(**{A100: 5.0}),
    "a lower budget": budget("4"),
    "a budget that is not an amount": budget("four"),
}
"""Troubles that begin while the Workspace is ready."""


@pytest.fixture(autouse=True)
def own_prices(system: "System") -> None:
    system.prices = table()


async def finish(watch: Watch) -> None:
    """The trouble is over: the Workspace becomes ready and stays it, with its nodes and nothing else."""
    system = watch.system
    await watch.until_ready(7200)
    await watch.run(1800)
    assert system.is_ready()
    assert len(system.claims()) == COPIES
    assert system.pools.keys() == {claim.name for claim in system.claims()}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", BEFORE)
async def test_trouble_from_the_beginning(system: "System", name: str) -> None:
    begin, end = BEFORE[name]
    await begin(system)
    await system.start()
    watch = Watch(system, most_puts=30)
    system.apply(preset=PRESET, instanceTypes=[A100, H100], count=COPIES, zones=["3"], maxHourlyCost="8.00")
    await watch.run(3600)
    await end(system)
    await finish(watch)


@pytest.mark.slow("test_trouble_from_the_beginning")
@pytest.mark.parametrize("name", DURING)
async def test_trouble_in_the_middle(system: "System", name: str) -> None:
    begin, end = DURING[name]
    await system.start()
    watch = Watch(system, most_puts=30)
    system.apply(preset=PRESET, instanceType=A100, count=COPIES, maxHourlyCost="8.00")
    await watch.until_ready(3600)
    await watch.run(700)
    await begin(system)
    await watch.run(3600)
    await end(system)
    await finish(watch)


@pytest.mark.slow("test_two_controllers_race_while_the_cloud_has_no_capacity")
async def test_two_controllers_race(system: "System") -> None:
    """Both believe that they lead: a process that was paused, and its successor."""
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100, H100], count=COPIES, maxHourlyCost="8.00")
    watch = Watch(system, most_puts=12)
    async with system.second_controller():
        await watch.until_ready(3600)
        await watch.run(700)
        system.world.delete(system.kind, system.claims()[0].name)
        await watch.run(60)
        await finish(watch)
    assert len(system.puts) == COPIES + 1


async def test_two_controllers_race_while_the_cloud_has_no_capacity(system: "System") -> None:
    system.out_of_stock(A100)
    await system.start()
    watch = Watch(system, most_puts=16)
    async with system.second_controller():
        system.apply(preset=PRESET, instanceTypes=[A100, A100_2], count=1, maxHourlyCost="8.00")
        await watch.until_ready(3600)
    assert sorted(system.pools.values()) == [A100_2]


@pytest.mark.slow("test_two_controllers_race_while_the_cloud_has_no_capacity")
async def test_two_provisioners_race(system: "System") -> None:
    """Both create the agent pool of a claim; the cloud keeps one of that name."""
    await system.start()
    watch = Watch(system, most_puts=4 * COPIES)
    async with system.second_provisioner():
        system.apply(preset=PRESET, instanceTypes=[A100, H100], count=COPIES, maxHourlyCost="8.00")
        await watch.until_ready(3600)
        await watch.run(700)
        system.world.delete(system.kind, system.claims()[0].name)
        await watch.run(60)
        await finish(watch)


@pytest.mark.slow("test_two_controllers_race_while_the_cloud_has_no_capacity")
async def test_two_of_everything_race_while_the_cloud_has_no_capacity(system: "System") -> None:
    system.out_of_stock(A100)
    await system.start()
    watch = Watch(system, most_puts=24)
    async with system.second_provisioner(), system.second_controller():
        system.apply(preset=PRESET, instanceTypes=[A100, A100_2], count=1, maxHourlyCost="8.00")
        await watch.until_ready(3600)
        await watch.run(900)
    assert sorted(system.pools.values()) == [A100_2]
    assert len(system.claims()) == 1
