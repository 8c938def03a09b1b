"""Computes the conditions of a Workspace from what a reconcile observed: a pure function.

A condition is True only while it holds, False with the cause while it does not, and Unknown if it was not evaluated.
InferenceReady depends on the pods, not on whether nodes could be bought again. A pod on a node that is not Ready does
not count, because Kubernetes removes it from the endpoints of the Service.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from kaito.api import NodeClaim, Workspace, conditions
from kaito.api.workspace import WorkspaceState
from kaito.models.sizing import gib
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.failure import StepFailure, shorten
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Plan
from kaito.workspace.pod_faults import find_fault, has_started
from kaito.workspace.settings import NodeApi
from kaito.workspace.state import ActivationReport, ClaimsReport, ReconcileState, WorkloadReport
from kaito.workspace.weights import preset_spec

_NO_WORKLOAD: Final = WorkloadReport()

_RELEASED: Final = "tuning has ended, and its nodes are given back"

_NEXT_CLAIM: Final = "; the next claim is created"
"""Begins the last part of a message: when the next claim is created."""

MAX_DERIVED_CHARACTERS: Final = 500
"""Longest message that a condition repeats from the one that determines it."""


def condition_updates(
    workspace: Workspace, state: ReconcileState, node_api: NodeApi, failures: Sequence[StepFailure] = ()
) -> list[ConditionUpdate]:
    """Returns every condition that the Workspace has after a reconcile, in the order in which users read them."""

    def reported(update: ConditionUpdate | None) -> ConditionUpdate | None:
        return update and _with_failures(update, failures)

    nodes = reported(_nodes(state))
    claims = None if node_api is NodeApi.BYO else reported(_claims(state, node_api))
    resource = _with_failures(_resource(state, claims, nodes), failures)
    model = reported(_model(workspace, state))
    if workspace.tuning is not None:
        workload = _with_failures(_job(state), failures)
        summary = _tuning_summary(state, resource, workload)
    else:
        workload = _with_failures(_expected(state, _inference(state, resource)), failures)
        summary = _inference_summary(resource, workload)
    adapters = _adapters(workspace, state)
    if summary.is_true:
        missing = [failure.message for failure in failures if failure.message not in summary.message]
        if adapters is not None and adapters.reason == conditions.ADAPTER_FAILED:
            missing.append(shorten(adapters.message))
        summary = replace(summary, message="; warning: ".join((summary.message, *missing)))
    found = (
        model,
        claims,
        nodes,
        resource,
        workload,
        adapters,
        summary,
        replace(summary, type=conditions.WORKSPACE_READY),
    )
    return [update for update in found if update is not None]


_WITHOUT_CAUSE: Final = frozenset(
    {
        conditions.CLAIM_NOT_READY,
        conditions.MACHINE_NOT_READY,
        conditions.NODE_NOT_READY,
        conditions.RESOURCES_NOT_READY,
        conditions.WAITING_FOR_RESOURCES,
        conditions.INFERENCE_PENDING,
        conditions.PULLING_WEIGHTS,
        conditions.DOWNLOADING_WEIGHTS,
        conditions.LOADING_MODEL,
        conditions.WARMING_UP,
        conditions.JOB_PENDING,
        conditions.PENDING,
    }
)
"""Reasons that name no cause. The failure of a step takes their place."""


def _with_failures(update: ConditionUpdate, failures: Sequence[StepFailure]) -> ConditionUpdate:
    """Adds the errors of the steps that decide the condition.

    A condition that was not evaluated is Unknown with the error. A condition that was evaluated keeps its status and
    has the error in its message.
    """
    messages = [failure.message for failure in failures if update.type in failure.step.condition_types]
    if not messages:
        return update
    error = "; ".join(messages)
    if update.status == "Unknown":
        return ConditionUpdate.unknown(update.type, conditions.RECONCILE_ERROR, error)
    if update.is_true:
        return replace(update, message=f"{update.message}; warning: {error}")
    reason = conditions.RECONCILE_ERROR if update.reason in _WITHOUT_CAUSE else update.reason
    return replace(update, reason=reason, message=f"{update.message}; {error}")


def workspace_state(workspace: Workspace, state: ReconcileState, summary: ConditionUpdate) -> WorkspaceState:
    """Returns `status.state`. An inference Workspace does not return to Pending once it was Ready."""
    if workspace.tuning is None:
        if summary.is_true:
            return "Ready"
        if summary.reason == conditions.SCALED_TO_ZERO:
            return "ScaledToZero"
        return "NotReady" if workspace.status.state in {"Ready", "NotReady", "ScaledToZero"} else "Pending"
    workload = state.workload or _NO_WORKLOAD
    if workload.job is None:
        return "Pending"
    if workload.job.has_condition("Complete"):
        return "Succeeded"
    if workload.job.has_condition("Failed"):
        return "Failed"
    return "Running" if workload.job.status.ready or _has_started(workload) else "Pending"


def claim_condition_type(node_api: NodeApi) -> str:
    """Returns the type of the condition about claims of this kind."""
    return conditions.MACHINE_READY if node_api is NodeApi.MACHINE else conditions.NODE_CLAIM_READY


def _from_plan_failure(condition_type: str, state: ReconcileState) -> ConditionUpdate | None:
    failure = state.plan_failure
    if failure is None:
        return None
    status = ConditionUpdate.unknown if failure.is_waiting else ConditionUpdate.false
    return status(condition_type, failure.reason, failure.message)


def _adapters(workspace: Workspace, state: ReconcileState) -> ConditionUpdate | None:
    """Returns the condition about adapters that pods load without a restart; None if there are none."""
    if state.plan is None and workspace.status.adapters:
        message = "the adapters were not observed, because there is no plan"
        return ConditionUpdate.unknown(conditions.ADAPTERS_READY, conditions.PENDING, message)
    adapters = state.workload.adapters if state.workload is not None else None
    if not adapters:
        return None
    open_ones = [adapter for adapter in adapters if adapter.state != "Loaded"]
    count = f"{len(adapters) - len(open_ones)} of {len(adapters)} adapters loaded"
    if not open_ones:
        return ConditionUpdate.true(conditions.ADAPTERS_READY, conditions.ADAPTERS_LOADED, count)
    failed = [adapter for adapter in open_ones if adapter.state == "Failed"]
    causes = [f"{each.name}: {each.message or each.state.lower()}" for each in (failed or open_ones)]
    reason = conditions.ADAPTER_FAILED if failed else conditions.ADAPTERS_LOADING
    return ConditionUpdate.false(conditions.ADAPTERS_READY, reason, "; ".join((count, *causes)))


def _model(workspace: Workspace, state: ReconcileState) -> ConditionUpdate | None:
    if not workspace.preset_name:
        return None
    failure = _from_plan_failure(conditions.MODEL_RESOLVED, state)
    if failure is not None:
        return failure
    if state.plan is None:
        message = "the preset has not been looked up yet"
        return ConditionUpdate.unknown(conditions.MODEL_RESOLVED, conditions.PENDING, message)
    hardware = state.plan.hardware
    instance_type = f" of {hardware.instance_type}" if hardware.instance_type else ""
    warnings = "".join(f"; {warning}" for warning in state.plan.warnings)
    nodes = f"{hardware.count} node{'s' if hardware.count != 1 else ''}"
    explanation = f": {state.plan.explanation}" if state.plan.explanation else ""
    passed = state.plan.choice.describe_passed() if state.plan.choice is not None else ""
    found = f"{_model_name(workspace, state.plan)}{_facts(state.plan)}"
    message = f"{found} on {nodes}{instance_type}{explanation}{passed}{warnings}"
    return ConditionUpdate.true(conditions.MODEL_RESOLVED, conditions.MODEL_RESOLVED, message)


def _model_name(workspace: Workspace, plan: Plan) -> str:
    """Returns the name of the preset, or the Hugging Face ID of a model outside the catalog as the user wrote it."""
    found = preset_spec(workspace)
    return found[0].name if plan.facts is not None and found is not None else workspace.preset_name


def _facts(plan: Plan) -> str:
    """Returns what was found about a model outside the catalog, and where; empty for one of the catalog."""
    if plan.facts is None:
        return ""
    facts = plan.facts.facts
    numbers = f"{facts.parameters / 1e9:.2f} billion parameters, {gib(facts.weights_bytes)}, {facts.context} tokens"
    revision = f" at {facts.revision[:12]}" if facts.revision else ""
    kind = " ".join(word for word in (facts.architecture, facts.quantization or facts.dtype) if word)
    return f" ({kind}, {numbers}{revision}, from {plan.facts.source})"


def _claims(state: ReconcileState, node_api: NodeApi) -> ConditionUpdate:
    condition_type = claim_condition_type(node_api)
    is_machine = node_api is NodeApi.MACHINE
    report = state.claims
    if report is None:
        pending = ConditionUpdate.unknown(
            condition_type, conditions.CLAIMS_PENDING, "the claims have not been observed yet"
        )
        return _from_plan_failure(condition_type, state) or pending
    if report.is_released:
        return ConditionUpdate.false(condition_type, conditions.NODES_RELEASED, _RELEASED)
    count = f"{len(report.ready)} of {report.wanted} {'machines' if is_machine else 'node claims'} ready"
    losses = _describe_losses(report)
    passed = report.choice.describe_passed() if report.choice is not None else ""
    notes = losses + (f"; {report.node_class_note}" if report.node_class_note else "") + passed
    if report.failure is not None:
        reason, message = report.failure
        return ConditionUpdate.false(condition_type, reason, message + losses)
    if report.given_up:
        message = f"{count}; given up: {'; '.join(report.given_up)}{_describe_next_attempt(report)}"
        return ConditionUpdate.false(condition_type, conditions.PROVISION_TIMEOUT, message)
    if report.over_budget:
        message = f"{count}; {report.over_budget}{notes}{_describe_next_attempt(report)}"
        return ConditionUpdate.false(condition_type, conditions.BUDGET_EXCEEDED, message)
    if report.retry_at is not None and report.choice is not None and report.choice.resume_at is not None:
        message = f"the cloud is out of every instance type: {'; '.join(map(str, report.choice.passed))}"
        message += _describe_next_attempt(report)
        return ConditionUpdate.false(condition_type, conditions.ALTERNATIVES_EXHAUSTED, message)
    if report.retry_at is not None:
        message = count + notes + _describe_next_attempt(report)
        return ConditionUpdate.false(condition_type, conditions.CLAIM_REPLACEMENT_PENDING, message)
    deleted = [claim.name for claim in report.claims if claim.deleting]
    if report.choice is not None and not report.live and deleted:
        message = f"{count}; the next claim is created after the deletion of {', '.join(deleted)}{notes}"
        return ConditionUpdate.false(condition_type, conditions.CLAIM_REPLACEMENT_PENDING, message)
    if len(report.ready) >= report.wanted:
        reason = conditions.MACHINES_READY if is_machine else conditions.CLAIMS_READY
        return ConditionUpdate.true(condition_type, reason, count + losses + _describe_pool(report))
    for claim in report.live:
        blocking = None if claim.is_ready else claim.blocking_condition()
        if blocking is not None and blocking.reason:
            message = f"{count}; {claim.kind} {claim.name}: {shorten(blocking.message)}{notes}"
            return ConditionUpdate.false(condition_type, blocking.reason, message)
    reason = conditions.MACHINE_NOT_READY if is_machine else conditions.CLAIM_NOT_READY
    return ConditionUpdate.false(condition_type, reason, count + _describe_unattended(report) + notes)


def _describe_pool(report: ClaimsReport) -> str:
    """Returns what happens to nodes of a NodePool that are Ready, as the end of a message."""
    if report.pool is None:
        return ""
    return "".join(f"; {note}" for note in (report.pool_note, report.node_class_note) if note)


def _describe_unattended(report: ClaimsReport) -> str:
    """Names the claims without a provisioner, as the end of a message."""
    claims = [claim for claim in report.live if claim.name in report.unattended]
    if not claims:
        return ""
    first = claims[0]
    provisioner = f"for node class {first.spec.node_class_ref} " if isinstance(first, NodeClaim) else ""
    names = ", ".join(claim.name for claim in claims)
    return f"; no provisioner has reported on {first.kind} {names}: check that a provisioner {provisioner}runs"


def _describe_losses(report: ClaimsReport) -> str:
    """Returns the number of losses and the cause of the last one, as the end of a message."""
    if not report.failures:
        return ""
    times = "once" if report.failures == 1 else f"{report.failures} times in a row"
    return f"; claims were lost {times}, most recently because: {report.loss_cause or 'cause unknown'}"


def _describe_next_attempt(report: ClaimsReport) -> str:
    """Returns when the next claim is created, as the end of a message."""
    if report.retry_at is None:
        return ""
    time = report.retry_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    if report.terminating:
        names = ", ".join(report.terminating)
        return f"{_NEXT_CLAIM} after the deletion of {names} and a backoff, no later than {time}"
    return f"{_NEXT_CLAIM} at {time}"


def _nodes(state: ReconcileState) -> ConditionUpdate | None:
    report = state.nodes
    if report is None:
        if state.plan_failure:
            return None
        message = "the nodes have not been observed yet"
        return ConditionUpdate.unknown(conditions.NODES_READY, conditions.NODE_NOT_READY, message)
    if state.claims is not None and state.claims.is_released:
        return ConditionUpdate.false(conditions.NODES_READY, conditions.NODES_RELEASED, _RELEASED)
    count = f"{len(report.usable)} of {report.wanted} nodes ready"
    warning = f"; warning: under pressure: {', '.join(report.pressures)}" if report.pressures else ""
    if state.plan is not None and state.plan.container is not None:  # the disk of a pod template is a default
        warning += "".join(f"; warning: {each}" for each in report.small_disks)
    if report.is_sufficient:
        return ConditionUpdate.true(conditions.NODES_READY, conditions.NODES_READY_REASON, count + warning)
    if report.gpu_faults and len(report.usable) + len(report.gpu_faults) >= report.wanted:
        message = "; ".join((count, *report.gpu_faults)) + warning
        return ConditionUpdate.false(conditions.NODES_READY, conditions.NODE_PLUGINS_NOT_READY, message)
    shared = _shared_nodes(state, report)
    message = (
        "; ".join((count, *shared, *report.faults, *report.gpu_faults, *_unlabeled_nodes(state, report))) + warning
    )
    return ConditionUpdate.false(conditions.NODES_READY, conditions.NODE_NOT_READY, message)


def _shared_nodes(state: ReconcileState, report: NodesReport) -> list[str]:
    """Describes how many copies existing nodes serve that several copies share."""
    if report.copies is None or state.plan is None:
        return []
    return [f"they have the resources for {report.copies} of {state.plan.hardware.copies} copies"]


def _unlabeled_nodes(state: ReconcileState, report: NodesReport) -> list[str]:
    """Describes nodes of ready claims that lack the Workspace's labels: the provisioner did not copy them."""
    ready = state.claims.ready if state.claims is not None else []
    return [
        f"{claim.kind} {claim.name} is ready on node {claim.status.node_name}, which lacks the labels of the claim"
        for claim in ready
        if claim.status.node_name and claim.status.node_name not in report.names
    ]


