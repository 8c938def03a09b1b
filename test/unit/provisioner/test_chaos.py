"""Random actions of users, faults of Azure, and restarts: in the end, pools and ready claims match."""

import random
from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import named
from kaito.runtime.kinds import Node

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

FAULTS = (
    "throttled",
    "server-error",
    "drop",
    "truncated",
    "busy",
    "capacity",
    "canceled",
    "status-lost",
    "accepted-then-dropped",
    "succeeded-but-failed",
    "slow-delete",
)
STEPS = 25


class Monkey:
    """Performs random actions, repeatable by the seed."""

    def __init__(self, stage: "Stage", seed: int) -> None:
        self.stage = stage
        self.rng = random.Random(seed)  # repeatable order, not a secret
        self.created = 0
        self.running = False

    async def step(self) -> None:
        act = self.rng.choice(
            (self.create, self.create, self.delete, self.delete_node, self.delete_pool, self.fault, self.restart)
        )
        await act()
        await self.stage.world.advance(self.rng.choice((0, 1, 15, 60, 200)))
        claims = {claim.name for claim in self.stage.world.list(self.stage.kind)}
        mine = {name for name in self.stage.pools if self.stage.pool(name).state != "Deleting"}
        assert mine <= claims, "never more pools than claims"

    async def create(self) -> None:
        if self.created < 6:
            self.stage.claim(f"ws{self.created}")
            self.created += 1

    async def delete(self) -> None:
        claims = self.stage.world.list(self.stage.kind)
        if claims:
            self.stage.delete(self.rng.choice(claims).name)

    async def delete_node(self) -> None:
        nodes = self.stage.nodes
        if nodes:
            self.stage.world.delete(Node, self.rng.choice(nodes).name)

    async def delete_pool(self) -> None:
        if self.stage.pools and self.rng.random() < 0.5:
            self.stage.simulator.cluster.delete(self.rng.choice(self.stage.pools))

    async def fault(self) -> None:
        self.stage.simulator.faults.add(named(self.rng.choice(FAULTS), times=self.rng.randint(1, 3)))

    async def restart(self) -> None:
        if self.running:
            await self.stage.stop()
        else:
            await self.stage.start()
        self.running = not self.running


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(4))
async def test_pools_match_ready_claims_after_random_faults(stage: "Stage", seed: int) -> None:
    monkey = Monkey(stage, seed)
    await monkey.restart()
    for _ in range(STEPS):
        await monkey.step()

    stage.simulator.faults.clear()
    if not monkey.running:
        await monkey.restart()
    await stage.world.advance(2 * 3600)
    claims = stage.world.list(stage.kind)
    assert [claim.name for claim in claims if not claim.is_ready] == []
    assert stage.pools == sorted(claim.name for claim in claims)
    assert sorted(node.labels["agentpool"] for node in stage.nodes) == stage.pools


async def test_two_concurrent_provisioners_create_one_pool_per_claim(stage: "Stage") -> None:
    """A former leader that has not noticed the loss of its lease runs beside the new one."""
    await stage.start()
    first, stage._running = stage._running, None  # pyright: ignore[reportPrivateUsage]
    await stage.start()
    for number in range(4):
        stage.claim(f"ws{number}")
    for number in range(4):
        await stage.until_ready(f"ws{number}")
    assert stage.pools == [f"ws{number}" for number in range(4)]
    for number in range(4):
        stage.delete(f"ws{number}")
    for number in range(4):
        await stage.until_gone(f"ws{number}")
    assert (stage.pools, stage.nodes) == ([], [])
    assert first is not None
    await first.aclose()
