"""Which claims are created and given up: at once, after a pause, or never twice."""

from datetime import UTC, datetime, timedelta

import pytest

from kaito.api import Claim, Workspace, labels
from kaito.runtime.kinds import Node
from kaito.workspace.manifests.claim import claim
from kaito.workspace.plan import Hardware
from kaito.workspace.provisioning import Attempts, Decision, Situation, decide
from kaito.workspace.settings import WorkspaceSettings

NOW = datetime(2030, 1, 1, 1, tzinfo=UTC)


class Case:
    """A Workspace with claims of some age, and the decision about it."""

    def __init__(self, workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings) -> None:
        self.workspace, self.hardware, self.settings = workspace, hardware, settings

    def claim(
        self, index: int = 0, *, age: float = 60, ready: bool = False, deleting_for: float | None = None, node: str = ""
    ) -> Claim:
        made = claim(self.workspace, self.hardware, self.settings, index=index, serial=0)
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        if ready:
            conditions.append({"type": made.stages.launched, "status": "True"})
        gone = None if deleting_for is None else NOW - timedelta(seconds=deleting_for)
        return made.with_metadata(creation_timestamp=NOW - timedelta(seconds=age), deletion_timestamp=gone).evolve(
            status={"conditions": conditions, "nodeName": node}
        )

    def decide(
        self,
        *claims: Claim,
        wanted: int = 1,
        before: bool = False,
        was_ready: bool = False,
        attempts: Attempts | None = None,
        nodes: dict[str, Node] | None = None,
    ) -> Decision:
        situation = Situation(
            now=NOW,
            wanted=wanted,
            claims=claims,
            nodes=nodes or {},
            attempts=attempts or Attempts(),
            created_before=before,
            ready_before=was_ready,
        )
        return decide(situation, self.settings)


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
    assert not decision.give_up
    assert decision.retry_at == NOW + timedelta(seconds=case.settings.node_provision_timeout - 60)


def test_a_lost_claim_is_replaced_after_a_pause_under_a_new_name(case: Case) -> None:
    lost = case.decide(before=True)
    assert lost.create == ()
    assert lost.attempts == Attempts(serial=1, failures=1, since=NOW)
    assert lost.retry_at == NOW + timedelta(seconds=30)
    recorded = Attempts(serial=1, failures=1, since=NOW - timedelta(seconds=30))
    assert case.decide(attempts=recorded).create == ((0, 1),)


def test_pauses_double_up_to_a_quarter_of_an_hour(case: Case) -> None:
    record, pauses = Attempts(), list[float]()
    for _ in range(8):
        record = record.lost(NOW, after_success=False)
        assert record.due is not None
        pauses.append((record.due - NOW).total_seconds())
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


def test_success_in_between_starts_the_pauses_anew(case: Case) -> None:
    record = Attempts(serial=5, failures=5, since=NOW - timedelta(hours=2))
    assert case.decide(before=True, was_ready=True, attempts=record).attempts == Attempts(
        serial=6, failures=1, since=NOW
    )


def test_a_deleting_claim_holds_its_place_for_a_while(case: Case) -> None:
    leaving = case.claim(deleting_for=100)
    held = case.decide(leaving, before=True)
    assert held.create == ()
    assert held.retry_at == NOW + timedelta(seconds=200)
    stuck = case.decide(case.claim(deleting_for=300), before=True)
    assert stuck.attempts.serial == 1
    after = Attempts(serial=1, failures=1, since=NOW - timedelta(minutes=1))
    assert case.decide(case.claim(deleting_for=400), attempts=after).create == ((0, 1),)


def test_a_claim_that_never_launches_is_given_up_and_not_replaced_in_the_same_breath(case: Case) -> None:
    stuck = case.claim(age=901)
    decision = case.decide(stuck, before=True)
    assert [c.name for c, _ in decision.give_up] == [stuck.name]
    assert "not launched within 900 s" in decision.give_up[0][1]
    assert decision.create == ()


def test_a_ready_claim_is_never_given_up_for_its_age(case: Case) -> None:
    assert case.decide(case.claim(age=10_000, ready=True), before=True) == Decision(attempts=Attempts())


def node(name: str, *, ready: str, since: datetime) -> Node:
    return Node.model_validate(
        {
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since.isoformat()}]},
        }
    )


@pytest.mark.parametrize(("minutes", "given_up"), [(9, False), (10, True)])
def test_a_node_long_not_ready_costs_the_claim_its_place(case: Case, minutes: int, given_up: bool) -> None:
    nodes = {"gpu-0": node("gpu-0", ready="Unknown", since=NOW - timedelta(minutes=minutes))}
    decision = case.decide(case.claim(ready=True, node="gpu-0", age=5000), before=True, nodes=nodes)
    assert bool(decision.give_up) is given_up
    if not given_up:
        assert decision.retry_at == NOW + timedelta(minutes=1)


def test_zero_switches_the_replacement_of_unhealthy_nodes_off(phi: Workspace, hardware: Hardware) -> None:
    case = Case(phi, hardware, WorkspaceSettings(node_unhealthy_timeout=0))
    nodes = {"gpu-0": node("gpu-0", ready="False", since=NOW - timedelta(days=1))}
    assert case.decide(case.claim(ready=True, node="gpu-0"), before=True, nodes=nodes).give_up == ()


def test_the_record_survives_the_annotation() -> None:
    record = Attempts(serial=3, failures=2, since=NOW)
    assert Attempts.read({labels.PROVISION_ATTEMPTS: record.write()}) == record
    assert Attempts.read({labels.PROVISION_ATTEMPTS: "{broken"}) == Attempts()
    assert Attempts.read({labels.PROVISION_ATTEMPTS: '"text"'}) == Attempts()
    assert Attempts.read({}) == Attempts()