def _resource(state: ReconcileState, claims: ConditionUpdate | None, nodes: ConditionUpdate | None) -> ConditionUpdate:
    if state.plan_failure is not None:
        return ConditionUpdate.false(conditions.RESOURCE_READY, state.plan_failure.reason, state.plan_failure.message)
    if state.plan is None:
        message = "the required resources have not been computed yet"
        return ConditionUpdate.unknown(conditions.RESOURCE_READY, conditions.PENDING, message)
    cause = _first_not_true(claims, nodes)
    if cause is not None:
        return _derived(cause, conditions.RESOURCE_READY)
    message = nodes.message if nodes else ""
    return ConditionUpdate.true(conditions.RESOURCE_READY, conditions.RESOURCES_READY, message)


def _derived(cause: ConditionUpdate, condition_type: str) -> ConditionUpdate:
    """Returns a condition with the status and the cause of another one.

    A long message is not repeated in full, but the time of the next attempt at its end is.
    """
    message = cause.message
    if len(message) > MAX_DERIVED_CHARACTERS:
        text, separator, next_attempt = message.rpartition(_NEXT_CLAIM)
        text = text if separator else message
        message = f"{shorten(text, MAX_DERIVED_CHARACTERS)} (in full in condition {cause.type})"
        message += f"{separator}{next_attempt}" if separator else ""
    return replace(cause, type=condition_type, message=message)


