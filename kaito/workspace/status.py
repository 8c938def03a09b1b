"""The conditions of a Workspace, computed from what the steps saw: pure, so that truth can be tested in a table.

A condition is True only while it is true, False names the cause in words, Unknown means not evaluated. Each
aspect has one function; `verdicts` asks them all. Inference is judged by its pods, not by whether nodes could be
placed again; but a pod on a node that is not Ready is no endpoint (Kubernetes takes it out of the Service), so it does
not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, Self, final

from kaito.api import Claim, Workspace, conditions
from kaito.api.workspace import WorkspaceState
from kaito.runtime.kinds import Job, Node, Pod, StatefulSet
from kaito.runtime.meta import Quantity
from kaito.workspace import pod_faults
from kaito.workspace.failure import StepFailure
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware, Plan, Refusal
from kaito.workspace.settings import NodeApi


class Verdict(NamedTuple):
    """One condition as it should read."""

    type: str
    holds: bool | None
    reason: str
    message: str

    @classmethod
    def true(cls, type: str, reason: str, message: str) -> Self:  # noqa: A002 - the API's word
        """The condition holds."""
        return cls(type=type, holds=True, reason=reason, message=message)

    @classmethod
    def false(cls, type: str, reason: str, message: str) -> Self:  # noqa: A002 - the API's word
        """The condition does not hold, and why."""
        return cls(type=type, holds=False, reason=reason, message=message)

    @classmethod
    def unknown(cls, type: str, reason: str, message: str) -> Self:  # noqa: A002 - the API's word
        """It was not evaluated."""
        return cls(type=type, holds=None, reason=reason, message=message)


@final
@dataclass(slots=True, kw_only=True)
class ClaimsReport:
    """What became of the claims."""

    wanted: int = 0
    """Claims the Workspace needs."""
    claims: Sequence[Claim] = ()
    """Its claims, deleting ones included, sorted by name."""
    failure: tuple[str, str] | None = None
    """Reason and message of what the API server refused in this pass."""
    retry_at: datetime | None = None
    """When a lost claim is replaced, at the latest."""
    leaving: Sequence[str] = ()
    """Lost claims that have to go before the pause begins."""
    failures: int = 0
    """Losses in a row."""
    cause: str = ""
    """Why the last claim was lost; empty when unknown."""
    given_up: Sequence[str] = ()
    """Why claims were deleted in this pass."""
    decided: bool = False
    """Whether the step ended: `live` then lists what the next pass may expect."""

    @property
    def live(self) -> list[Claim]:
        """Claims that are not being deleted."""
        return [claim for claim in self.claims if not claim.deleting]

    @property
    def ready(self) -> list[Claim]:
        """Claims that are Ready and stay."""
        return [claim for claim in self.live if claim.is_ready]


@final
@dataclass(slots=True, kw_only=True)
class Observation:
    """Everything one pass saw. Steps fill it in; None means the step was not reached."""

    plan: Plan | None = None
    refusal: Refusal | None = None
    claims: ClaimsReport | None = None
    nodes: NodesReport | None = None
    looked_at_workload: bool = False
    """Whether `workload` or `job` says what exists; otherwise the pass ended before anybody looked."""
    workload: StatefulSet | None = None
    job: Job | None = None
    pods: Sequence[Pod] = field(default_factory=tuple[Pod, ...])
    obstacle: pod_faults.Fault | None = None
    """What keeps pods from existing or starting, according to Events."""
    problem: tuple[str, str] | None = None
    """Reason and message of what keeps the workload from being applied."""
    node_objects: Mapping[str, Node] = field(default_factory=dict[str, Node])
    """The Workspace's nodes by name, for the steps after the one that read them."""

    def hardware(self, workspace: Workspace) -> Hardware:
        """The nodes planned; without a plan what the Workspace itself says, to judge the nodes it has."""
        if self.plan is not None:
            return self.plan.hardware
        wanted = workspace.status.target_node_count or workspace.resource.count
        return Hardware(count=wanted, instance_type=workspace.resource.instance_type, gpus=0, disk=Quantity(0))


def verdicts(
    workspace: Workspace, seen: Observation, node_api: NodeApi, failures: Sequence[StepFailure] = ()
) -> list[Verdict]:
    """Every condition the Workspace should have after this pass, in the order people read them."""

    def reported(verdict: Verdict | None) -> Verdict | None:
        return verdict and _with_failures(verdict, failures)

    nodes = reported(_nodes(seen))
    claims = None if node_api is NodeApi.BYO else reported(_claims(seen, node_api))
    resource = _with_failures(_resource(seen, claims, nodes), failures)
    found = [reported(_model(workspace, seen)), claims, nodes, resource]
    if workspace.tuning is not None:
        job = _with_failures(_job(seen), failures)
        whole = _tuning_whole(seen, resource, job)
        found.append(job)
    else:
        inference = _with_failures(_inference(seen, resource), failures)
        whole = _inference_whole(resource, inference)
        found.append(inference)
    if whole.holds:
        missed = [failure.message for failure in failures if failure.message not in whole.message]
        whole = whole._replace(message="; warning: ".join((whole.message, *missed)))
    return [
        *(verdict for verdict in found if verdict is not None),
        whole,
        whole._replace(type=conditions.WORKSPACE_READY),
    ]


