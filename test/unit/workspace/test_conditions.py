"""Conditions are True only while they hold, False with the cause, and Unknown if they were not evaluated."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import Claim, Workspace
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.workspace.manifests.claim import node_claim
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware, Plan, PlanFailure
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.state import ClaimsReport, ReconcileState, WorkloadReport
from kaito.workspace.status import claim_condition_type, condition_updates, workspace_state


class Case:
    """States of one Workspace, and the conditions computed from them."""

    def __init__(self, workspace: Workspace, plan: Plan, settings: WorkspaceSettings, hardware: Hardware) -> None:
        self.workspace, self.plan, self.settings, self.hardware = workspace, plan, settings, hardware
        self.node_api = settings.node_api

    def claim(self, *conditions: dict[str, str], node: str = "") -> Claim:
        claim = node_claim(self.workspace, self.hardware, self.settings, index=0, serial=0)
        return claim.evolve(status={"conditions": list(conditions), "nodeName": node})

    def ready(self, **changes: Any) -> ReconcileState:
        """A state in which everything is ready, apart from the changes."""
        claim = self.claim({"type": "Ready", "status": "True"}, node="gpu-0")
        state = ReconcileState(
            plan=self.plan,
            claims=ClaimsReport(wanted=1, claims=[claim]),
            nodes=NodesReport(wanted=1, names=("gpu-0",), usable=("gpu-0",), ready=frozenset({"gpu-0"})),
            workload=workload(ready=1),
        )
        for name, value in changes.items():
            setattr(state, name, value)
        return state

    def conditions(self, state: ReconcileState) -> dict[str, ConditionUpdate]:
        return {update.type: update for update in condition_updates(self.workspace, state, self.node_api)}


def workload(*, ready: int, pods: Sequence[Pod] = ()) -> WorkloadReport:
    document = {"metadata": {"name": "ws"}, "spec": {"replicas": 1}, "status": {"readyReplicas": ready}}
    return WorkloadReport(stateful_set=StatefulSet.model_validate(document), pods=pods)


@pytest.fixture
def case(phi: Workspace, plan: Plan, settings: WorkspaceSettings, hardware: Hardware) -> Case:
    return Case(phi, plan, settings, hardware)


def test_all_conditions_are_true_if_everything_is_ready(case: Case) -> None:
    conditions = case.conditions(case.ready())
    own = "MachineReady" if case.node_api is NodeApi.MACHINE else "NodeClaimReady"
    assert list(conditions) == [
        "ModelResolved",
        own,
        "NodesReady",
        "ResourceReady",
        "InferenceReady",
        "WorkspaceSucceeded",
        "WorkspaceReady",
    ]
    assert all(update.is_true for update in conditions.values())


def test_workspace_ready_is_an_alias(case: Case) -> None:
    conditions = case.conditions(case.ready(workload=workload(ready=0)))
    assert conditions["WorkspaceReady"] == replace(conditions["WorkspaceSucceeded"], type="WorkspaceReady")


def test_conditions_are_unknown_before_anything_is_observed(case: Case) -> None:
    conditions = case.conditions(ReconcileState())
    assert {update.status for update in conditions.values()} == {"Unknown"}


def test_a_plan_failure_is_reported_in_all_conditions_that_depend_on_it(case: Case) -> None:
    failure = PlanFailure("UnknownPreset", "no such preset: did you mean phi-4?")
    conditions = case.conditions(ReconcileState(workload=WorkloadReport(), plan_failure=failure))
    for name in ("ModelResolved", "ResourceReady", "InferenceReady", "WorkspaceSucceeded"):
        assert conditions[name] == ConditionUpdate.false(name, failure.reason, failure.message)


def test_the_message_of_a_claims_condition_is_reported(case: Case) -> None:
    failed = case.claim({"type": "Ready", "status": "False"})
    quota = {"type": failed.stages.launched, "status": "False", "reason": "QuotaExceeded", "message": "0 cores left"}
    claims = ClaimsReport(wanted=1, claims=[case.claim({"type": "Ready", "status": "False"}, quota)])
    conditions = case.conditions(case.ready(claims=claims, nodes=NodesReport(wanted=1), workload=WorkloadReport()))
    for name in (claim_condition_type(case.node_api), "ResourceReady", "WorkspaceReady"):
        assert conditions[name].status == "False"
        assert conditions[name].reason == "QuotaExceeded"
        assert "0 cores left" in conditions[name].message
    assert conditions["InferenceReady"].reason == "WaitingForResources"
    assert "0 cores left" in conditions["InferenceReady"].message


def test_a_rejected_claim_is_reported_with_the_servers_message(case: Case) -> None:
    claims = ClaimsReport(wanted=1, failure=("NodeClaimCreateFailed", "denied by policy"))
    conditions = case.conditions(case.ready(claims=claims, nodes=NodesReport(wanted=1), workload=WorkloadReport()))
    assert conditions["ResourceReady"].message == "denied by policy"


def test_the_message_contains_the_time_of_the_replacement(case: Case) -> None:
    claims = ClaimsReport(wanted=1, retry_at=datetime(2030, 1, 1, 0, 5, tzinfo=UTC))
    update = case.conditions(case.ready(claims=claims))[claim_condition_type(case.node_api)]
    assert update.reason == "ReplacementPending"
    assert "2030-01-01T00:05:00Z" in update.message


def test_missing_gpus_and_missing_nodes_have_different_reasons(case: Case) -> None:
    waiting = NodesReport(wanted=1, names=("gpu-0",), ready=frozenset({"gpu-0"}), gpu_faults=("node gpu-0 no GPU",))
    conditions = case.conditions(case.ready(nodes=waiting, workload=WorkloadReport()))
    assert conditions["NodesReady"].reason == "NodePluginsNotReady"
    broken = NodesReport(wanted=1, names=("gpu-0",), faults=("node gpu-0 is not Ready (KubeletDown)",))
    conditions = case.conditions(case.ready(nodes=broken, workload=WorkloadReport()))
    assert conditions["NodesReady"].reason == "NodeNotReady"
    assert "gpu-0" in conditions["ResourceReady"].message


def test_a_node_without_the_claims_labels_is_reported(case: Case) -> None:
    conditions = case.conditions(case.ready(nodes=NodesReport(wanted=1), workload=WorkloadReport()))
    assert "ready on node gpu-0, which lacks the labels" in conditions["NodesReady"].message


def test_pods_on_a_node_that_is_not_ready_do_not_count(case: Case) -> None:
    dead = NodesReport(wanted=1, names=("gpu-0",), faults=("node gpu-0 is not Ready",))
    pod = Pod.model_validate({"metadata": {"name": "ws-0"}, "spec": {"nodeName": "gpu-0"}})
    for pods in ((), (pod,)):
        conditions = case.conditions(case.ready(nodes=dead, workload=workload(ready=1, pods=pods)))
        assert conditions["InferenceReady"].status == "False"
        assert conditions["InferenceReady"].reason == "NodeNotReady"


def test_pods_on_a_cordoned_node_still_serve(case: Case) -> None:
    cordoned = NodesReport(wanted=1, names=("gpu-0",), ready=frozenset({"gpu-0"}), faults=("node gpu-0 is cordoned",))
    conditions = case.conditions(case.ready(nodes=cordoned))
    assert conditions["InferenceReady"].is_true
    assert conditions["ResourceReady"].status == "False"


def test_a_crash_loop_is_reported_with_the_termination_message(case: Case) -> None:
    pod = Pod.model_validate(
        {
            "metadata": {"name": "ws-0"},
            "status": {
                "containerStatuses": [
                    {
                        "name": "server",
                        "restartCount": 2,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 1, "message": "no such model"}},
                    }
                ]
            },
        }
    )
    conditions = case.conditions(case.ready(workload=workload(ready=0, pods=[pod])))
    assert conditions["InferenceReady"].reason == "ContainerCrashLoopBackOff"
    assert "no such model" in conditions["WorkspaceReady"].message
    assert conditions["ResourceReady"].is_true


def test_a_rejected_update_does_not_hide_that_the_old_pods_serve(case: Case) -> None:
    conditions = case.conditions(case.ready(rejection=("WorkloadRefused", "bad template")))
    assert conditions["InferenceReady"].is_true
    assert "bad template" in conditions["InferenceReady"].message
    conditions = case.conditions(case.ready(rejection=("NameConflict", "taken"), workload=WorkloadReport()))
    assert conditions["InferenceReady"] == ConditionUpdate.false("InferenceReady", "NameConflict", "taken")


def test_existing_nodes_have_no_condition_about_claims(phi: Workspace, plan: Plan, hardware: Hardware) -> None:
    own = Case(phi, plan, WorkspaceSettings(node_api=NodeApi.BYO), hardware)
    nodes = NodesReport(wanted=1, names=("mine",), usable=("mine",), ready=frozenset({"mine"}))
    conditions = own.conditions(ReconcileState(plan=plan, nodes=nodes, workload=workload(ready=1)))
    assert "MachineReady" not in conditions
    assert conditions["WorkspaceReady"].is_true


@pytest.mark.parametrize(
    ("before", "ready", "after"),
    [(None, 0, "Pending"), ("Pending", 1, "Ready"), ("Ready", 0, "NotReady"), ("NotReady", 1, "Ready")],
)
def test_inference_never_goes_back_to_pending(case: Case, before: str | None, ready: int, after: str) -> None:
    workspace = case.workspace.evolve(status={"state": before} if before else {})
    observed = case.ready(workload=workload(ready=ready))
    summary = case.conditions(observed)["WorkspaceSucceeded"]
    assert workspace_state(workspace, observed, summary) == after


@pytest.mark.parametrize(
    ("status", "started", "succeeded", "word"),
    [
        ({"active": 1, "ready": 1}, True, False, "Running"),
        ({"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}, True, True, "Succeeded"),
        (
            {"conditions": [{"type": "Failed", "status": "True", "message": "limit reached"}], "failed": 1},
            False,
            False,
            "Failed",
        ),
        ({}, False, False, "Pending"),
    ],
)
def test_tuning_follows_its_job(case: Case, status: dict[str, Any], started: bool, succeeded: bool, word: str) -> None:
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
    }
    workspace = Workspace.model_validate({**case.workspace.to_dict(), "inference": None, "tuning": tuning})
    job = Job.model_validate({"metadata": {"name": workspace.name}, "status": status})
    observed = case.ready(workload=WorkloadReport(job=job))
    conditions = {update.type: update for update in condition_updates(workspace, observed, case.node_api)}
    assert conditions["JobStarted"].is_true is started
    assert conditions["WorkspaceSucceeded"].is_true is succeeded
    assert "InferenceReady" not in conditions
    assert workspace_state(workspace, observed, conditions["WorkspaceSucceeded"]) == word
