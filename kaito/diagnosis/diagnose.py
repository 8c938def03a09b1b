"""Selects the one root cause of a Workspace that is not ready, and builds the diagnosis."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from kaito.api import conditions, labels
from kaito.diagnosis.advice import PLANNING_REASONS, Names, find_advice
from kaito.diagnosis.chain import chain
from kaito.diagnosis.deletion import find_absent_controller, find_deletion, find_namespace, is_outdated
from kaito.diagnosis.finding import Finding, workspace_finding
from kaito.diagnosis.resources import find_claims, find_nodes
from kaito.diagnosis.result import Diagnosis, NextStep, State
from kaito.diagnosis.situation import Situation
from kaito.diagnosis.workload import find_adapters, find_job_failure, find_service, find_workload

_LAST: Final = datetime.max.replace(tzinfo=UTC)


def diagnose(situation: Situation) -> Diagnosis:
    """Returns the diagnosis of a Workspace from what was read."""
    finding = _find(situation)
    workspace = situation.workspace
    serving = situation.is_true(conditions.INFERENCE_READY)
    state, summary = _state(situation, finding, is_progress=False)
    steps: tuple[NextStep, ...] = ()
    lines: tuple[str, ...] = _usage(situation) if finding is None else ()
    if finding is not None:
        cause = finding.cause
        advice, lines = find_advice(cause.reason, cause.message, _names(situation, finding))
        progress = advice.progress if finding.progress is None else finding.progress
        state, summary = _state(situation, finding, is_progress=progress)
        steps = finding.next
        if advice.next and (progress or not any(step.is_retry for step in steps)):
            steps = (*steps, NextStep(what=advice.next))
    return Diagnosis(
        namespace=workspace.namespace,
        name=workspace.name,
        task="tuning" if workspace.tuning is not None else "inference",
        state=state,
        serving=serving,
        summary=summary,
        created=workspace.metadata.creation_timestamp,
        cause=finding.cause if finding is not None else None,
        next=tuple(sorted(steps, key=lambda step: step.at or _LAST)),
        advice=lines,
        chain=chain(situation, state),
        notes=tuple(_notes(situation)),
    )


def _find(situation: Situation) -> Finding | None:
    """Returns the root cause: the first link of the chain that is not as it should be."""
    if situation.workspace.deleting:
        return find_deletion(situation)
    if situation.workspace.status.state == "Succeeded" or _is_stopped(situation):
        return None
    finders = (
        find_namespace,
        find_absent_controller,
        _find_plan,
        find_job_failure,
        _find_error,
        find_claims,
        find_nodes,
        find_workload,
        find_service,
        find_adapters,
        _find_rest,
    )
    return next((found for finder in finders if (found := finder(situation)) is not None), None)


def _find_plan(situation: Situation) -> Finding | None:
    """Returns why the Workspace cannot be planned; None if it has a plan."""
    for name in (conditions.MODEL_RESOLVED, conditions.RESOURCE_READY):
        condition = situation.condition(name)
        if condition is not None and not condition.is_true and condition.reason in PLANNING_REASONS:
            return workspace_finding(situation, condition)
    return None


def _find_error(situation: Situation) -> Finding | None:
    """Returns the error of a step of the controller; None if no step failed."""
    for condition in situation.workspace.status.conditions:
        if not condition.is_true and condition.reason == conditions.RECONCILE_ERROR:
            return workspace_finding(situation, condition)
    return None


def _find_rest(situation: Situation) -> Finding | None:
    """Returns a condition that is not True and that no object explains."""
    for name in (conditions.RESOURCE_READY, conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_READY):
        condition = situation.condition(name)
        if condition is not None and not condition.is_true:
            return workspace_finding(situation, condition)
    return None


def _state(situation: Situation, finding: Finding | None, *, is_progress: bool) -> tuple[State, str]:
    workspace = situation.workspace
    if workspace.deleting:
        return "deleting", "is being deleted"
    if workspace.status.state == "Succeeded":
        return "succeeded", "tuning has completed"
    if finding is None and _is_stopped(situation):
        return "stopped", "is scaled to zero: no copy of the model, and no node"
    if finding is None:
        return "ready", "the model answers" if workspace.inference is not None else "ready"
    if situation.is_true(conditions.INFERENCE_READY):
        return "failing", "the model answers, but not everything is as requested"
    if is_progress:
        return "progressing", "tuning is running" if _is_tuning(situation) else "is starting"
    return "failing", "is not ready"


def _is_stopped(situation: Situation) -> bool:
    """Whether no copy is requested."""
    condition = situation.condition(conditions.INFERENCE_READY)
    return condition is not None and condition.reason == conditions.SCALED_TO_ZERO


def _is_tuning(situation: Situation) -> bool:
    return situation.workspace.tuning is not None and situation.is_true(conditions.JOB_STARTED)


def _names(situation: Situation, finding: Finding) -> Names:
    """Returns the names of objects for commands; those of the finding first, else the first of each kind."""
    workspace = situation.workspace
    claim_name = finding.claim or next(iter([claim.name for claim in situation.claims]), "NAME")
    claim = next((claim for claim in situation.claims if claim.name == claim_name), None)
    is_machine = claim.kind == "Machine" if claim is not None else situation.condition(conditions.MACHINE_READY)
    instance_type = claim.instance_type if claim is not None else ""
    regions = {node.labels[labels.REGION] for node in situation.nodes if labels.REGION in node.labels}
    return Names(
        namespace=workspace.namespace,
        name=workspace.name,
        object=finding.cause.name,
        resource="machine" if is_machine else "nodeclaim",
        claim=claim_name,
        node=finding.node or next(iter([node.name for node in situation.nodes]), "NODE"),
        pod=finding.pod or next(iter([pod.name for pod in situation.pods]), f"{workspace.name}-0"),
        instance_type=instance_type or workspace.resource.instance_type or "TYPE",
        region=situation.settings.region or (regions.pop() if len(regions) == 1 else "REGION"),
    )


def _usage(situation: Situation) -> tuple[str, ...]:
    """Returns how the result of a Workspace without a cause is used."""
    workspace = situation.workspace
    namespace, name = workspace.namespace, workspace.name
    if workspace.tuning is not None:
        output = workspace.tuning.output.image
        where = f"the adapter is in {output}: name it in inference.adapters of a Workspace" if output else ""
        patch = """'{"tuning": {"ttlSecondsAfterFinished": 0}}'"""
        release = f"$ kubectl -n {namespace} patch workspace {name} --type=merge -p {patch}   # gives its node back"
        return tuple(filter(None, (where, release if situation.live_claims else "")))
    if _is_stopped(situation):
        return (f"$ kubectl -n {namespace} scale workspace {name} --replicas=1   # starts it",)
    service = next((each for each in situation.services if each.name == name), None)
    ingress = service.status.load_balancer.ingress if service is not None else []
    address = next((entry.ip or entry.hostname for entry in ingress if entry.ip or entry.hostname), None)
    path = "/v1/models" if workspace.preset_name else "/"
    lines = [f"$ kaito chat {name} -n {namespace}"] if workspace.preset_name else []
    lines.append(f"$ curl http://{name}.{namespace}.svc{path}   # in the cluster")
    if address:
        lines.append(f"$ curl http://{address}{path}   # from outside")
    else:
        lines.append(
            f"$ kubectl -n {namespace} port-forward service/{name} 8080:80   # then http://localhost:8080{path}"
        )
    return tuple(lines)


def _notes(situation: Situation) -> Sequence[str]:
    notes = [f"{what} could not be read: {why}" for what, why in sorted(situation.unread.items())]
    workspace = situation.workspace
    if is_outdated(situation):
        notes.append(
            f"the conditions describe generation {workspace.status.observed_generation} of the Workspace, not the "
            f"present generation {workspace.metadata.generation}"
        )
    if workspace.deleting and find_namespace(situation) is not None:
        notes.append(f"the namespace {workspace.namespace} is being deleted, too")
    if workspace.metadata.finalizers == [labels.LEGACY_WORKSPACE_FINALIZER]:
        notes.append("upstream Kaito reconciles the Workspace: it does not record when it tries again")
    return notes
