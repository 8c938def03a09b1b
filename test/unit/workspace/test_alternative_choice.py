"""The choice of an alternative: a pure function of plans, record, claims and time."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import Claim, Machine, Workspace, labels
from kaito.workspace.alternatives import (
    AlternativesRecord,
    Candidate,
    StockOut,
    choose,
    offering_keys,
    pause,
    refusal,
    refusal_in,
)
from kaito.workspace.plan import Plan
from kaito.workspace.preflight import run_checks, validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.settings import NodeApi, WorkspaceSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
A, B, C = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5", "Standard_NC48ads_A100_v4"
T4 = "Standard_NC4as_T4_v3"


def candidates(*names: str, **changes: Any) -> list[Candidate]:
    return [Candidate(instance_type=name, keys=offering_keys(name, (), ()), nodes=1, **changes) for name in names]


def claim(instance_type: str, *, launched: str = "", reason: str = "Launched", deleting: bool = False) -> Claim:
    conditions = [
        {
            "type": "MachineLaunched",
            "status": launched,
            "reason": reason,
            "message": "m",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
    ]
    return Machine.model_validate(
        {
            "metadata": {"name": "ws1", **({"deletionTimestamp": "2030-01-01T00:00:00Z"} if deleting else {})},
            "spec": {
                "machineTemplateRef": {"name": "ws1"},
                "requirements": [{"key": labels.INSTANCE_TYPE, "operator": "In", "values": [instance_type]}],
            },
            "status": {"conditions": conditions if launched else []},
        }
    )


def chosen(record: AlternativesRecord, *claims: Claim, names: tuple[str, ...] = (A, B, C)) -> str:
    choice = choose(candidates(*names), record, claims, now=NOW)
    assert choice is not None
    return choice.candidate.instance_type


def out_of(*names: str, **changes: Any) -> AlternativesRecord:
    record = AlternativesRecord()
    for name in names:
        record = record.with_stock_out(offering_keys(name, (), ()), "InsufficientCapacity", "m", now=NOW)
    return record


def test_the_first_one_that_is_not_paused() -> None:
    assert chosen(AlternativesRecord()) == A
    assert chosen(out_of(A)) == B
    assert chosen(out_of(A, B)) == C


def test_the_recorded_one_stays_without_claims() -> None:
    assert chosen(AlternativesRecord(chosen=B)) == B
    assert chosen(AlternativesRecord(chosen=B.upper())) == B
    assert chosen(AlternativesRecord(chosen="Standard_Removed")) == A


@pytest.mark.parametrize("record", [AlternativesRecord(), AlternativesRecord(chosen=A), out_of(B), out_of(A, B, C)])
def test_claims_with_an_instance_decide(record: AlternativesRecord) -> None:
    assert chosen(record, claim(B, launched="True")) == B


def test_more_instances_decide_before_fewer_and_before_claims_without_one() -> None:
    assert chosen(AlternativesRecord(), claim(A, launched="True"), *[claim(B, launched="True")] * 2) == B
    assert chosen(AlternativesRecord(), *[claim(A)] * 2, claim(B, launched="True")) == B


def test_claims_that_are_given_up_do_not_decide() -> None:
    """A crash between the record and the deletion must not bring the instance type back."""
    assert chosen(out_of(A), claim(A, launched="False", reason="InsufficientCapacity")) == B
    assert chosen(AlternativesRecord(chosen=B), claim(A, deleting=True)) == B
    assert chosen(AlternativesRecord(chosen=B), claim(A)) == A


def test_all_paused_until_the_first_pause_ends() -> None:
    record = out_of(A, B, C).with_stock_out(offering_keys(A, (), ()), "QuotaExceeded", "m", now=NOW)
    choice = choose(candidates(A, B, C), record, (), now=NOW)
    assert choice is not None
    assert choice.candidate.instance_type == B
    assert choice.resume_at == NOW + timedelta(minutes=10)
    assert [each.instance_type for each in choice.passed] == [A, B, C]
    assert str(choice.passed[0]) == f"{A}: QuotaExceeded: m, tried again at 2030-01-01T00:20:00Z"


def test_a_zone_or_capacity_type_that_is_not_paused_keeps_the_alternative() -> None:
    keys = offering_keys(A, ("spot", "on-demand"), ("1", "2"))
    assert keys == tuple(f"{A.lower()}/{zone}/{capacity}" for capacity in ("spot", "on-demand") for zone in ("1", "2"))
    record = AlternativesRecord().with_stock_out(keys[:3], "InsufficientCapacity", "m", now=NOW)
    assert record.paused(keys, NOW) is None
    record = record.with_stock_out(keys[3:], "InsufficientCapacity", "m", now=NOW)
    assert record.paused(keys, NOW) is not None


def test_a_pause_has_ended_at_its_end() -> None:
    keys = offering_keys(A, (), ())
    entry = out_of(A).paused(keys, NOW)
    assert entry is not None
    assert entry.retry_at == NOW + timedelta(minutes=10)
    assert out_of(A).paused(keys, entry.retry_at - timedelta(seconds=1)) == entry
    assert out_of(A).paused(keys, entry.retry_at) is None
    assert AlternativesRecord().paused((), NOW) is None


def test_a_pause_that_was_recorded_with_a_clock_ahead_is_not_one() -> None:
    keys, ahead = offering_keys(A, (), ()), NOW + timedelta(days=1)
    record = AlternativesRecord().with_stock_out(keys, "InsufficientCapacity", "m", now=ahead)
    assert record.paused(keys, ahead) is not None
    assert record.paused(keys, NOW) is None


def test_none_is_usable() -> None:
    assert choose(candidates(A, B, problem="too small"), AlternativesRecord(), (), now=NOW) is None
    assert choose([], AlternativesRecord(), (), now=NOW) is None


def test_pauses_grow_to_a_limit_and_are_forgotten() -> None:
    assert [pause(n).total_seconds() / 60 for n in range(1, 6)] == [10, 20, 40, 60, 60]
    (key,) = offering_keys(A, (), ())
    record, now = AlternativesRecord(), NOW
    for failures in range(1, 5):
        record = record.with_stock_out([key], "InsufficientCapacity", "m", now=now)
        assert record.stock_outs[key].failures == failures
        now = record.stock_outs[key].retry_at
    late = record.with_stock_out([key], "InsufficientCapacity", "m", now=now + timedelta(hours=7))
    assert late.stock_outs[key].failures == 1
    assert record.without([key]).stock_outs == {}


def test_the_record_is_read_as_it_was_written() -> None:
    record = AlternativesRecord(
        chosen=B,
        stock_outs={"a//spot": StockOut(reason="QuotaExceeded", message="m", failures=3, retry_at=NOW)},
    )
    assert AlternativesRecord.from_annotations({labels.ALTERNATIVES: record.to_annotation()}) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "1",
        '{"chosen": 1, "refused": []}',
        '{"refused": {"a": 1, "b": {}, "c": {"retry": "soon"}}}',
        '{"refused": {"d": {"retry": "2030-01-01T00:00:00Z", "failures": "x"}}}',
        "[" * 20000,
    ],
)
def test_a_malformed_record_is_empty(text: str) -> None:
    assert AlternativesRecord.from_annotations({labels.ALTERNATIVES: text}) == AlternativesRecord()


def test_the_size_of_the_record_is_limited() -> None:
    keys = [f"type{number}//spot" for number in range(500)]
    record = AlternativesRecord().with_stock_out(keys, "InsufficientCapacity", "x" * 5000, now=NOW)
    assert len(record.to_annotation()) < 64 * 500


@pytest.mark.parametrize(
    ("launched", "reason", "expected"),
    [
        ("False", "InsufficientCapacity", True),
        ("False", "QuotaExceeded", True),
        ("False", "UnsupportedInstanceType", True),
        ("Unknown", "InsufficientCapacity", False),
        ("False", "Unauthorized", False),
        ("False", "BlockedByCloud", True),
        ("True", "InsufficientCapacity", False),
        ("", "", False),
    ],
)
def test_what_counts_as_a_refusal(launched: str, reason: str, expected: bool) -> None:
    assert (refusal(claim(A, launched=launched, reason=reason)) is not None) is expected


def test_causes_of_lost_claims() -> None:
    assert refusal_in("NodeClaim ws1: InsufficientCapacityError: no on-demand capacity") == "InsufficientCapacity"
    assert refusal_in("NodeClaim ws1: not launched within 900 s") == ""
    creating = (
        "Machine ws1: not launched within 900 s; agent pool ws1 is being created, 14 min since the claim was created"
    )
    assert refusal_in(creating) == "LaunchTimeout"
    assert refusal_in("LaunchTimeout: no instance within 2700 s of the request") == "LaunchTimeout"
    assert refusal_in("Machine ws1: not launched within 900 s; Unauthorized: no permission") == ""


# ── preflight and admission ──────────────────────────────────────────────────────────────────────────────────────────


def with_types(workspace: Workspace, *names: str, preset: str = "", **resource: Any) -> Workspace:
    document = workspace.to_dict()
    del document["resource"]["instanceType"]
    document["resource"] |= {"instanceTypes": list(names), **resource}
    if preset:
        document["inference"]["preset"] = {"name": preset, "presetOptions": {"modelAccessSecret": "token"}}
    return Workspace.model_validate(document)


async def plan_of(workspace: Workspace) -> Plan:
    checked = await run_checks(workspace, WorkspaceSettings(), ManifestReader())
    assert checked.errors == []
    assert checked.plan is not None
    return checked.plan


async def test_each_alternative_is_planned_for_itself(phi: Workspace) -> None:
    plan = await plan_of(with_types(phi, A, T4, C, preset="llama-3.3-70b-instruct"))
    assert plan.choice is not None
    assert [each.nodes for each in plan.choice.candidates] == [2, 0, 1]
    assert plan.hardware.instance_type == A
    assert plan.hardware.nodes_per_copy == 2


async def test_the_plan_equals_that_of_the_only_instance_type(phi: Workspace) -> None:
    one = phi.evolve(resource=phi.resource.evolve(instance_type=C))
    several, only = await plan_of(with_types(phi, "Standard_Bogus", C)), await plan_of(one)
    assert several.hardware == only.hardware
    assert several.container == only.container


def violations(workspace: Workspace, settings: WorkspaceSettings | None = None) -> list[tuple[str, str, str]]:
    return [
        (v.severity, v.field, v.message) for v in validate_workspace(workspace, None, settings or WorkspaceSettings())
    ]


def test_an_impossible_alternative_is_a_warning(phi: Workspace) -> None:
    (found,) = violations(with_types(phi, "Standard_Bogus", A))
    assert found[:2] == ("warning", "resource.instanceTypes[0]")
    assert found[2].endswith("; this alternative is skipped")


def test_without_a_possible_alternative_each_is_an_error(phi: Workspace) -> None:
    found = violations(with_types(phi, "Standard_Bogus", T4, preset="llama-3.1-8b-instruct"))
    assert [each[:2] for each in found] == [
        ("error", "resource.instanceTypes[0]"),
        ("error", "resource.instanceTypes[1]"),
    ]


@pytest.mark.parametrize(
    ("names", "field", "message"),
    [
        ((A, A.lower()), "resource.instanceTypes[1]", f"'{A.lower()}' is named twice: remove one of them"),
        ((A, ""), "resource.instanceTypes[1]", "'' is not an instance type: it must fit a node label"),
        ((A, "a b"), "resource.instanceTypes[1]", "'a b' is not an instance type: it must fit a node label"),
        (tuple(f"{A}{n}" for n in range(17)), "resource.instanceTypes", "has 17 entries: use at most 16"),
    ],
)
def test_the_form_of_the_list(phi: Workspace, names: tuple[str, ...], field: str, message: str) -> None:
    assert ("error", field, message) in violations(with_types(phi, *names))


def test_both_fields(phi: Workspace) -> None:
    given = with_types(phi, A, instanceType=B)
    message = f"is set together with resource.instanceType '{B}': remove one"
    assert ("error", "resource.instanceTypes", message) in violations(given)


def test_existing_nodes_have_no_alternatives(phi: Workspace) -> None:
    found = violations(with_types(phi, A), WorkspaceSettings(node_api=NodeApi.BYO))
    assert [each[:2] for each in found] == [("error", "resource.instanceTypes")]
    assert found[0][2].startswith("is set, but this controller uses existing nodes (--node-api byo): remove it")


def test_one_instance_type_becomes_several(phi: Workspace) -> None:
    assert [
        v for v in validate_workspace(with_types(phi, A, B), phi, WorkspaceSettings()) if v.severity == "error"
    ] == []


def test_replan_without_alternatives_has_no_effect(phi: Workspace) -> None:
    given = phi.with_metadata(annotations={labels.REPLAN: "now"})
    message = "has no effect without alternatives in resource.instanceTypes: remove it"
    assert violations(given) == [("warning", f"metadata.annotations[{labels.REPLAN}]", message)]


def test_the_annotation_is_known(phi: Workspace) -> None:
    given = with_types(phi, A).with_metadata(annotations={labels.ALTERNATIVES: json.dumps({"chosen": A})})
    assert violations(given) == []
