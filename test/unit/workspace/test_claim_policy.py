"""Claims are created immediately or with backoff, never twice, and deleted if they are broken."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kaito.api import Claim, Workspace, labels
from kaito.runtime.kinds import Node
from kaito.workspace.claim_policy import ClaimDecision, ClaimState, ProvisionAttempts, decide
from kaito.workspace.manifests.claim import claim_name, node_claim
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import WorkspaceSettings

NOW = datetime(2030, 1, 1, 1, tzinfo=UTC)


class Case:
    """A Workspace with claims of some age, and the decision about it."""

    def __init__(self, workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings) -> None:
        self.workspace, self.hardware, self.settings = workspace, hardware, settings

    def claim(
        self, index: int = 0, *, age: float = 60, ready: bool = False, deleting_for: float | None = None, node: str = ""
    ) -> Claim:
        made = node_claim(self.workspace, self.hardware, self.settings, index=index, serial=0)
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        if ready:
            conditions.append({"type": made.stages.launched, "status": "True"})
        gone = None if deleting_for is None else NOW - timedelta(seconds=deleting_for)
        return made.with_metadata(creation_timestamp=NOW - timedelta(seconds=age), deletion_timestamp=gone).evolve(
            status={"conditions": conditions, "nodeName": node}
        )

    def name(self, index: int = 0, serial: int = 0) -> str:
        return claim_name(self.workspace, index=index, serial=serial)

    def decide(
        self,
        *claims: Claim,
        wanted: int = 1,
        before: bool = False,
        ready_for: float | None = None,
        confirmed: str = "",
        attempts: ProvisionAttempts | None = None,
        nodes: dict[str, Node] | None = None,
    ) -> ClaimDecision:
        state = ClaimState(
            now=NOW,
            wanted=wanted,
            claims=claims,
            nodes=nodes or {},
            attempts=attempts or ProvisionAttempts(),
            expected=frozenset(self.name(index) for index in range(wanted)) if before else frozenset(),
            confirmed=frozenset({confirmed} - {""}),
            ready_since=None if ready_for is None else NOW - timedelta(seconds=ready_for),
            claim_name=self.name,
        )
        return decide(state, self.settings)


@pytest.fixture
def case(phi: Workspace, hardware: Hardware, settings: WorkspaceSettings) -> Case:
    return Case(phi, hardware, settings)


def test_the_first_claims_are_created_at_once(case: Case) -> None:
    assert case.decide(wanted=3).create == ((0, 0), (1, 0), (2, 0))


def test_only_the_missing_place_is_filled(case: Case) -> None:
    assert case.decide(case.claim(0), case.claim(2), wanted=3).create == ((1, 0),)


def test_enough_claims_leave_nothing_to_do_but_to_watch_the_clock(case: Case) -> None:
    decision = case.decide(case.claim(age=60), before=True)
    assert not decision.create
    assert not decision.delete
    assert decision.requeue_at == NOW + timedelta(seconds=case.settings.node_provision_timeout_seconds - 60)


def test_a_lost_claim_is_replaced_after_a_pause_under_a_new_name(case: Case) -> None:
    lost = case.decide(before=True)
    assert lost.create == ()
    assert lost.attempts == ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW, lost=(case.name(),))
    assert lost.requeue_at == NOW + timedelta(seconds=30)
    recorded = ProvisionAttempts(
        serial=1, failures=1, backoff_started_at=NOW - timedelta(seconds=30), lost=(case.name(),)
    )
    replaced = case.decide(attempts=recorded, before=True)
    assert replaced.create == ((0, 1),)
    assert replaced.attempts.issued == (case.name(0, 1),)


def test_the_backoff_doubles_up_to_15_minutes(case: Case) -> None:
    record, pauses = ProvisionAttempts(), list[float]()
    for _ in range(8):
        record = replace(record, issued=("replacement",)).with_losses(["claim"], now=NOW, after_success=False)
        assert record.next_attempt_at is not None
        pauses.append((record.next_attempt_at - NOW).total_seconds())
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


@pytest.mark.parametrize(("ready_for", "failures"), [(None, 6), (599, 6), (600, 1), (86400, 1)])
def test_only_stable_claims_reset_the_backoff(case: Case, ready_for: float | None, failures: int) -> None:
    record = ProvisionAttempts(serial=5, failures=5, backoff_started_at=NOW - timedelta(hours=2), issued=(case.name(),))
    counted = case.decide(before=True, ready_for=ready_for, attempts=record).attempts
    assert (counted.serial, counted.failures, counted.backoff_started_at) == (6, failures, NOW)


def test_stable_claims_reset_the_record(case: Case) -> None:
    record = ProvisionAttempts(
        serial=5, failures=5, backoff_started_at=NOW - timedelta(hours=2), issued=(case.name(),), cause="quota"
    )
    ready = case.claim(ready=True)
    early = case.decide(ready, before=True, ready_for=100, attempts=record)
    assert early.attempts == record
    assert early.requeue_at == NOW + timedelta(seconds=500)
    assert case.decide(ready, before=True, ready_for=600, attempts=record).attempts == ProvisionAttempts(serial=5)


def test_a_deleting_claim_holds_its_place_for_a_while(case: Case) -> None:
    """Its loss counts when its deletion is observed; the backoff begins when it is deleted, or held for too long."""
    leaving = case.claim(deleting_for=100)
    held = case.decide(leaving, before=True)
    assert held.create == ()
    assert held.attempts == ProvisionAttempts(serial=1, failures=1, backoff_started_at=None, lost=(case.name(),))
    assert held.next_creation_at == NOW + timedelta(seconds=230)
    assert held.requeue_at == NOW + timedelta(seconds=200)
    gone = case.decide(before=True, attempts=held.attempts)
    assert gone.lost == ()
    assert gone.attempts == ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW, lost=(case.name(),))
    stuck = case.decide(case.claim(deleting_for=300), before=True)
    assert stuck.attempts.serial == 1
    after = ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW - timedelta(minutes=1), lost=(case.name(),))
    assert case.decide(case.claim(deleting_for=400), attempts=after).create == ((0, 1),)


def test_a_loss_counts_once_after_a_crash_between_two_writes(case: Case) -> None:
    """The record was written, but not the status: the next process reads the old list of claims."""
    first = case.decide(before=True)
    again = case.decide(before=True, attempts=first.attempts)
    assert again.attempts == first.attempts
    assert again.lost == ()


def test_losses_before_the_next_creation_count_once(case: Case) -> None:
    first = case.decide(case.claim(1), wanted=2, before=True)
    assert first.attempts.lost == (case.name(0),)
    second = case.decide(wanted=2, before=True, attempts=first.attempts)
    assert second.attempts.lost == tuple(sorted([case.name(0), case.name(1)]))
    assert (second.attempts.serial, second.attempts.failures, second.attempts.backoff_started_at) == (1, 1, NOW)


def test_a_replacement_missing_in_the_status_counts_as_lost_if_an_event_confirms_it(case: Case) -> None:
    """The process crashed between the record and the status: the replacement was lost, or never created."""
    record = ProvisionAttempts(
        serial=1, failures=1, backoff_started_at=NOW - timedelta(minutes=5), issued=(case.name(0, 1),)
    )
    unconfirmed = case.decide(attempts=record)
    assert unconfirmed.create == ()
    assert unconfirmed.unconfirmed == (case.name(0, 1),)
    assert (unconfirmed.attempts.serial, unconfirmed.attempts.failures, unconfirmed.attempts.backoff_started_at) == (
        1,
        1,
        NOW,
    )
    assert unconfirmed.next_creation_at == NOW + timedelta(seconds=30)
    proven = case.decide(attempts=record, confirmed=case.name(0, 1))
    assert (proven.attempts.serial, proven.attempts.failures) == (2, 2)
    assert proven.create == ()


def test_more_nodes_wanted_are_no_loss(case: Case) -> None:
    decision = case.decide(case.claim(0, ready=True), wanted=2)
    assert decision.create == ((1, 0),)
    assert decision.attempts == ProvisionAttempts()


def test_a_claim_that_never_launches_is_given_up_and_not_replaced_in_the_same_breath(case: Case) -> None:
    stuck = case.claim(age=901)
    decision = case.decide(stuck, before=True)
    assert [c.name for c, _ in decision.delete] == [stuck.name]
    assert "not launched within 900 s" in decision.delete[0][1]
    assert decision.create == ()


def test_a_ready_claim_is_never_given_up_for_its_age(case: Case) -> None:
    assert case.decide(case.claim(age=10_000, ready=True), before=True) == ClaimDecision(attempts=ProvisionAttempts())


def node(name: str, *, ready: str, since: datetime) -> Node:
    return Node.model_validate(
        {
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since.isoformat()}]},
        }
    )


@pytest.mark.parametrize(("minutes", "given_up"), [(9, False), (10, True)])
def test_a_claim_is_deleted_after_its_node_was_not_ready_for_the_timeout(
    case: Case, minutes: int, given_up: bool
) -> None:
    nodes = {"gpu-0": node("gpu-0", ready="Unknown", since=NOW - timedelta(minutes=minutes))}
    decision = case.decide(case.claim(ready=True, node="gpu-0", age=5000), before=True, nodes=nodes)
    assert bool(decision.delete) is given_up
    if not given_up:
        assert decision.requeue_at == NOW + timedelta(minutes=1)


def test_zero_switches_the_replacement_of_unhealthy_nodes_off(phi: Workspace, hardware: Hardware) -> None:
    case = Case(phi, hardware, WorkspaceSettings(node_unhealthy_timeout_seconds=0))
    nodes = {"gpu-0": node("gpu-0", ready="False", since=NOW - timedelta(days=1))}
    assert case.decide(case.claim(ready=True, node="gpu-0"), before=True, nodes=nodes).delete == ()


def test_the_record_survives_the_annotation() -> None:
    record = ProvisionAttempts(serial=3, failures=2, backoff_started_at=NOW)
    assert ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: record.to_annotation()}) == record
    assert ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: "{broken"}) == ProvisionAttempts()
    assert ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: '"text"'}) == ProvisionAttempts()
    assert ProvisionAttempts.from_annotations({}) == ProvisionAttempts()
    full = ProvisionAttempts(serial=3, failures=2, lost=("a",), issued=("b", "c"), cause="quota")
    assert ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: full.to_annotation()}) == full


@pytest.mark.parametrize(
    "record",
    [
        '{"failures": 1e400}',
        '{"failures": -3, "serial": -1}',
        '{"lost": "text"}',
        '{"since": "9999-12-31T23:59:59+00:00", "failures": 5}',
        '{"since": 12}',
        "[]",
        "null",
        '{"failures": 99999999999999999999}',
    ],
)
def test_a_vandalized_record_neither_stops_nor_speeds_up_anything(case: Case, record: str) -> None:
    attempts = ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: record})
    decision = case.decide(attempts=attempts)
    if decision.create:
        return
    assert decision.next_creation_at is not None
    assert NOW < decision.next_creation_at <= NOW + timedelta(minutes=15)


def spot_node(name: str = "node", *, notice: bool = True, ready: bool = True) -> Node:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if notice:
        message = "Preempt Scheduled: Tue, 01 Jan 2030 01:00:30 GMT. For more information, see the documentation"
        conditions.append({"type": "VMEventScheduled", "status": "True", "message": message})
    metadata = {"name": name, "labels": {labels.CAPACITY_TYPE: "spot"}}
    return Node.model_validate({"metadata": metadata, "status": {"conditions": conditions}})


def test_a_node_with_a_notice_is_replaced_at_once(case: Case) -> None:
    claim = case.claim(ready=True, node="node")
    decision = case.decide(claim, before=True, nodes={"node": spot_node()})
    expected = "the cloud evicts node node: Preempt Scheduled: Tue, 01 Jan 2030 01:00:30 GMT"
    assert decision.delete == ((claim, expected),)
    assert decision.create == ((0, 1),)
    assert (decision.attempts.evicted, decision.attempts.failures) == (True, 1)
    assert ProvisionAttempts.from_annotations({labels.PROVISION_ATTEMPTS: decision.attempts.to_annotation()}) == (
        decision.attempts
    )


def test_an_evicted_claim_holds_no_place_until_it_is_gone(case: Case) -> None:
    """Its node may be gone before it, and the replacement before that."""
    record = ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW, lost=(case.name(),), evicted=True)
    decision = case.decide(case.claim(deleting_for=20, node="node"), before=True, attempts=record)
    assert decision.create == ((0, 1),)


def test_a_second_eviction_in_a_series_waits(case: Case) -> None:
    record = ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW - timedelta(hours=1), evicted=True)
    record = replace(record, issued=(case.name(),))
    claim = case.claim(ready=True, node="node")
    decision = case.decide(claim, before=True, nodes={"node": spot_node()}, attempts=record)
    assert (decision.create, decision.attempts.failures) == ((), 2)
    assert decision.next_creation_at == NOW + timedelta(seconds=60)


def test_the_eviction_of_a_node_that_ran_long_begins_a_new_series(case: Case) -> None:
    """Although another node of the Workspace was evicted just before, and the Workspace is not ready."""
    record = ProvisionAttempts(serial=1, failures=1, backoff_started_at=NOW, issued=(case.name(1, 1),), evicted=True)
    since = {"lastTransitionTime": "2030-01-01T00:00:00Z"}
    claim = case.claim(ready=True, node="node")
    old = claim.evolve(status={"conditions": [{"type": "Ready", "status": "True", **since}], "nodeName": "node"})
    decision = case.decide(old, before=True, nodes={"node": spot_node()}, attempts=record)
    assert (decision.create, decision.attempts.failures) == (((0, 2),), 1)


@pytest.mark.parametrize(("ready", "at_once"), [(True, True), (False, False)])
def test_the_deleted_claim_of_a_spot_node_that_is_ready_is_an_eviction(case: Case, ready: bool, at_once: bool) -> None:
    """Karpenter deletes it at the notice; the claim of a broken node is deleted for another reason."""
    claim = case.claim(ready=True, deleting_for=1, node="node")
    decision = case.decide(claim, before=True, nodes={"node": spot_node(notice=False, ready=ready)})
    assert decision.attempts.evicted is at_once
    assert bool(decision.create) is at_once


def test_an_eviction_and_another_loss_wait_like_a_loss(case: Case) -> None:
    """The claim of the other node is deleted, and its instance may still exist."""
    other = case.claim(1, ready=True, deleting_for=1, node="other")
    decision = case.decide(
        case.claim(0, ready=True, node="node"), other, wanted=2, before=True, nodes={"node": spot_node()}
    )
    assert not decision.attempts.evicted
    assert decision.create == ()