def _first_not_true(*updates: ConditionUpdate | None) -> ConditionUpdate | None:
    """Returns the first condition that is False, else the first that is Unknown."""
    not_true = [update for update in updates if update is not None and not update.is_true]
    return next((update for update in not_true if update.status == "False"), next(iter(not_true), None))


def _inference(state: ReconcileState, resource: ConditionUpdate) -> ConditionUpdate:
    stateful_set = state.workload.stateful_set if state.workload is not None else None
    if state.plan is not None and state.plan.hardware.copies == 0 and state.rejection is None:
        return _scaled_to_zero(stateful_set, state.activation)
    if stateful_set is not None:
        return _serving(state, stateful_set)
    if state.rejection is not None:
        return ConditionUpdate.false(conditions.INFERENCE_READY, *state.rejection)
    if state.workload is None:
        message = "the workload has not been observed yet"
        return ConditionUpdate.unknown(conditions.INFERENCE_READY, conditions.PENDING, message)
    if resource.status == "Unknown":
        return ConditionUpdate.unknown(conditions.INFERENCE_READY, conditions.WAITING_FOR_RESOURCES, resource.message)
    reason = state.plan_failure.reason if state.plan_failure else conditions.WAITING_FOR_RESOURCES
    return ConditionUpdate.false(conditions.INFERENCE_READY, reason, resource.message)