_AWAITING: Final = frozenset(
    {
        conditions.CLAIM_NOT_READY,
        conditions.MACHINE_NOT_READY,
        conditions.NODE_NOT_READY,
        conditions.RESOURCES_NOT_READY,
        conditions.WAITING_FOR_RESOURCES,
        conditions.INFERENCE_PENDING,
        conditions.JOB_PENDING,
        conditions.PENDING,
    }
)
"""Reasons that name no cause: the failure of the step is a better one."""


def _with_failures(verdict: Verdict, failures: Sequence[StepFailure]) -> Verdict:
    """The verdict with the error of the steps that decide it.

    What the steps could not evaluate is Unknown. What was evaluated stays, with the error in its message. When planning
    failed, it is unknown which resources are needed, and their state does not count.
    """
    concerned = [failure for failure in failures if verdict.type in failure.aspects]
    if not concerned:
        return verdict
    error = "; ".join(failure.message for failure in concerned)
    if verdict.holds is None:
        return Verdict.unknown(verdict.type, conditions.RECONCILE_ERROR, error)
    if verdict.holds:
        return verdict._replace(message=f"{verdict.message}; warning: {error}")
    reason = conditions.RECONCILE_ERROR if verdict.reason in _AWAITING else verdict.reason
    return verdict._replace(reason=reason, message=f"{verdict.message}; {error}")


def state(workspace: Workspace, seen: Observation, whole: Verdict) -> WorkspaceState:
    """The one-word summary. Inference never goes back to Pending once it answered."""
    if workspace.tuning is None:
        if whole.holds:
            return "Ready"
        return "NotReady" if workspace.status.state in {"Ready", "NotReady"} else "Pending"
    if seen.job is None:
        return "Pending"
    if seen.job.has_condition("Complete"):
        return "Succeeded"
    if seen.job.has_condition("Failed"):
        return "Failed"
    return "Running" if seen.job.status.ready or _is_started(seen) else "Pending"


def claim_condition_type(node_api: NodeApi) -> str:
    """The condition that speaks about claims of this kind."""
    return conditions.MACHINE_READY if node_api is NodeApi.MACHINE else conditions.NODE_CLAIM_READY


def _model(workspace: Workspace, seen: Observation) -> Verdict | None:
    if not workspace.preset_name:
        return None
    if seen.refusal is not None:
        holds = None if seen.refusal.waiting else False
        return Verdict(conditions.MODEL_RESOLVED, holds, seen.refusal.reason, seen.refusal.message)
    if seen.plan is None:
        return Verdict.unknown(conditions.MODEL_RESOLVED, conditions.PENDING, "the preset has not been looked up yet")
    hardware = seen.plan.hardware
    size = f" of {hardware.instance_type}" if hardware.instance_type else ""
    notes = "".join(f"; {note}" for note in seen.plan.notes)
    message = f"{workspace.preset_name} on {hardware.count} node{'s' if hardware.count != 1 else ''}{size}{notes}"
    return Verdict.true(conditions.MODEL_RESOLVED, conditions.MODEL_RESOLVED, message)


def _claims(seen: Observation, node_api: NodeApi) -> Verdict | None:
    kind = claim_condition_type(node_api)
    machine = node_api is NodeApi.MACHINE
    report = seen.claims
    if report is None:
        if seen.refusal:
            return Verdict(kind, None if seen.refusal.waiting else False, seen.refusal.reason, seen.refusal.message)
        return Verdict.unknown(kind, conditions.CLAIMS_PENDING, "claims have not been looked at yet")
    count = f"{len(report.ready)} of {report.wanted} {'machines' if machine else 'node claims'} ready"
    history = _losses(report)
    if report.failure is not None:
        reason, message = report.failure
        return Verdict.false(kind, reason, message + history)
    if report.given_up:
        given_up = f"{count}; given up: {'; '.join(report.given_up)}"
        return Verdict.false(kind, conditions.PROVISION_TIMEOUT, given_up + _next_attempt(report))
    if report.retry_at is not None:
        return Verdict.false(kind, conditions.CLAIM_REPLACEMENT_PENDING, count + history + _next_attempt(report))
    if len(report.ready) >= report.wanted:
        return Verdict.true(kind, conditions.MACHINES_READY if machine else conditions.CLAIMS_READY, count + history)
    for claim in report.live:
        trouble = None if claim.is_ready else claim.trouble()
        if trouble is not None and trouble.reason:
            message = f"{count}; {claim.kind} {claim.name}: {trouble.message}"
            return Verdict.false(kind, trouble.reason, message + history)
    return Verdict.false(kind, conditions.MACHINE_NOT_READY if machine else conditions.CLAIM_NOT_READY, count + history)


