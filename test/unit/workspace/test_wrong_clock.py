"""The clock of the controller's machine is a day ahead or behind: deadlines are those of the API server's time."""

from typing import TYPE_CHECKING

import pytest

from kaito.api import Workspace
from kaito.runtime.testing.simulate.wall_clock import ProcessClock

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

DAY = 86400.0


@pytest.mark.parametrize("ahead", [DAY, -DAY])
async def test_a_claim_without_an_instance_is_given_up_at_its_time(
    cluster: "Cluster", phi: Workspace, ahead: float
) -> None:
    world, clock = cluster.world, ProcessClock(cluster.world.clock)
    clock.offset_seconds = ahead
    cluster.apply(phi)
    async with cluster.controller(clock=clock) as manager:
        await world.settle()
        claim = cluster.claim()
        await world.advance(cluster.settings.node_provision_timeout_seconds - 30)
        assert cluster.claim().uid == claim.uid
        await world.advance(120)
        assert claim.uid not in [each.uid for each in cluster.claims()]
        assert manager.metrics.value("kaito_runtime_clock_skew_seconds") == pytest.approx(ahead, abs=2)


@pytest.mark.parametrize("ahead", [DAY, -DAY])
async def test_a_clock_that_jumps_does_not_give_up_a_claim(cluster: "Cluster", phi: Workspace, ahead: float) -> None:
    world, clock = cluster.world, ProcessClock(cluster.world.clock)
    cluster.apply(phi)
    async with cluster.controller(clock=clock):
        await world.settle()
        claim = cluster.claim()
        clock.offset_seconds = ahead
        cluster.apply(
            phi.model_copy(deep=True, update={"metadata": phi.metadata.model_copy(update={"labels": {"a": "b"}})})
        )
        await world.advance(300)
        assert cluster.claim().uid == claim.uid


async def test_the_status_contains_the_time_of_the_api_server(cluster: "Cluster", phi: Workspace) -> None:
    world, clock = cluster.world, ProcessClock(cluster.world.clock)
    clock.offset_seconds = DAY
    cluster.apply(phi)
    async with cluster.controller(clock=clock):
        await world.settle()
        times = [condition.last_transition_time for condition in cluster.workspace().status.conditions]
        assert times
        assert all(at is not None and abs((at - world.now).total_seconds()) < 3 for at in times)