def _expected(state: ReconcileState, inference: ConditionUpdate) -> ConditionUpdate:
    """Adds to InferenceReady when a start from zero copies is expected to end, from the duration of the last one."""
    scaling = state.activation.scaling if state.activation is not None else None
    if inference.is_true or scaling is None or scaling.woken_time is None or scaling.last_start_seconds is None:
        return inference
    time = scaling.woken_time + timedelta(seconds=scaling.last_start_seconds)
    note = f"the last start from zero took {scaling.last_start_seconds} s: ready at about {time:%Y-%m-%dT%H:%M:%SZ}"
    return replace(inference, message=f"{inference.message}; {note}")


def _scaled_to_zero(stateful_set: StatefulSet | None, activation: ActivationReport | None) -> ConditionUpdate:
    """Returns the InferenceReady condition of a Workspace without copies."""
    ending = stateful_set.status.replicas if stateful_set is not None else 0
    message = "no copies, because spec.replicas is 0"
    if ending:
        message += f"; {ending} {'pod finishes its' if ending == 1 else 'pods finish their'} requests"
    if activation is not None and activation.has_activator:
        seconds = activation.scaling.last_start_seconds
        last = f", which took {seconds} s the last time" if seconds is not None else ""
        message += f"; a request to its Service starts a copy{last}"
    elif activation is not None:
        message += "; no pod of the activator is ready, so that a request starts no copy"
    return ConditionUpdate.false(conditions.INFERENCE_READY, conditions.SCALED_TO_ZERO, message)


