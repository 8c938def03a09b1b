"""Deadlines of claims that do not get a usable node."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import named
from kaito.runtime.errors import NotFound
from kaito.runtime.meta import format_time

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


async def test_claim_is_deleted_with_an_event_after_the_launch_timeout(stage: "Stage") -> None:
    stage.simulator.faults.add(named("never-ends"))
    await stage.start(launch_timeout_seconds=1800)
    claim = stage.claim()
    await stage.world.advance(1700)
    assert stage.condition("launched").reason == "AgentPoolCreating"
    assert "28 min since the claim" in stage.condition("launched").message
    await stage.until_gone(within=600)
    assert stage.pools == []
    events = {event.reason: event.note for event in stage.world.events(claim)}
    assert "no instance within 1800 s" in (events["LaunchTimeout"] or "")


async def test_launch_timeout_does_not_count_while_the_cloud_is_unavailable(stage: "Stage") -> None:
    stage.simulator.faults.add(named("server-error", method="PUT", times=None))
    await stage.start(launch_timeout_seconds=600)
    stage.claim()
    await stage.world.advance(3600)
    assert stage.condition("launched").reason == "CloudUnavailable"
    stage.simulator.faults.clear()
    await stage.until_ready(within=600)


async def test_launch_timeout_applies_if_the_response_to_the_creation_was_lost(stage: "Stage") -> None:
    stage.simulator.faults.add(named("accepted-then-dropped", operation={"end": "never"}))
    await stage.start(launch_timeout_seconds=600)
    stage.claim()
    await stage.until_gone(within=1000)
    assert stage.pools == []


async def test_launch_timeout_is_not_extended_by_restarts(stage: "Stage") -> None:
    stage.simulator.faults.add(named("never-ends"))
    await stage.start(launch_timeout_seconds=1800)
    stage.claim()
    for _ in range(3):
        await stage.world.advance(550)
        await stage.stop()
        await stage.start(launch_timeout_seconds=1800)
    await stage.until_gone(within=400)


async def test_claim_is_deleted_after_the_registration_timeout(stage: "Stage") -> None:
    stage.simulator.knobs.set(never_join=True)
    await stage.start(registration_timeout_seconds=900)
    claim = stage.claim()
    await stage.world.advance(1100)
    assert stage.condition("registered").reason == "NodeNotFound"
    await stage.until_gone(within=400)
    assert stage.pools == []
    assert "RegistrationTimeout" in {event.reason for event in stage.world.events(claim)}


async def test_a_launch_that_was_recorded_with_a_clock_ahead_does_not_extend_the_deadline(stage: "Stage") -> None:
    stage.simulator.knobs.set(never_join=True)
    await stage.start(registration_timeout_seconds=900)
    claim = stage.claim()
    await stage.world.advance(10)
    await stage.until("launched", lambda: stage.condition("launched").is_true)
    await stage.stop()
    conditions = stage.get().to_dict()["status"]["conditions"]
    for condition in conditions:
        condition["lastTransitionTime"] = format_time(stage.world.now + timedelta(days=1))
    stage.world.patch(stage.kind, claim.name, {"status": {"conditions": conditions}}, subresource="status")
    await stage.start()
    await stage.until_gone(within=1200)


async def test_missing_gpus_are_reported_and_the_claim_is_kept(stage: "Stage") -> None:
    stage.simulator.knobs.set(gpu_count_override=0)
    await stage.start(initialization_timeout_seconds=1200)
    claim = stage.claim()
    await stage.world.advance(600)
    initialized = stage.condition("initialized")
    assert initialized.reason == "ResourceNotRegistered"
    assert "0 of 1 GPUs are registered" in initialized.message
    await stage.world.advance(3600)
    initialized = stage.condition("initialized")
    assert initialized.reason == "InitializationTimeout"
    assert "0 of 1 GPUs" in initialized.message
    assert [event.reason for event in stage.world.events(claim)].count("InitializationTimeout") == 1

    stage.simulator.knobs.set(gpu_count_override=None)
    await stage.until_ready(within=30)


async def test_claim_with_missing_gpus_is_deleted_if_configured(stage: "Stage") -> None:
    stage.simulator.knobs.set(gpu_count_override=0)
    await stage.start(initialization_timeout_seconds=1200, replace_uninitialized=True)
    stage.claim()
    await stage.until_gone(within=2400)
    assert stage.pools == []


async def test_reason_is_written_before_the_claim_is_deleted(stage: "Stage") -> None:
    stage.simulator.knobs.set(never_join=True)
    await stage.start(registration_timeout_seconds=900)
    stage.claim()
    reason = ""

    def gone() -> bool:
        nonlocal reason
        try:
            reason = stage.condition("registered").reason
        except NotFound:
            return True
        return False

    await stage.world.advance(10)
    await stage.until("gone", gone, within=2400, step=1)
    assert reason == "RegistrationTimeout"


async def test_large_instance_type_gets_a_longer_launch_timeout(stage: "Stage") -> None:
    """Measured on AKS: 25 min 54 s for an ND96asr_v4 pool; twice that time does not start another launch."""
    stage.simulator.faults.add(named("slow-delete", method="PUT", operation={"end": "succeeded", "slower": 2.5}))
    await stage.start()
    claim = stage.claim("ws1", "Standard_ND96asr_v4")
    await stage.until_ready(within=2 * 3600)
    assert stage.get().uid == claim.uid
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (1, 0)


@pytest.mark.slow("test_large_instance_type_gets_a_longer_launch_timeout")
async def test_launch_timeout_depends_on_the_instance_type(stage: "Stage") -> None:
    stage.simulator.faults.add(named("never-ends", times=None))
    await stage.start()
    stage.claim("ws1", "Standard_NC24ads_A100_v4")
    stage.claim("ws2", "Standard_ND96asr_v4")
    await stage.until_gone("ws1", within=2700 + 200)
    assert stage.find("ws2") is not None
    await stage.until_gone("ws2", within=2 * 2700 + 200)
    assert stage.pools == []


async def test_ready_pool_completes_the_launch_although_its_operation_never_ends(stage: "Stage") -> None:
    stage.simulator.faults.add(named("never-ends", operation={"end": "status-stuck"}))
    await stage.start()
    stage.claim()
    await stage.until_ready(within=900)
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (1, 0)


async def test_failed_pool_is_recreated_although_its_operation_never_ends(stage: "Stage") -> None:
    stage.simulator.faults.add(named("never-ends", operation={"end": "status-stuck-failed"}))
    await stage.start()
    stage.claim()
    await stage.until_ready(within=1800)
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (2, 1)
