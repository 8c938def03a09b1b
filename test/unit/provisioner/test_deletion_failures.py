"""Deletions that the cloud rejects: the claim has the cloud's message and one event."""

from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import Fault

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

LOCK_MESSAGE = (
    "The scope cannot perform delete operation because following scope(s) are locked. Please remove the lock and try "
    "again."
)
LOCK = Fault(
    name="lock",
    method="DELETE",
    status=409,
    times=None,
    body={"error": {"code": "ScopeLocked", "message": LOCK_MESSAGE}},
)
DENIED = Fault(
    name="lock",
    method="DELETE",
    status=403,
    times=None,
    body={"error": {"code": "AuthorizationFailed", "message": "no permission to delete"}},
)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [(LOCK, "BlockedByCloud", LOCK_MESSAGE), (DENIED, "Unauthorized", "no permission to delete")],
    ids=["locked", "denied"],
)
@pytest.mark.parametrize("launched", [True, False], ids=["with a node", "while it is created"])
async def test_rejected_deletion_is_reported_until_it_succeeds(
    stage: "Stage", fault: Fault, reason: str, words: str, launched: bool
) -> None:
    await stage.start()
    claim = stage.claim()
    if launched:
        await stage.until_ready()
    else:
        await stage.world.advance(60)
    stage.simulator.faults.add(fault)
    stage.delete()
    await stage.world.advance(120)
    terminating = stage.condition("InstanceTerminating")
    assert (terminating.status, terminating.reason) == ("False", reason)
    assert words in terminating.message
    ready = stage.condition("Ready")
    assert (ready.status, ready.reason) == ("False", reason)
    assert words in ready.message
    if launched:
        assert stage.condition("Drained").is_true

    await stage.world.advance(4 * 3600)
    warnings = [event for event in stage.world.events(claim) if event.type == "Warning"]
    assert [event.reason for event in warnings] == [reason]
    assert words in (warnings[0].note or "")
    assert 10 <= stage.calls("DELETE") <= 60
    assert stage.deps is not None
    counted = [
        sample.value
        for family in stage.deps.metrics.rejected_deletions.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels == {"reason": reason}
    ]
    assert counted == [stage.calls("DELETE")]

    stage.simulator.faults.clear("lock")
    await stage.until_gone(within=900)
    assert stage.pools == []


@pytest.mark.slow("test_rejected_deletion_is_reported_until_it_succeeds")
async def test_accepted_deletion_that_fails_is_reported(stage: "Stage") -> None:
    """A lock on the resource group of the nodes: AKS accepts the deletion, and the pool becomes Failed."""
    operation = {
        "end": "failed",
        "code": "DeleteVMSSAgentPoolFailed",
        "message": f'Code="ScopeLocked" Message="{LOCK_MESSAGE}"',
    }
    stage.simulator.faults.add(
        Fault.model_validate({"name": "lock", "method": "DELETE", "times": None, "operation": operation})
    )
    await stage.start()
    claim = stage.claim()
    await stage.until_ready()
    stage.delete()
    await stage.world.advance(300)
    terminating = stage.condition("InstanceTerminating")
    assert (terminating.status, terminating.reason) == ("False", "BlockedByCloud")
    assert LOCK_MESSAGE in terminating.message
    await stage.world.advance(4 * 3600)
    assert 10 <= stage.calls("DELETE") <= 60
    warnings = {event.reason for event in stage.world.events(claim) if event.type == "Warning"}
    assert "BlockedByCloud" in warnings
    stage.simulator.faults.clear("lock")
    await stage.until_gone(within=900)


async def test_claim_is_not_ready_while_it_is_deleted(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.delete()
    await stage.world.advance(10)
    ready = stage.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "Terminating")
    await stage.until_gone(within=900)


async def test_cause_of_an_expired_claim_stays_in_its_conditions(stage: "Stage") -> None:
    stage.simulator.knobs.set(never_join=True)
    await stage.start(registration_timeout_seconds=900)
    claim = stage.claim()
    await stage.until("deleted", lambda: stage.get().deleting, within=1500)
    await stage.world.advance(10)
    assert stage.condition("registered").reason == "RegistrationTimeout"
    assert "RegistrationTimeout: no node joined within 900 s" in stage.condition("Ready").message
    await stage.until_gone(within=900)
    notes = {event.reason: event.note or "" for event in stage.world.events(claim)}
    assert "no node joined within 900 s of the launch: deleting the claim" in notes["RegistrationTimeout"]