def _serving(state: ReconcileState, stateful_set: StatefulSet) -> ConditionUpdate:
    """Returns the InferenceReady condition of a StatefulSet that exists."""
    workload = state.workload or _NO_WORKLOAD
    wanted = 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas
    ready = stateful_set.status.ready_replicas
    hardware = state.plan.hardware if state.plan is not None else None
    each = f"copies on {hardware.nodes_per_copy} nodes" if hardware and hardware.workers else "inference pods"
    count = f"{ready} of {wanted} {each} ready"
    on_lost_nodes = _describe_pods_on_lost_nodes(state, workload)
    rejection = state.rejection[1] if state.rejection else ""
    if ready >= wanted:
        if on_lost_nodes:
            return ConditionUpdate.false(conditions.INFERENCE_READY, conditions.NODE_NOT_READY, on_lost_nodes)
        problem = state.activation.problem if state.activation is not None else ""
        warning = "".join(f"; warning: {each}" for each in (rejection, problem) if each)
        return ConditionUpdate.true(conditions.INFERENCE_READY, conditions.INFERENCE_SERVING, count + warning)
    fault = find_fault(workload.pods) or workload.event_fault
    if fault is not None:
        message = "; ".join(filter(None, (count, fault.message, rejection)))
        return ConditionUpdate.false(conditions.INFERENCE_READY, fault.reason, message)
    if on_lost_nodes:
        message = f"{count}; {on_lost_nodes}"
        return ConditionUpdate.false(conditions.INFERENCE_READY, conditions.NODE_NOT_READY, message)
    if state.rejection is not None:
        reason, message = state.rejection
        return ConditionUpdate.false(conditions.INFERENCE_READY, reason, f"{count}; {message}")
    if workload.progress:
        name, progress = min(workload.progress.items(), key=lambda item: (item[1].order, item[0]))
        return ConditionUpdate.false(
            conditions.INFERENCE_READY, progress.reason, f"{count}; pod {name} {progress.message}"
        )
    return ConditionUpdate.false(conditions.INFERENCE_READY, conditions.INFERENCE_PENDING, count)


