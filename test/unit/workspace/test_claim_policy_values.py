"""Limits of the claim policy: times, counts, the recorded attempts field by field, and the places of claims."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import Claim, Machine, Workspace
from kaito.api.workspace import PodOptions
from kaito.runtime.kinds import Node
from kaito.workspace.claim_policy import ClaimDecision, ClaimState, ProvisionAttempts, decide, index_of
from kaito.workspace.claim_state import claim_state
from kaito.workspace.manifests.claim import claim_name
from kaito.workspace.settings import NodeApi, WorkspaceSettings

NOW = datetime(2030, 1, 1, 1, tzinfo=UTC)
RECORD = "kaito.sh/provision-attempts"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def claim(
    index: int | str = 0,
    serial: int = 0,
    *,
    age: float = 60,
    ready: str = "False",
    launched: str = "",
    provider_id: str = "",
    node: str = "",
    deleted_for: float | None = None,
) -> Claim:
    conditions = [{"type": "Ready", "status": ready}]
    if launched:
        conditions.append({"type": "MachineLaunched", "status": launched})
    metadata = {
        "name": f"{index}-{serial}",
        "annotations": {"kaito.sh/claim-index": str(index)},
        "creationTimestamp": at(-age).isoformat(),
        "deletionTimestamp": None if deleted_for is None else at(-deleted_for).isoformat(),
    }
    status = {"conditions": conditions, "providerID": provider_id, "nodeName": node}
    return Machine.model_validate({"metadata": metadata, "status": status})


def decision(*claims: Claim, wanted: int = 1, settings: dict[str, Any] | None = None, **state: Any) -> ClaimDecision:
    found: dict[str, Any] = {"nodes": {}, "attempts": ProvisionAttempts(), **state}
    return decide(ClaimState(now=NOW, wanted=wanted, claims=claims, **found), WorkspaceSettings(**(settings or {})))


def test_settings_have_these_defaults() -> None:
    assert WorkspaceSettings().model_dump(exclude={"pod_defaults"}) == {
        "node_api": NodeApi.MACHINE,
        "cloud": "azure",
        "image_registry": "kaito",
        "serving_image": "",
        "vllm_image": "",
        "model_registry": "",
        "weights_source": "Auto",
        "hub_endpoint": "https://huggingface.co",
        "region": "",
        "mig_strategy": "single",
        "tracing_endpoint": "",
        "node_cache_directory": "",
        "vllm": True,
        "default_node_image_family": "ubuntu",
        "node_class": {
            "karpenter_node_class_group": "",
            "karpenter_node_class_kind": "",
            "karpenter_node_class_version": "",
            "karpenter_node_class_resource_name": "",
            "karpenter_node_class_name": "default",
        },
        "node_provision_timeout_seconds": 900,
        "node_unhealthy_timeout_seconds": 600,
        "deletion_timeout_seconds": 1200,
        "default_inference_cpu": "1",
        "default_inference_memory": "4Gi",
        "allow_in_cluster_data_urls": False,
        "concurrency": 32,
        "inference_gateway": "",
        "endpoint_picker": "{name}-epp",
        "activator_port": 20000,
        "installation_guard": True,
        "namespace": "",
    }
    assert WorkspaceSettings().pod_defaults == PodOptions()


@pytest.mark.parametrize(
    ("index", "expected"),
    [("0", 0), ("12", 12), ("999999999", 999999999), ("1234567890", -1), ("", -1), ("-1", -1), ("1.5", -1), ("x", -1)],
)
def test_the_place_of_a_claim_is_an_annotation_of_up_to_9_digits(index: str, expected: int) -> None:
    assert index_of(claim(index)) == expected


@pytest.mark.parametrize(
    ("found", "is_broken"),
    [
        (claim(age=899), False),
        (claim(age=900), True),
        (claim(age=5000, launched="False"), True),
        (claim(age=5000, launched="Unknown"), True),
        (claim(age=5000, launched="True"), False),
        (claim(age=5000, ready="True"), False),
        (claim(age=5000, provider_id="azure:///x"), False),
        (claim(age=5000, deleted_for=10), False),
    ],
)
def test_a_claim_has_15_minutes_to_launch(found: Claim, *, is_broken: bool) -> None:
    made = decision(found)
    assert [(broken.name, reason) for broken, reason in made.delete] == (
        [("0-0", "not launched within 900 s")] if is_broken else []
    )


def test_the_limit_of_the_launch_is_a_setting() -> None:
    made = decision(claim(age=61), settings={"node_provision_timeout_seconds": 60})
    assert made.delete[0][1] == "not launched within 60 s"
    assert decision(claim(age=50), settings={"node_provision_timeout_seconds": 60}).requeue_at == at(10)


def node(ready: str | None, since: float | None = None, *, age: float = 5000) -> Node:
    moment = None if since is None else at(-since).isoformat()
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "lastTransitionTime": moment}]
    metadata = {"name": "gpu-0", "creationTimestamp": at(-age).isoformat()}
    return Node.model_validate({"metadata": metadata, "status": {"conditions": conditions}})


@pytest.mark.parametrize(
    ("found", "is_broken"),
    [
        (node("False", 599), False),
        (node("False", 600), True),
        (node("Unknown", 600), True),
        (node("True", 600), False),
        (node(None), False),
        (node("False", age=600), True),
        (node("False", age=599), False),
    ],
)
def test_a_node_has_10_minutes_to_become_ready(found: Node, *, is_broken: bool) -> None:
    made = decision(claim(ready="True", node="gpu-0"), nodes={"gpu-0": found})
    assert [reason for _, reason in made.delete] == ["node gpu-0 not Ready for 600 s"] * is_broken
    assert decision(claim(ready="True", node="gpu-1"), nodes={"gpu-0": found}).delete == ()


@pytest.mark.parametrize(("deleted_for", "held_until"), [(0, 300), (299, 1), (299.5, 0.5), (300, None), (1000, None)])
def test_a_terminating_claim_holds_its_place_for_5_minutes(deleted_for: float, held_until: float | None) -> None:
    attempts = ProvisionAttempts(serial=1, failures=1, backoff_started_at=at(-3600), lost=("0-0",))
    made = decision(claim(deleted_for=deleted_for), attempts=attempts)
    if held_until is None:
        assert (made.create, made.terminating) == (((0, 1),), ())
        return
    assert (made.create, made.terminating) == ((), ("0-0",))
    assert made.next_creation_at == at(held_until + 30)
    assert made.attempts.backoff_started_at is None


@pytest.mark.parametrize(("failures", "seconds"), [(0, 30), (1, 30), (2, 60), (5, 480), (6, 900), (7, 900), (32, 900)])
def test_the_backoff_doubles_from_30_seconds_to_15_minutes(failures: int, seconds: float) -> None:
    attempts = ProvisionAttempts(failures=failures, backoff_started_at=NOW)
    assert attempts.backoff == timedelta(seconds=seconds)
    assert attempts.next_attempt_at == (at(seconds) if failures else None)
    assert replace(attempts, backoff_started_at=None).next_attempt_at is None


@pytest.mark.parametrize(
    ("failures", "lost", "issued", "expected"),
    [(1, ("a",), (), True), (0, ("a",), (), False), (1, (), (), False), (1, ("a",), ("b",), False)],
)
def test_a_loss_without_a_replacement_is_pending(
    failures: int, lost: tuple[str, ...], issued: tuple[str, ...], *, expected: bool
) -> None:
    assert ProvisionAttempts(failures=failures, lost=lost, issued=issued).is_replacement_pending is expected


def test_no_more_than_32_losses_are_recorded() -> None:
    attempts = ProvisionAttempts(serial=40, failures=32, lost=("a",), issued=("b",), cause="old")
    counted = attempts.with_losses(["c", "b"], now=NOW, after_success=False)
    assert counted == ProvisionAttempts(serial=41, failures=32, backoff_started_at=NOW, lost=("a", "b", "c"))
    assert attempts.with_losses(["c"], now=NOW, after_success=True).failures == 1


def test_more_losses_before_a_replacement_change_only_their_names() -> None:
    attempts = ProvisionAttempts(serial=2, failures=2, backoff_started_at=at(-5), lost=("b",), cause="quota")
    assert attempts.with_losses(["a"], now=NOW, after_success=True) == replace(attempts, lost=("a", "b"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"serial": 3}, ProvisionAttempts(serial=3)),
        ({"serial": -1, "failures": -1}, ProvisionAttempts()),
        ({"failures": 32}, ProvisionAttempts(failures=32)),
        ({"failures": 33}, ProvisionAttempts(failures=32)),
        ({"since": "2030-01-01T02:00:00+01:00"}, ProvisionAttempts(backoff_started_at=NOW)),
        ({"lost": ["a"], "issued": ["b", 7]}, ProvisionAttempts(lost=("a",), issued=("b", "7"))),
        ({"cause": "x" * 700}, ProvisionAttempts(cause="x" * 600)),
        ({"cause": None}, ProvisionAttempts(cause="None")),
        ({"lost": "a", "serial": 3}, ProvisionAttempts()),
        ({"since": "now", "serial": 3}, ProvisionAttempts()),
        ({"serial": "three"}, ProvisionAttempts()),
    ],
)
def test_every_field_of_the_record_is_read(record: dict[str, Any], expected: ProvisionAttempts) -> None:
    assert ProvisionAttempts.from_annotations({RECORD: json.dumps(record)}) == expected


def test_the_record_is_written_without_empty_fields() -> None:
    assert json.loads(ProvisionAttempts().to_annotation()) == {"serial": 0, "failures": 0}
    full = ProvisionAttempts(serial=1, failures=2, backoff_started_at=NOW, lost=("a",), issued=("b",), cause="c")
    assert json.loads(full.to_annotation()) == {
        "serial": 1,
        "failures": 2,
        "since": "2030-01-01T01:00:00+00:00",
        "lost": ["a"],
        "issued": ["b"],
        "cause": "c",
    }


@pytest.mark.parametrize(
    ("claims", "wanted", "create"),
    [
        ((), 0, ()),
        ((), 2, ((0, 0), (1, 0))),
        ((claim(1),), 2, ((0, 0),)),
        ((claim(7),), 2, ((0, 0),)),
        ((claim("x"),), 2, ((0, 0),)),
        ((claim(0), claim(1), claim(2)), 2, ()),
    ],
)
def test_the_lowest_free_places_are_filled(
    claims: tuple[Claim, ...], wanted: int, create: tuple[tuple[int, int], ...]
) -> None:
    assert decision(*claims, wanted=wanted).create == create


@pytest.mark.parametrize(("since", "create"), [(29, ()), (30, ((0, 1),)), (-10, ())])
def test_the_replacement_is_created_when_the_backoff_ends(since: float, create: tuple[tuple[int, int], ...]) -> None:
    attempts = ProvisionAttempts(serial=1, failures=1, backoff_started_at=at(-since), lost=("0-0",))
    made = decision(attempts=attempts)
    assert made.create == create
    assert made.next_creation_at == (None if create else at(30 - max(since, 0)))
    assert made.requeue_at == made.next_creation_at
    assert made.attempts.issued == (("0-1",) if create else ())


@pytest.mark.parametrize(
    ("ready", "ready_for", "stays", "requeue"),
    [
        ("True", None, True, None),
        ("True", 599, True, 1),
        ("True", 600, False, None),
        ("False", 5000, True, 840),
    ],
)
def test_a_series_of_losses_ends_after_10_minutes(
    ready: str, ready_for: float | None, *, stays: bool, requeue: float | None
) -> None:
    attempts = ProvisionAttempts(serial=4, failures=3, backoff_started_at=at(-900), issued=("0-4",), cause="quota")
    since = None if ready_for is None else at(-ready_for)
    made = decision(claim(0, 4, ready=ready), attempts=attempts, ready_since=since, expected=frozenset({"0-4"}))
    assert made.attempts == (attempts if stays else ProvisionAttempts(serial=4))
    assert made.requeue_at == (None if requeue is None else at(requeue))


def test_counted_losses_are_kept_while_they_exist_or_are_expected() -> None:
    attempts = ProvisionAttempts(serial=4, failures=3, backoff_started_at=at(-900), lost=("0-1", "0-2", "0-3"))
    made = decision(
        claim(0, 4, ready="True"),
        claim(0, 2, deleted_for=400),
        attempts=attempts,
        ready_since=at(-600),
        expected=frozenset({"0-3", "0-4"}),
    )
    assert made.attempts == ProvisionAttempts(serial=4, lost=("0-2", "0-3"))
    again = decision(claim(0, 2, deleted_for=400), attempts=attempts, expected=frozenset({"0-3"}))
    assert again.attempts == replace(attempts, lost=("0-2", "0-3"), issued=("0-4",))


def test_a_rejected_creation_is_neither_a_loss_nor_unconfirmed() -> None:
    attempts = ProvisionAttempts(serial=1, failures=1, backoff_started_at=at(-900), issued=("0-1",))
    waiting = decision(attempts=attempts)
    assert (waiting.unconfirmed, waiting.create) == (("0-1",), ())
    made = decision(attempts=attempts, creation_rejected=True)
    assert (made.unconfirmed, made.lost, made.create) == ((), (), ((0, 1),))
    foreign = decision(attempts=attempts, confirmed=frozenset({"9-9"}))
    assert foreign.lost == (), "an Event counts for issued claims only"


def test_a_loss_that_did_not_happen_is_not_counted() -> None:
    """The node became Ready between the record and the deletion of the claim, which is then not deleted."""
    pending = ProvisionAttempts(serial=1, failures=1, lost=("0-0",), cause="node not Ready")
    made = decision(claim(0, 0, launched="True", ready="True"), attempts=pending)
    assert made.attempts == ProvisionAttempts(serial=1)
    assert (made.delete, made.create) == ((), ())
    two = decision(
        claim(0, 0, launched="True"), wanted=2, attempts=replace(pending, lost=("0-0", "1-0")), expected=frozenset()
    )
    assert (two.attempts.failures, two.attempts.lost) == (1, ("1-0",))
    replaced = replace(pending, issued=("0-1",))
    assert decision(claim(0, 0, launched="True"), claim(0, 1), wanted=2, attempts=replaced).attempts == replaced


EXPECTED: list[tuple[dict[str, Any], list[str], str, set[str]]] = [
    ({}, [], "MachineNotReady", {"0"}),
    ({"serial": 1}, [], "MachineNotReady", {"0"}),
    ({"serial": 1, "failures": 1, "lost": ["a"]}, [], "MachineNotReady", set()),
    ({"serial": 1, "failures": 1, "lost": ["a"], "issued": ["0"]}, [], "MachineNotReady", {"0"}),
    ({"serial": 1, "failures": 1, "lost": ["a"]}, ["b"], "MachineNotReady", {"b"}),
    ({}, [], "ReconcileError", set()),
    ({"serial": 1, "failures": 1, "lost": ["a"], "issued": ["0"]}, [], "ReconcileError", set()),
    ({}, ["b"], "ReconcileError", {"b"}),
]


@pytest.mark.parametrize(("record", "claims", "reason", "expected"), EXPECTED)
def test_without_names_in_the_status_no_claim_is_expected_before_its_creation_is_recorded(
    phi: Workspace, record: dict[str, Any], claims: list[str], reason: str, expected: set[str]
) -> None:
    """The status counts `0 of 1 machines ready`, also if the reconcile that was to create the claim failed."""

    def named(text: str) -> str:
        return claim_name(phi, index=0, serial=record.get("serial", 0)) if text == "0" else text

    written = {name: [named(each) for each in value] if name == "issued" else value for name, value in record.items()}
    condition = {"type": "MachineReady", "status": "False", "reason": reason, "lastTransitionTime": at(-60)}
    status = {
        "claims": claims,
        "targetNodeCount": 1,
        "conditions": [{**condition, "message": "0 of 1 machines ready"}],
    }
    workspace = Workspace.model_validate({**phi.to_dict(), "status": status})
    workspace = workspace.evolve(metadata=workspace.metadata.evolve(annotations={RECORD: json.dumps(written)}))
    settings = WorkspaceSettings(node_api=NodeApi.MACHINE)
    state = claim_state(workspace, settings, now=NOW, wanted=1, claims=[], nodes=None)
    assert state.expected == {named(each) for each in expected}
