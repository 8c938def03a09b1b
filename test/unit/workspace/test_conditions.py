"""Conditions from observations: True only while true, False with the cause, Unknown before anybody looked."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import Claim, Workspace
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.workspace.manifests.claim import claim
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware, Plan, Refusal
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.status import ClaimsReport, Observation, Verdict, claim_condition_type, state, verdicts


class Seen:
    """Observations of one Workspace, from nothing to all well."""

    def __init__(self, workspace: Workspace, plan: Plan, settings: WorkspaceSettings, hardware: Hardware) -> None:
        self.workspace, self.plan, self.settings, self.hardware = workspace, plan, settings, hardware
        self.node_api = settings.node_api

    def claim(self, *conditions: dict[str, str], node: str = "") -> Claim:
        made = claim(self.workspace, self.hardware, self.settings, index=0, serial=0)
        return made.evolve(status={"conditions": list(conditions), "nodeName": node})

    def well(self, **changes: Any) -> Observation:
        ready = self.claim({"type": "Ready", "status": "True"}, node="gpu-0")
        seen = Observation(
            plan=self.plan,
            claims=ClaimsReport(wanted=1, claims=[ready]),
            nodes=NodesReport(wanted=1, names=("gpu-0",), usable=("gpu-0",), alive=frozenset({"gpu-0"})),
            looked_at_workload=True,
            workload=workload(ready=1),
        )
        for name, value in changes.items():
            setattr(seen, name, value)
        return seen

    def told(self, seen: Observation) -> dict[str, Verdict]:
        return {verdict.type: verdict for verdict in verdicts(self.workspace, seen, self.node_api)}


def workload(*, ready: int, replicas: int = 1) -> StatefulSet:
    return StatefulSet.model_validate(
        {"metadata": {"name": "ws"}, "spec": {"replicas": replicas}, "status": {"readyReplicas": ready}}
    )


@pytest.fixture
def seen(phi: Workspace, plan: Plan, settings: WorkspaceSettings, hardware: Hardware) -> Seen:
    return Seen(phi, plan, settings, hardware)


def test_all_well_is_true_throughout(seen: Seen) -> None:
    told = seen.told(seen.well())
    own = "MachineReady" if seen.node_api is NodeApi.MACHINE else "NodeClaimReady"
    assert list(told) == [
        "ModelResolved",
        own,
        "NodesReady",
        "ResourceReady",
        "InferenceReady",
        "WorkspaceSucceeded",
        "WorkspaceReady",
    ]
    assert all(verdict.holds for verdict in told.values())


def test_workspace_ready_is_an_alias(seen: Seen) -> None:
    told = seen.told(seen.well(workload=workload(ready=0)))
    assert told["WorkspaceReady"] == told["WorkspaceSucceeded"]._replace(type="WorkspaceReady")


def test_nothing_seen_yet_is_unknown(seen: Seen) -> None:
    told = seen.told(Observation())
    assert {verdict.holds for verdict in told.values()} == {None}


def test_a_refused_plan_is_told_everywhere_it_matters(seen: Seen) -> None:
    told = seen.told(
        Observation(looked_at_workload=True, refusal=Refusal("UnknownPreset", "no such preset: did you mean phi-4?"))
    )
    for name in ("ModelResolved", "ResourceReady", "InferenceReady", "WorkspaceSucceeded"):
        assert told[name].holds is False
        assert (told[name].reason, told[name].message) == ("UnknownPreset", "no such preset: did you mean phi-4?")


def test_a_claims_own_words_reach_the_user(seen: Seen) -> None:
    failed = seen.claim({"type": "Ready", "status": "False"})
    quota = {"type": failed.stages.launched, "status": "False", "reason": "QuotaExceeded", "message": "0 cores left"}
    claims = ClaimsReport(wanted=1, claims=[seen.claim({"type": "Ready", "status": "False"}, quota)])
    told = seen.told(seen.well(claims=claims, nodes=NodesReport(wanted=1), workload=None))
    for name in (claim_condition_type(seen.node_api), "ResourceReady", "WorkspaceReady"):
        assert told[name].holds is False
        assert told[name].reason == "QuotaExceeded"
        assert "0 cores left" in told[name].message
    assert told["InferenceReady"].reason == "WaitingForResources"
    assert "0 cores left" in told["InferenceReady"].message


def test_a_refused_create_is_told_in_the_servers_words(seen: Seen) -> None:
    claims = ClaimsReport(wanted=1, failure=("NodeClaimCreateFailed", "denied by policy"))
    told = seen.told(seen.well(claims=claims, nodes=NodesReport(wanted=1), workload=None))
    assert told["ResourceReady"].message == "denied by policy"


def test_the_pause_before_a_replacement_has_an_end(seen: Seen) -> None:
    claims = ClaimsReport(wanted=1, retry_at=datetime(2030, 1, 1, 0, 5, tzinfo=UTC))
    verdict = seen.told(seen.well(claims=claims))[claim_condition_type(seen.node_api)]
    assert verdict.reason == "ReplacementPending"
    assert "2030-01-01T00:05:00Z" in verdict.message


def test_missing_gpus_are_told_apart_from_missing_nodes(seen: Seen) -> None:
    waiting = NodesReport(wanted=1, names=("gpu-0",), alive=frozenset({"gpu-0"}), gpu_faults=("node gpu-0 no GPU",))
    told = seen.told(seen.well(nodes=waiting, workload=None))
    assert told["NodesReady"].reason == "NodePluginsNotReady"
    broken = NodesReport(wanted=1, names=("gpu-0",), faults=("node gpu-0 is not Ready (KubeletDown)",))
    told = seen.told(seen.well(nodes=broken, workload=None))
    assert told["NodesReady"].reason == "NodeNotReady"
    assert "gpu-0" in told["ResourceReady"].message


def test_a_node_without_the_claims_labels_is_told_apart_from_a_missing_one(seen: Seen) -> None:
    told = seen.told(seen.well(nodes=NodesReport(wanted=1), workload=None))
    assert "ready on node gpu-0, which lacks the labels" in told["NodesReady"].message


def test_pods_on_a_dead_node_do_not_count(seen: Seen) -> None:
    dead = NodesReport(wanted=1, names=("gpu-0",), faults=("node gpu-0 is not Ready",))
    pod = Pod.model_validate({"metadata": {"name": "ws-0"}, "spec": {"nodeName": "gpu-0"}})
    for pods in ((), (pod,)):
        told = seen.told(seen.well(nodes=dead, pods=pods))
        assert told["InferenceReady"].holds is False
        assert told["InferenceReady"].reason == "NodeNotReady"


def test_pods_on_a_cordoned_node_still_serve(seen: Seen) -> None:
    cordoned = NodesReport(wanted=1, names=("gpu-0",), alive=frozenset({"gpu-0"}), faults=("node gpu-0 is cordoned",))
    told = seen.told(seen.well(nodes=cordoned))
    assert told["InferenceReady"].holds
    assert told["ResourceReady"].holds is False


def test_a_crash_loop_is_told_with_the_last_words(seen: Seen) -> None:
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
    told = seen.told(seen.well(workload=workload(ready=0), pods=[pod]))
    assert told["InferenceReady"].reason == "ContainerCrashLoopBackOff"
    assert "no such model" in told["WorkspaceReady"].message
    assert told["ResourceReady"].holds


def test_a_problem_does_not_hide_that_the_old_pods_serve(seen: Seen) -> None:
    told = seen.told(seen.well(problem=("WorkloadRefused", "bad template")))
    assert told["InferenceReady"].holds
    assert "bad template" in told["InferenceReady"].message
    told = seen.told(seen.well(problem=("NameConflict", "taken"), workload=None))
    assert told["InferenceReady"] == Verdict.false("InferenceReady", "NameConflict", "taken")


def test_own_nodes_have_no_claims_to_speak_of(phi: Workspace, plan: Plan, hardware: Hardware) -> None:
    own = Seen(phi, plan, WorkspaceSettings(node_api=NodeApi.BYO), hardware)
    nodes = NodesReport(wanted=1, names=("mine",), usable=("mine",), alive=frozenset({"mine"}))
    told = own.told(Observation(plan=plan, nodes=nodes, looked_at_workload=True, workload=workload(ready=1)))
    assert "MachineReady" not in told
    assert told["WorkspaceReady"].holds


@pytest.mark.parametrize(
    ("before", "ready", "after"),
    [(None, 0, "Pending"), ("Pending", 1, "Ready"), ("Ready", 0, "NotReady"), ("NotReady", 1, "Ready")],
)
def test_inference_never_goes_back_to_pending(seen: Seen, before: str | None, ready: int, after: str) -> None:
    workspace = seen.workspace.evolve(status={"state": before} if before else {})
    observed = seen.well(workload=workload(ready=ready))
    whole = seen.told(observed)["WorkspaceSucceeded"]
    assert state(workspace, observed, whole) == after


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
def test_tuning_follows_its_job(seen: Seen, status: dict[str, Any], started: bool, succeeded: bool, word: str) -> None:
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
    }
    workspace = Workspace.model_validate({**seen.workspace.to_dict(), "inference": None, "tuning": tuning})
    job = Job.model_validate({"metadata": {"name": workspace.name}, "status": status})
    observed = seen.well(workload=None, job=job)
    told = {verdict.type: verdict for verdict in verdicts(workspace, observed, seen.node_api)}
    assert told["JobStarted"].holds is started
    assert told["WorkspaceSucceeded"].holds is succeeded
    assert "InferenceReady" not in told
    assert state(workspace, observed, told["WorkspaceSucceeded"]) == word
