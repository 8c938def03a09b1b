"""A provisioner that crashes at any write and restarts reaches the same state, without a second pool."""

from typing import TYPE_CHECKING

import pytest

from kaito.api import labels
from kaito.runtime.testing import CrashPoint

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

LAUNCH_WRITES = 16
"""Writes, to cluster and cloud together, until a claim is ready. A test fails if one needs fewer: nothing would die."""

DELETION_WRITES = 10
"""And until it is deleted."""


@pytest.mark.sample(4)
@pytest.mark.parametrize("requests", range(1, LAUNCH_WRITES + 1))
async def test_launch_continues_after_a_crash_at_any_write(stage: "Stage", requests: int) -> None:
    stage.claim()
    crash = CrashPoint(requests)
    await stage.start(crash=crash)
    waited = await stage.until_crashed(crash)
    assert len(stage.pools) <= 1
    await stage.stop()
    await stage.world.advance(400 - waited)  # the cloud goes on without a provisioner
    assert len(stage.pools) <= 1

    await stage.start()
    await stage.until_ready(within=1200)
    assert stage.pools == ["ws1"]
    assert stage.calls("PUT") == 1, "a second creation was never asked for"
    stage.delete()
    await stage.until_gone(within=400)
    assert (stage.pools, stage.nodes) == ([], [])


@pytest.mark.sample(3)
@pytest.mark.parametrize("requests", range(1, DELETION_WRITES + 1))
async def test_deletion_continues_after_a_crash_at_any_write(stage: "Stage", requests: int) -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    stage.delete()
    crash = CrashPoint(requests)
    await stage.start(crash=crash)
    waited = await stage.until_crashed(crash)
    await stage.stop()
    await stage.world.advance(max(100 - waited, 0))

    await stage.start()
    await stage.until_gone(within=600)
    assert (stage.pools, stage.nodes) == ([], [])
    assert stage.calls("DELETE") == 1


async def test_running_operation_is_written_to_the_claim(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.advance(30)
    operation = stage.get().annotations[labels.ARM_OPERATION]
    assert operation.startswith("http://simulator/subscriptions/")
    await stage.stop()

    await stage.world.advance(3600)
    await stage.start()
    await stage.until_ready(within=60)
    assert stage.calls("PUT") == 1


async def test_claim_deleted_while_the_provisioner_is_stopped(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.advance(30)
    await stage.stop()
    stage.delete()
    await stage.world.advance(3600)
    assert stage.pools == ["ws1"]
    await stage.start()
    await stage.until_gone(within=300)
    assert (stage.pools, stage.nodes) == ([], [])


@pytest.mark.sample(1)
@pytest.mark.seeds(5)
async def test_interleavings_end_in_the_same_state(stage: "Stage") -> None:
    await stage.start()
    for name in ("ws1", "ws2", "ws3"):
        stage.claim(name)
    await stage.world.advance(100)
    stage.delete("ws2")
    await stage.until_ready("ws1")
    await stage.until_ready("ws3")
    await stage.until_gone("ws2")
    assert stage.pools == ["ws1", "ws3"]
    assert len(stage.nodes) == 2