def _losses(report: ClaimsReport) -> str:
    """The losses so far and the cause of the last one, as the end of a sentence."""
    if not report.failures:
        return ""
    times = "once" if report.failures == 1 else f"{report.failures} times in a row"
    return (
        f"; claims were lost {times}, the last one for this cause: {report.cause or 'no condition or event names one'}"
    )


def _next_attempt(report: ClaimsReport) -> str:
    """When the next claim is created, as the end of a sentence."""
    if report.retry_at is None:
        return ""
    when = report.retry_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    if report.leaving:
        return f"; the next one is created when {', '.join(report.leaving)} is gone and a pause is over, by {when}"
    return f"; the next one is created at {when}"


def _nodes(seen: Observation) -> Verdict | None:
    report = seen.nodes
    if report is None:
        if seen.refusal:
            return None
        return Verdict.unknown(conditions.NODES_READY, conditions.NODE_NOT_READY, "nodes have not been looked at yet")
    count = f"{len(report.usable)} of {report.wanted} nodes ready"
    warning = f"; warning: under pressure: {', '.join(report.pressures)}" if report.pressures else ""
    if report.enough:
        return Verdict.true(conditions.NODES_READY, conditions.NODES_READY_REASON, count + warning)
    if report.gpu_faults and len(report.usable) + len(report.gpu_faults) >= report.wanted:
        text = "; ".join((count, *report.gpu_faults))
        return Verdict.false(conditions.NODES_READY, conditions.NODE_PLUGINS_NOT_READY, text + warning)
    text = "; ".join((count, *report.faults, *report.gpu_faults, *_strangers(seen, report)))
    return Verdict.false(conditions.NODES_READY, conditions.NODE_NOT_READY, text + warning)


def _strangers(seen: Observation, report: NodesReport) -> list[str]:
    """Nodes that ready claims name but that are not the Workspace's by their labels: a provisioner's omission."""
    ready = seen.claims.ready if seen.claims is not None else []
    return [
        f"{claim.kind} {claim.name} is ready on node {claim.status.node_name}, which lacks the labels of the claim"
        for claim in ready
        if claim.status.node_name and claim.status.node_name not in report.names
    ]


def _resource(seen: Observation, claims: Verdict | None, nodes: Verdict | None) -> Verdict:
    if seen.refusal is not None:
        return Verdict.false(conditions.RESOURCE_READY, seen.refusal.reason, seen.refusal.message)
    if seen.plan is None:
        return Verdict.unknown(conditions.RESOURCE_READY, conditions.PENDING, "the resources needed are not known yet")
    cause = _obstacle(claims, nodes)
    if cause is not None:
        return cause._replace(type=conditions.RESOURCE_READY)
    return Verdict.true(conditions.RESOURCE_READY, conditions.RESOURCES_READY, nodes.message if nodes else "")


def _obstacle(*verdicts: Verdict | None) -> Verdict | None:
    """What keeps the sum from being true: the first that is False, else the first that was not evaluated."""
    short = [verdict for verdict in verdicts if verdict is not None and not verdict.holds]
    return next((verdict for verdict in short if verdict.holds is False), next(iter(short), None))


