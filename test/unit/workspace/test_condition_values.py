"""Reason and message of every condition for each cause: one change of a state that is ready."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import Claim, Machine, NodeClaim, Workspace
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.workspace.failure import Step, StepFailure
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware, Plan, PlanFailure
from kaito.workspace.pod_faults import Fault
from kaito.workspace.settings import NodeApi
from kaito.workspace.state import ClaimsReport, ReconcileState, WorkloadReport, can_place_pods
from kaito.workspace.status import condition_updates, workspace_state

READY = NodesReport(wanted=1, names=("gpu-0",), usable=("gpu-0",), ready=frozenset({"gpu-0"}))
LATER = datetime(2030, 1, 1, 0, 5, tzinfo=UTC)
PRESET = "phi-3-mini-4k-instruct on"


def claim(
    name: str = "ws1", *conditions: dict[str, str], kind: type[Claim] = Machine, node: str = "", deleting: bool = False
) -> Claim:
    metadata = {"name": name, "deletionTimestamp": "2030-01-01T00:00:00Z" if deleting else None}
    spec: dict[str, Any] = {
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [],
    }
    required: dict[str, Any] = {} if kind is Machine else {"spec": spec}
    return kind.model_validate(
        {"metadata": metadata, **required, "status": {"conditions": list(conditions), "nodeName": node}}
    )


IS_READY = {"type": "Ready", "status": "True"}
FAILED = {"type": "MachineLaunched", "status": "False", "reason": "QuotaExceeded", "message": "0 cores left"}


def served(ready: int = 1, *, replicas: int | None = 1, pods: list[Pod] | None = None, **more: Any) -> WorkloadReport:
    document = {"metadata": {"name": "ws"}, "spec": {"replicas": replicas}, "status": {"readyReplicas": ready}}
    return WorkloadReport(stateful_set=StatefulSet.model_validate(document), pods=pods or [], **more)


def pod(node: str | None = "gpu-0", *, name: str = "ws-0", deleting: bool = False, **status: Any) -> Pod:
    metadata = {"name": name, "deletionTimestamp": "2030-01-01T00:00:00Z" if deleting else None}
    return Pod.model_validate({"metadata": metadata, "spec": {"nodeName": node}, "status": status})


def state(planned: Plan | None, **changes: Any) -> ReconcileState:
    found = ReconcileState(
        plan=planned,
        claims=ClaimsReport(wanted=1, claims=[claim("ws1", IS_READY, node="gpu-0")]),
        nodes=READY,
        workload=served(),
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def evaluate(
    workspace: Workspace, found: ReconcileState, *failures: StepFailure, node_api: NodeApi = NodeApi.MACHINE
) -> dict[str, ConditionUpdate]:
    return {update.type: update for update in condition_updates(workspace, found, node_api, failures)}


def text(update: ConditionUpdate) -> tuple[str, str, str]:
    return update.status, update.reason, update.message


def lost(times: int, cause: str = "", **more: Any) -> ClaimsReport:
    return ClaimsReport(wanted=2, claims=[claim("ws1", IS_READY)], failures=times, loss_cause=cause, **more)


ONCE = "; claims were lost once, most recently because: cause unknown"
TWICE = "; claims were lost 2 times in a row, most recently because: quota"

NEXT = "; the next claim is created at 2030-01-01T00:05:00Z"
AFTER_DELETION = (
    "; the next claim is created after the deletion of ws2, ws3 and a backoff, no later than 2030-01-01T00:05:00Z"
)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (None, ("Unknown", "ClaimsPending", "the claims have not been observed yet")),
        (ClaimsReport(wanted=1), ("False", "MachineNotReady", "0 of 1 machines ready")),
        (ClaimsReport(wanted=0), ("True", "MachinesReady", "0 of 0 machines ready")),
        (ClaimsReport(wanted=1, claims=[claim("ws1", IS_READY)]), ("True", "MachinesReady", "1 of 1 machines ready")),
        (ClaimsReport(wanted=0, claims=[claim("ws1", IS_READY)]), ("True", "MachinesReady", "1 of 0 machines ready")),
        (
            ClaimsReport(wanted=1, claims=[claim("ws1", IS_READY, deleting=True)]),
            ("False", "MachineNotReady", "0 of 1 machines ready"),
        ),
        (
            ClaimsReport(wanted=2, claims=[claim("ws1", IS_READY, FAILED), claim("ws2", FAILED)]),
            ("False", "QuotaExceeded", "1 of 2 machines ready; Machine ws2: 0 cores left"),
        ),
        (
            ClaimsReport(wanted=2, claims=[claim("ws1", IS_READY), claim("ws2", FAILED, deleting=True)]),
            ("False", "MachineNotReady", "1 of 2 machines ready"),
        ),
        (
            ClaimsReport(wanted=1, claims=[claim("ws1", FAILED | {"reason": ""})]),
            ("False", "MachineNotReady", "0 of 1 machines ready"),
        ),
        (lost(1), ("False", "MachineNotReady", f"1 of 2 machines ready{ONCE}")),
        (lost(2, "quota"), ("False", "MachineNotReady", f"1 of 2 machines ready{TWICE}")),
        (
            ClaimsReport(wanted=1, claims=[claim("ws1", FAILED)], failures=2, loss_cause="quota"),
            ("False", "QuotaExceeded", f"0 of 1 machines ready; Machine ws1: 0 cores left{TWICE}"),
        ),
        (
            lost(2, "quota", failure=("NodeClaimCreateFailed", "denied"), retry_at=LATER),
            ("False", "NodeClaimCreateFailed", f"denied{TWICE}"),
        ),
        (
            lost(1, given_up=["ws2: not launched within 900 s", "ws3: x"], retry_at=LATER),
            (
                "False",
                "NodeProvisionTimeout",
                f"1 of 2 machines ready; given up: ws2: not launched within 900 s; ws3: x{NEXT}",
            ),
        ),
        (
            lost(2, "quota", retry_at=LATER),
            (
                "False",
                "ReplacementPending",
                f"1 of 2 machines ready{TWICE}; the next claim is created at 2030-01-01T00:05:00Z",
            ),
        ),
        (
            lost(1, retry_at=LATER, terminating=["ws2", "ws3"]),
            (
                "False",
                "ReplacementPending",
                f"1 of 2 machines ready{ONCE}{AFTER_DELETION}",
            ),
        ),
    ],
)
def test_causes_of_the_claims_condition(
    phi: Workspace, plan: Plan, report: ClaimsReport | None, expected: tuple[str, str, str]
) -> None:
    assert text(evaluate(phi, state(plan, claims=report))["MachineReady"]) == expected


def test_node_claims_have_their_own_reasons(phi: Workspace, plan: Plan) -> None:
    ready = ClaimsReport(wanted=1, claims=[claim("ws1", IS_READY, kind=NodeClaim)])
    for report, expected in (
        (ready, ("True", "NodeClaimsReady", "1 of 1 node claims ready")),
        (ClaimsReport(wanted=1), ("False", "NodeClaimNotReady", "0 of 1 node claims ready")),
    ):
        found = evaluate(phi, state(plan, claims=report), node_api=NodeApi.NODECLAIM)
        assert text(found["NodeClaimReady"]) == expected
        assert "MachineReady" not in found


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (None, ("Unknown", "NodeNotReady", "the nodes have not been observed yet")),
        (READY, ("True", "NodesReady", "1 of 1 nodes ready")),
        (
            replace(READY, pressures=("gpu-0 (DiskPressure)",)),
            ("True", "NodesReady", "1 of 1 nodes ready; warning: under pressure: gpu-0 (DiskPressure)"),
        ),
        (replace(READY, faults=("node b is cordoned",)), ("True", "NodesReady", "1 of 1 nodes ready")),
        (
            replace(READY, wanted=2, gpu_faults=("node b has none",), pressures=("b (x)",)),
            ("False", "NodePluginsNotReady", "1 of 2 nodes ready; node b has none; warning: under pressure: b (x)"),
        ),
        (
            replace(READY, wanted=3, faults=("node c is cordoned",), gpu_faults=("node b has none",)),
            ("False", "NodeNotReady", "1 of 3 nodes ready; node c is cordoned; node b has none"),
        ),
        (replace(READY, wanted=2), ("False", "NodeNotReady", "1 of 2 nodes ready")),
    ],
)
def test_causes_of_the_nodes_condition(
    phi: Workspace, plan: Plan, report: NodesReport | None, expected: tuple[str, str, str]
) -> None:
    assert text(evaluate(phi, state(plan, nodes=report))["NodesReady"]) == expected


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (
            [claim("ws1", IS_READY, node="gpu-1")],
            "0 of 1 nodes ready; Machine ws1 is ready on node gpu-1, which lacks the labels of the claim",
        ),
        ([claim("ws1", IS_READY)], "0 of 1 nodes ready"),
        ([claim("ws1", IS_READY | {"status": "False"}, node="gpu-1")], "0 of 1 nodes ready"),
        ([claim("ws1", IS_READY, node="gpu-0")], "0 of 1 nodes ready"),
    ],
)
def test_only_the_node_of_a_ready_claim_can_lack_labels(
    phi: Workspace, plan: Plan, claims: list[Claim], message: str
) -> None:
    nodes = NodesReport(wanted=1, names=("gpu-0",))
    found = state(plan, nodes=nodes, claims=ClaimsReport(wanted=1, claims=claims))
    assert evaluate(phi, found)["NodesReady"].message == message


@pytest.mark.parametrize(
    ("count", "instance_type", "warnings", "message"),
    [
        (1, "Standard_NC6s_v3", (), "1 node of Standard_NC6s_v3"),
        (2, "Standard_NC6s_v3", (), "2 nodes of Standard_NC6s_v3"),
        (1, "", (), "1 node"),
        (1, "", ("a", "b"), "1 node; a; b"),
    ],
)
def test_the_model_condition_names_the_nodes_and_warnings(
    phi: Workspace, plan: Plan, count: int, instance_type: str, warnings: tuple[str, ...], message: str
) -> None:
    hardware = replace(plan.hardware, copies=count, instance_type=instance_type)
    found = evaluate(phi, state(replace(plan, hardware=hardware, warnings=warnings)))["ModelResolved"]
    assert text(found) == ("True", "ModelResolved", f"{PRESET} {message}")


def test_a_template_has_no_model_condition(phi: Workspace, plan: Plan) -> None:
    assert "ModelResolved" not in evaluate(phi.evolve(inference={"template": {"spec": {}}}), state(plan))


def test_a_missing_plan_is_unknown(phi: Workspace) -> None:
    found = evaluate(phi, state(None))
    assert text(found["ModelResolved"]) == ("Unknown", "WorkspacePending", "the preset has not been looked up yet")
    expected = ("Unknown", "WorkspacePending", "the required resources have not been computed yet")
    assert text(found["ResourceReady"]) == expected


@pytest.mark.parametrize(("is_waiting", "status"), [(False, "False"), (True, "Unknown")])
def test_a_failed_check_that_another_object_may_resolve_leaves_two_conditions_unknown(
    phi: Workspace, *, is_waiting: bool, status: str
) -> None:
    failure = PlanFailure("ConfigNotFound", "no ConfigMap x", is_waiting=is_waiting)
    found = evaluate(phi, ReconcileState(plan_failure=failure, workload=WorkloadReport()))
    for name in ("ModelResolved", "MachineReady"):
        assert text(found[name]) == (status, "ConfigNotFound", "no ConfigMap x")
    for name in ("ResourceReady", "InferenceReady", "WorkspaceSucceeded", "WorkspaceReady"):
        assert text(found[name]) == ("False", "ConfigNotFound", "no ConfigMap x")
    assert "NodesReady" not in found


def test_a_false_condition_hides_an_unknown_one(phi: Workspace, plan: Plan) -> None:
    short = replace(READY, wanted=2)
    found = evaluate(phi, state(plan, claims=None, nodes=short))
    assert text(found["ResourceReady"]) == ("False", "NodeNotReady", "1 of 2 nodes ready")
    unknown = evaluate(phi, state(plan, claims=None))
    assert text(unknown["ResourceReady"]) == ("Unknown", "ClaimsPending", "the claims have not been observed yet")
    ready = evaluate(phi, state(plan))
    assert text(ready["ResourceReady"]) == ("True", "ResourcesReady", "1 of 1 nodes ready")


DEAD = NodesReport(wanted=1, names=("gpu-0",), faults=("node gpu-0 is not Ready",))
CRASH: dict[str, Any] = {
    "containerStatuses": [{"name": "server", "state": {"terminated": {"exitCode": 1, "message": "bad flag"}}}]
}
CRASHED = "container server of pod ws-0 ended; last exit code 1: bad flag"
EVENT = Fault("PodCreationFailed", "quota")
REFUSED = ("WorkloadRefused", "bad template")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("True", "WorkspaceInferenceStatusSuccess", "1 of 1 inference pods ready")),
        (
            {"workload": served(1, replicas=None)},
            ("True", "WorkspaceInferenceStatusSuccess", "1 of 1 inference pods ready"),
        ),
        (
            {"workload": served(2, replicas=1)},
            ("True", "WorkspaceInferenceStatusSuccess", "2 of 1 inference pods ready"),
        ),
        ({"workload": served(0)}, ("False", "WorkspaceInferenceStatusPending", "0 of 1 inference pods ready")),
        (
            {"rejection": REFUSED},
            ("True", "WorkspaceInferenceStatusSuccess", "1 of 1 inference pods ready; warning: bad template"),
        ),
        (
            {"workload": served(0), "rejection": REFUSED},
            ("False", "WorkloadRefused", "0 of 1 inference pods ready; bad template"),
        ),
        (
            {"workload": served(0, pods=[pod(**CRASH)]), "rejection": REFUSED},
            ("False", "ContainerCrashLoopBackOff", f"0 of 1 inference pods ready; {CRASHED}; bad template"),
        ),
        (
            {"workload": served(0, pods=[pod(**CRASH)], event_fault=EVENT)},
            ("False", "ContainerCrashLoopBackOff", f"0 of 1 inference pods ready; {CRASHED}"),
        ),
        (
            {"workload": served(0, event_fault=EVENT)},
            ("False", "PodCreationFailed", "0 of 1 inference pods ready; quota"),
        ),
        (
            {"nodes": DEAD, "workload": served(0, event_fault=EVENT)},
            ("False", "PodCreationFailed", "0 of 1 inference pods ready; quota"),
        ),
        (
            {"nodes": DEAD, "workload": served(1, pods=[pod()])},
            ("False", "NodeNotReady", "pod ws-0 is on node gpu-0, which is not Ready"),
        ),
        (
            {"nodes": DEAD, "workload": served(0, pods=[pod()]), "rejection": REFUSED},
            ("False", "NodeNotReady", "0 of 1 inference pods ready; pod ws-0 is on node gpu-0, which is not Ready"),
        ),
        (
            {"nodes": DEAD},
            ("False", "NodeNotReady", "no node of the workspace is Ready; node gpu-0 is not Ready"),
        ),
        (
            {"nodes": DEAD, "workload": served(1, pods=[pod(deleting=True), pod(None)])},
            ("False", "NodeNotReady", "no node of the workspace is Ready; node gpu-0 is not Ready"),
        ),
        (
            {"workload": served(1, pods=[pod("gpu-0"), pod("gpu-1", deleting=True)])},
            ("True", "WorkspaceInferenceStatusSuccess", "1 of 1 inference pods ready"),
        ),
        ({"nodes": None}, ("True", "WorkspaceInferenceStatusSuccess", "1 of 1 inference pods ready")),
        ({"workload": None}, ("Unknown", "WorkspacePending", "the workload has not been observed yet")),
        ({"workload": None, "rejection": REFUSED}, ("False", "WorkloadRefused", "bad template")),
        ({"workload": WorkloadReport()}, ("False", "WaitingForResources", "1 of 1 nodes ready")),
        (
            {"workload": WorkloadReport(), "claims": None},
            ("Unknown", "WaitingForResources", "the claims have not been observed yet"),
        ),
    ],
)
def test_causes_of_the_inference_condition(
    phi: Workspace, plan: Plan, changes: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert text(evaluate(phi, state(plan, **changes))["InferenceReady"]) == expected


@pytest.fixture
def tuning(phi: Workspace) -> Workspace:
    part = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
    }
    return Workspace.model_validate(phi.to_dict() | {"inference": None, "tuning": part})


def job(*conditions: dict[str, str], pods: list[Pod] | None = None, fault: Fault | None = None, **status: Any) -> Any:
    document = {"metadata": {"name": "ws"}, "status": {"conditions": list(conditions), **status}}
    return WorkloadReport(job=Job.model_validate(document), pods=pods or [], event_fault=fault)


COMPLETE = {"type": "Complete", "status": "True"}
LIMIT = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit reached"}
RUNNING: dict[str, Any] = {"containerStatuses": [{"name": "ws", "state": {"running": {}}}]}
STARTED = "WorkspaceTuningJobStatusStarted"
WAITING = "WorkspaceTuningJobStatusPending"


@pytest.mark.parametrize(
    ("workload", "expected", "summary", "word"),
    [
        (
            None,
            ("Unknown", "WorkspacePending", "the tuning job has not been observed yet"),
            ("Unknown", "WorkspacePending"),
            "Pending",
        ),
        (
            WorkloadReport(),
            ("False", WAITING, "the tuning job has not been created yet"),
            ("False", WAITING),
            "Pending",
        ),
        (job(), ("False", WAITING, "the tuning job has no pod yet"), ("False", WAITING), "Pending"),
        (
            job(active=1),
            ("False", WAITING, "no container of the tuning job's pod has started yet"),
            ("False", WAITING),
            "Pending",
        ),
        (
            job(active=1, pods=[pod(**RUNNING)]),
            ("True", STARTED, "the tuning job is starting: a container runs"),
            ("False", "WorkspacePending"),
            "Running",
        ),
        (
            job(active=1, pods=[pod(deleting=True, **RUNNING)]),
            ("False", WAITING, "no container of the tuning job's pod has started yet"),
            ("False", WAITING),
            "Pending",
        ),
        (
            job(active=1, ready=1),
            ("True", STARTED, "the tuning job is running"),
            ("False", "WorkspacePending"),
            "Running",
        ),
        (job(fault=EVENT), ("False", "PodCreationFailed", "quota"), ("False", "PodCreationFailed"), "Pending"),
        (
            job(active=1, pods=[pod(**CRASH)], fault=EVENT),
            ("False", "ContainerCrashLoopBackOff", CRASHED),
            ("False", "ContainerCrashLoopBackOff"),
            "Running",
        ),
        (
            job(COMPLETE),
            ("True", STARTED, "the tuning job has completed"),
            ("True", "WorkspaceSucceeded"),
            "Succeeded",
        ),
        (
            job(LIMIT, pods=[pod(**CRASH)]),
            ("False", "WorkspaceTuningJobStatusFailed", f"the tuning job failed; limit reached; {CRASHED}"),
            ("False", "WorkspaceFailed"),
            "Failed",
        ),
        (
            job(LIMIT | {"message": ""}),
            ("False", "WorkspaceTuningJobStatusFailed", "the tuning job failed; BackoffLimitExceeded"),
            ("False", "WorkspaceFailed"),
            "Failed",
        ),
    ],
)
def test_causes_of_the_tuning_conditions(
    tuning: Workspace,
    plan: Plan,
    workload: WorkloadReport | None,
    expected: tuple[str, str, str],
    summary: tuple[str, str],
    word: str,
) -> None:
    observed = state(plan, workload=workload)
    found = evaluate(tuning, observed)
    assert text(found["JobStarted"]) == expected
    assert text(found["WorkspaceSucceeded"])[:2] == summary
    assert workspace_state(tuning, observed, found["WorkspaceSucceeded"]) == word


def test_tuning_that_ended_needs_no_nodes_and_a_rejected_job_is_reported(tuning: Workspace, plan: Plan) -> None:
    gone = NodesReport(wanted=1)
    done = evaluate(tuning, state(plan, nodes=gone, workload=job(COMPLETE)))
    assert text(done["WorkspaceSucceeded"]) == ("True", "WorkspaceSucceeded", "tuning has completed")
    running = evaluate(tuning, state(plan, nodes=gone, workload=job(ready=1)))
    assert text(running["WorkspaceSucceeded"]) == ("False", "NodeNotReady", "0 of 1 nodes ready; " + LACKS)
    refused = evaluate(tuning, state(plan, rejection=REFUSED, workload=job(ready=1)))
    assert text(refused["JobStarted"]) == ("False", *REFUSED)


LACKS = "Machine ws1 is ready on node gpu-0, which lacks the labels of the claim"


@pytest.mark.parametrize(
    ("before", "is_true", "word"),
    [
        (None, True, "Ready"),
        (None, False, "Pending"),
        ("Pending", False, "Pending"),
        ("Ready", False, "NotReady"),
        ("NotReady", False, "NotReady"),
        ("Running", False, "Pending"),
        ("Failed", False, "Pending"),
    ],
)
def test_the_state_of_an_inference_workspace(
    phi: Workspace, plan: Plan, before: str | None, word: str, *, is_true: bool
) -> None:
    workspace = phi.evolve(status={"state": before} if before else {})
    observed = state(plan, workload=served(1 if is_true else 0))
    assert workspace_state(workspace, observed, evaluate(workspace, observed)["WorkspaceSucceeded"]) == word


def failed(*types: str) -> StepFailure:
    return StepFailure(Step("observing", frozenset(types)), RuntimeError("no answer"))


ERROR = "observing failed: RuntimeError: no answer"


@pytest.mark.parametrize(
    ("condition", "changes", "expected"),
    [
        ("NodesReady", {}, ("True", "NodesReady", f"1 of 1 nodes ready; warning: {ERROR}")),
        ("NodesReady", {"nodes": None}, ("Unknown", "ReconcileError", ERROR)),
        (
            "NodesReady",
            {"nodes": replace(READY, wanted=2)},
            ("False", "ReconcileError", f"1 of 2 nodes ready; {ERROR}"),
        ),
        (
            "NodesReady",
            {"nodes": replace(READY, wanted=2, gpu_faults=("g",))},
            ("False", "NodePluginsNotReady", f"1 of 2 nodes ready; g; {ERROR}"),
        ),
        (
            "MachineReady",
            {"claims": ClaimsReport(wanted=1)},
            ("False", "ReconcileError", f"0 of 1 machines ready; {ERROR}"),
        ),
        (
            "InferenceReady",
            {"workload": served(0)},
            ("False", "ReconcileError", f"0 of 1 inference pods ready; {ERROR}"),
        ),
        (
            "InferenceReady",
            {"workload": WorkloadReport()},
            ("False", "ReconcileError", f"1 of 1 nodes ready; {ERROR}"),
        ),
        ("ModelResolved", {"plan": None}, ("Unknown", "ReconcileError", ERROR)),
    ],
)
def test_the_failure_of_a_step_is_added_to_the_conditions_that_it_decides(
    phi: Workspace, plan: Plan, condition: str, changes: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    found = evaluate(phi, state(plan, **changes), failed(condition))
    assert text(found[condition]) == expected
    plain = evaluate(phi, state(plan, **changes))
    unrelated = {"ModelResolved", "NodesReady", "MachineReady", "InferenceReady"} - {condition}
    assert [found[name] for name in sorted(unrelated)] == [plain[name] for name in sorted(unrelated)]


def test_a_summary_that_is_true_has_each_failure_once(phi: Workspace, plan: Plan) -> None:
    message = evaluate(phi, state(plan), failed("NodesReady"), failed("InferenceReady"))["WorkspaceSucceeded"].message
    assert message == f"1 of 1 inference pods ready; warning: {ERROR}"
    other = evaluate(phi, state(plan), failed("NodesReady"))["WorkspaceReady"]
    assert text(other) == ("True", "WorkspaceSucceeded", f"1 of 1 inference pods ready; warning: {ERROR}")


@pytest.mark.parametrize(
    ("nodes", "claims", "expected"),
    [
        (None, None, False),
        (READY, None, True),
        (replace(READY, wanted=2), None, False),
        (READY, ClaimsReport(wanted=1, claims=[claim("a", IS_READY)]), True),
        (READY, ClaimsReport(wanted=0), True),
        (READY, ClaimsReport(wanted=1, claims=[claim("a")]), False),
        (READY, ClaimsReport(wanted=1, claims=[claim("a", IS_READY, deleting=True)]), False),
    ],
)
def test_pods_are_placed_when_nodes_and_claims_are_ready(
    nodes: NodesReport | None, claims: ClaimsReport | None, *, expected: bool
) -> None:
    assert can_place_pods(nodes, claims) is expected


def test_the_hardware_without_a_plan_is_what_the_status_or_the_spec_requests(phi: Workspace, plan: Plan) -> None:
    assert state(plan).hardware(phi) is plan.hardware
    requested = state(None).hardware(phi.evolve(resource=phi.resource.evolve(count=3)))
    assert (requested.count, requested.instance_type, requested.gpus, str(requested.disk)) == (
        3,
        "Standard_NC6s_v3",
        0,
        "0",
    )
    assert state(None).hardware(phi.evolve(status={"targetNodeCount": 2})) == Hardware(
        copies=2, instance_type="Standard_NC6s_v3", gpus=0, disk=requested.disk
    )
    shared = phi.resource.to_dict() | {"count": 8, "partition": {"mode": "mig", "profile": "1g.10gb"}}
    assert state(None).hardware(Workspace.model_validate(phi.to_dict() | {"resource": shared})).count == 1


def test_a_long_cause_does_not_hide_when_the_next_claim_is_created(phi: Workspace, plan: Plan) -> None:
    report = lost(2, "AllocationFailed: " + "no capacity " * 80, retry_at=LATER)
    found = evaluate(phi, state(plan, claims=report))["ResourceReady"].message
    assert found.endswith(f"… (in full in condition MachineReady){NEXT}")
