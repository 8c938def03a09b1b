"""Many claims at once: requests stay within a rate, and every claim becomes Ready."""

from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import named
from kaito.runtime.clock import monotonic

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


@pytest.mark.slow("test_claims_become_ready_in_spite_of_a_limit_of_operations")
async def test_many_claims_become_ready_in_spite_of_429(stage: "Stage") -> None:
    stage.simulator.faults.add(named("throttled", method="PUT", times=20, headers={"Retry-After": "20"}))
    await stage.start()
    names = [f"ws{number}" for number in range(30)]
    for name in names:
        stage.claim(name)
    await stage.until("all ready", lambda: all(stage.get(name).is_ready for name in names), within=3600, step=60)
    assert stage.pools == sorted(names)
    assert sum(request.method == "PUT" for request in stage.simulator.api.requests) == 50
    assert len(stage.simulator.api.requests) < 8 * monotonic() + 40, "8 requests a second after a burst of 40"

    for name in names:
        stage.delete(name)
    await stage.until("all gone", lambda: not stage.pools, within=3600, step=60)
    await stage.until("claims gone", lambda: not stage.world.list(stage.kind), within=600)
    assert stage.nodes == []


async def test_claims_become_ready_in_spite_of_a_limit_of_operations(stage: "Stage") -> None:
    cluster = stage.simulator.cluster
    cluster.settings = cluster.settings.model_copy(update={"max_operations": 2})
    await stage.start()
    for number in range(6):
        stage.claim(f"ws{number}")
    await stage.until("all ready", lambda: all(stage.get(f"ws{n}").is_ready for n in range(6)), within=3600, step=30)
    assert len(stage.pools) == 6