def _inference(seen: Observation, resource: Verdict) -> Verdict:
    workload = seen.workload
    if workload is None and seen.problem is not None:
        return Verdict.false(conditions.INFERENCE_READY, *seen.problem)
    if not seen.looked_at_workload:
        return Verdict.unknown(
            conditions.INFERENCE_READY, conditions.PENDING, "the workload has not been looked at yet"
        )
    if workload is None:
        if resource.holds is None:
            return Verdict.unknown(conditions.INFERENCE_READY, conditions.WAITING_FOR_RESOURCES, resource.message)
        reason = seen.refusal.reason if seen.refusal else conditions.WAITING_FOR_RESOURCES
        return Verdict.false(conditions.INFERENCE_READY, reason, resource.message)
    wanted = 1 if workload.spec.replicas is None else workload.spec.replicas
    ready = workload.status.ready_replicas
    count = f"{ready} of {wanted} inference pods ready"
    if ready >= wanted:
        lost = _on_lost_nodes(seen)
        if lost:
            return Verdict.false(conditions.INFERENCE_READY, conditions.NODE_NOT_READY, lost)
        warning = f"; warning: {seen.problem[1]}" if seen.problem else ""
        return Verdict.true(conditions.INFERENCE_READY, conditions.INFERENCE_SERVING, count + warning)
    fault = pod_faults.classify(seen.pods) or seen.obstacle
    refused = f"; {seen.problem[1]}" if seen.problem else ""
    if fault is not None:
        return Verdict.false(conditions.INFERENCE_READY, fault.reason, f"{count}; {fault.message}{refused}")
    lost = _on_lost_nodes(seen)
    if lost:
        return Verdict.false(conditions.INFERENCE_READY, conditions.NODE_NOT_READY, f"{count}; {lost}")
    if seen.problem is not None:
        reason, message = seen.problem
        return Verdict.false(conditions.INFERENCE_READY, reason, f"{count}; {message}")
    return Verdict.false(conditions.INFERENCE_READY, conditions.INFERENCE_PENDING, count)


def _on_lost_nodes(seen: Observation) -> str:
    """Which pods sit on nodes that are not Ready, in words; empty when none does."""
    report = seen.nodes
    if report is None:
        return ""
    placed = [(pod.name, pod.spec.node_name) for pod in seen.pods if pod.spec.node_name and not pod.deleting]
    lost = [f"pod {name} is on node {node}, which is not Ready" for name, node in placed if node not in report.alive]
    if not placed and not report.alive:
        return "; ".join(("no node of the workspace is Ready", *report.faults))
    return "; ".join(lost)


def _inference_whole(resource: Verdict, inference: Verdict) -> Verdict:
    cause = _obstacle(resource, inference)
    if cause is not None:
        return cause._replace(type=conditions.WORKSPACE_SUCCEEDED)
    return Verdict.true(conditions.WORKSPACE_SUCCEEDED, conditions.SUCCEEDED, inference.message)


def _job(seen: Observation) -> Verdict:
    job = seen.job
    if seen.problem is not None:
        return Verdict.false(conditions.JOB_STARTED, *seen.problem)
    if not seen.looked_at_workload:
        return Verdict.unknown(conditions.JOB_STARTED, conditions.PENDING, "the tuning job has not been looked at yet")
    if job is None:
        return Verdict.false(conditions.JOB_STARTED, conditions.JOB_PENDING, "the tuning job has not been created yet")
    if job.has_condition("Complete"):
        return Verdict.true(conditions.JOB_STARTED, conditions.JOB_RUNNING, "the tuning job has completed")
    if job.has_condition("Failed"):
        return Verdict.false(conditions.JOB_STARTED, conditions.JOB_FAILED, _job_failure(seen))
    if job.status.ready:
        return Verdict.true(conditions.JOB_STARTED, conditions.JOB_RUNNING, "the tuning job is running")
    fault = pod_faults.classify(seen.pods) or seen.obstacle
    if fault is not None:
        return Verdict.false(conditions.JOB_STARTED, fault.reason, fault.message)
    if _is_started(seen):
        return Verdict.true(
            conditions.JOB_STARTED, conditions.JOB_RUNNING, "the tuning job is starting: a container runs"
        )
    if job.status.active:
        message = "no container of the tuning job's pod has started yet"
        return Verdict.false(conditions.JOB_STARTED, conditions.JOB_PENDING, message)
    return Verdict.false(conditions.JOB_STARTED, conditions.JOB_PENDING, "the tuning job has no pod yet")


def _is_started(seen: Observation) -> bool:
    """Whether a container of the Job's pod runs or ran."""
    return any(pod_faults.has_started(pod) for pod in seen.pods if not pod.deleting)


def _job_failure(seen: Observation) -> str:
    fault = pod_faults.classify(seen.pods)
    found = seen.job.status.conditions if seen.job else ()
    said = next((c.message or c.reason for c in found if c.type == "Failed" and c.status == "True"), "")
    return "; ".join(filter(None, ("the tuning job failed", said, fault.message if fault else "")))


def _tuning_whole(seen: Observation, resource: Verdict, job: Verdict) -> Verdict:
    kind = conditions.WORKSPACE_SUCCEEDED
    if seen.job is not None and seen.job.has_condition("Complete"):
        return Verdict.true(kind, conditions.SUCCEEDED, "tuning has completed")
    if seen.job is not None and seen.job.has_condition("Failed"):
        return Verdict.false(kind, conditions.FAILED, job.message)
    if resource.holds is not True:
        return resource._replace(type=kind)
    if job.holds is not True:
        return job._replace(type=kind)
    return Verdict.false(kind, conditions.PENDING, job.message)