def _describe_pods_on_lost_nodes(state: ReconcileState, workload: WorkloadReport) -> str:
    """Describes the pods on nodes that are not Ready; empty if there are none."""
    report = state.nodes
    if report is None:
        return ""
    placed = [(pod.name, pod.spec.node_name) for pod in workload.pods if pod.spec.node_name and not pod.deleting]
    lost = [f"pod {name} is on node {node}, which is not Ready" for name, node in placed if node not in report.ready]
    if not placed and not report.ready:
        return "; ".join(("no node of the workspace is Ready", *report.faults))
    return "; ".join(lost)


def _inference_summary(resource: ConditionUpdate, inference: ConditionUpdate) -> ConditionUpdate:
    cause = _first_not_true(resource, inference)
    if cause is not None:
        return replace(cause, type=conditions.WORKSPACE_SUCCEEDED)
    return ConditionUpdate.true(conditions.WORKSPACE_SUCCEEDED, conditions.SUCCEEDED, inference.message)


def _job(state: ReconcileState) -> ConditionUpdate:
    if state.rejection is not None:
        return ConditionUpdate.false(conditions.JOB_STARTED, *state.rejection)
    if state.workload is None:
        message = "the tuning job has not been observed yet"
        return ConditionUpdate.unknown(conditions.JOB_STARTED, conditions.PENDING, message)
    workload, job = state.workload, state.workload.job
    if job is None:
        message = "the tuning job has not been created yet"
        return ConditionUpdate.false(conditions.JOB_STARTED, conditions.JOB_PENDING, message)
    if job.has_condition("Complete"):
        message = "the tuning job has completed"
        return ConditionUpdate.true(conditions.JOB_STARTED, conditions.JOB_RUNNING, message)
    if job.has_condition("Failed"):
        return ConditionUpdate.false(conditions.JOB_STARTED, conditions.JOB_FAILED, _describe_job_failure(workload))
    if job.status.ready:
        return ConditionUpdate.true(conditions.JOB_STARTED, conditions.JOB_RUNNING, "the tuning job is running")
    fault = find_fault(workload.pods) or workload.event_fault
    if fault is not None:
        return ConditionUpdate.false(conditions.JOB_STARTED, fault.reason, fault.message)
    if _has_started(workload):
        message = "the tuning job is starting: a container runs"
        return ConditionUpdate.true(conditions.JOB_STARTED, conditions.JOB_RUNNING, message)
    message = "the tuning job has no pod yet"
    if job.status.active:
        message = "no container of the tuning job's pod has started yet"
    return ConditionUpdate.false(conditions.JOB_STARTED, conditions.JOB_PENDING, message)


def _has_started(workload: WorkloadReport) -> bool:
    """Whether a container of the Job's pod runs or ran."""
    return any(has_started(pod) for pod in workload.pods if not pod.deleting)


def _describe_job_failure(workload: WorkloadReport) -> str:
    fault = find_fault(workload.pods)
    found = workload.job.status.conditions if workload.job else ()
    failed = next((c.message or c.reason for c in found if c.type == "Failed" and c.status == "True"), "")
    return "; ".join(filter(None, ("the tuning job failed", failed, fault.message if fault else "")))


def _tuning_summary(state: ReconcileState, resource: ConditionUpdate, job_started: ConditionUpdate) -> ConditionUpdate:
    condition_type = conditions.WORKSPACE_SUCCEEDED
    job = state.workload.job if state.workload is not None else None
    if job is not None and job.has_condition("Complete"):
        return ConditionUpdate.true(condition_type, conditions.SUCCEEDED, "tuning has completed")
    if job is not None and job.has_condition("Failed"):
        return ConditionUpdate.false(condition_type, conditions.FAILED, job_started.message)
    for update in (resource, job_started):
        if not update.is_true:
            return replace(update, type=condition_type)
    return ConditionUpdate.false(condition_type, conditions.PENDING, job_started.message)
