"""Finds the causes of a Workspace that is being deleted, and of one that no controller processes."""

from datetime import timedelta

from kaito.api import conditions, labels
from kaito.diagnosis.finding import Finding, cause_of, workspace_finding
from kaito.diagnosis.result import (
    CONTROLLER_NOT_RUNNING,
    FOREIGN_FINALIZER,
    NAMESPACE_TERMINATING,
    Cause,
    NextStep,
)
from kaito.diagnosis.situation import Situation
from kaito.runtime.kinds import Deployment

SEEN_SECONDS = 30.0
"""Time within which a controller that runs reports on a Workspace."""


def find_deletion(situation: Situation) -> Finding | None:
    """Returns what the deletion waits for; None if the Workspace is not being deleted."""
    workspace = situation.workspace
    deleted_at = workspace.metadata.deletion_timestamp
    if deleted_at is None:
        return None
    finalizers = set(workspace.metadata.finalizers)
    own = finalizers & {labels.WORKSPACE_FINALIZER, labels.LEGACY_WORKSPACE_FINALIZER}
    if finalizers and not own:
        message = f"the deletion waits for the finalizer {', '.join(sorted(finalizers))} of another controller"
        return Finding(cause=_cause(situation, FOREIGN_FINALIZER, message))
    condition = situation.condition(conditions.WORKSPACE_DELETING)
    if condition is None:
        if (situation.now - deleted_at).total_seconds() < SEEN_SECONDS:
            cause = _cause(situation, conditions.DELETING, "the deletion has just begun")
            return Finding(cause=cause)
        message = f"no controller has processed the deletion; {_controller_state(situation)}"
        return Finding(cause=_cause(situation, CONTROLLER_NOT_RUNNING, message))
    limit = deleted_at + timedelta(seconds=situation.settings.deletion_timeout_seconds)
    steps = (
        (NextStep(what="the finalizer is removed, also if claims still exist", at=limit),) if situation.claims else ()
    )
    for claim in situation.claims:
        blocking = claim.blocking_termination_condition()
        if blocking is not None:
            rejected = blocking.status == "False" and condition.reason == conditions.CLOUD_REFUSES_DELETION
            cause = cause_of(situation, claim, blocking)
            return Finding(cause=cause, next=steps, claim=claim.name, progress=False if rejected else None)
    found = workspace_finding(situation, condition, next_steps=steps)
    claim_name = situation.claims[0].name if situation.claims else ""
    return Finding(cause=found.cause, next=found.next, claim=claim_name)


def find_namespace(situation: Situation) -> Finding | None:
    """Returns a finding if the namespace is being deleted."""
    namespace = situation.namespace
    if namespace is None or not namespace.deleting:
        return None
    cause = Cause(
        kind="Namespace",
        name=namespace.name,
        reason=NAMESPACE_TERMINATING,
        message=f"the namespace {namespace.name} is being deleted: the API server rejects new objects in it",
        since=namespace.metadata.deletion_timestamp,
    )
    return Finding(cause=cause)


def find_absent_controller(situation: Situation) -> Finding | None:
    """Returns a finding if no controller has reported on the Workspace, or on its present generation."""
    workspace = situation.workspace
    if workspace.status.conditions:
        return None
    if situation.age_seconds(workspace) < SEEN_SECONDS:
        message = "the Workspace was created a moment ago; no controller has reported on it yet"
        return Finding(cause=_cause(situation, CONTROLLER_NOT_RUNNING, message), progress=True)
    message = f"no controller has reported on the Workspace; {_controller_state(situation)}"
    return Finding(cause=_cause(situation, CONTROLLER_NOT_RUNNING, message))


def is_outdated(situation: Situation) -> bool:
    """Whether the conditions describe an earlier generation of the Workspace."""
    workspace = situation.workspace
    newest = [each.observed_generation or 0 for each in workspace.status.conditions]
    seen = max([workspace.status.observed_generation, *newest], default=0)
    return bool(workspace.status.conditions) and 0 < seen < workspace.metadata.generation


def _controller_state(situation: Situation) -> str:
    """Describes the Deployment of the workspace controller."""
    if "controllers" in situation.unread:
        return "whether the workspace-controller runs could not be read"
    return describe_deployment(situation.controller("workspace"), "workspace-controller")


def describe_deployment(deployment: Deployment | None, name: str) -> str:
    """Describes whether a controller runs."""
    if deployment is None:
        return f"the cluster has no Deployment {name}"
    wanted = 1 if deployment.spec.replicas is None else deployment.spec.replicas
    return f"Deployment {deployment.key} has {deployment.status.ready_replicas} of {wanted} ready replicas"


def _cause(situation: Situation, reason: str, message: str) -> Cause:
    workspace = situation.workspace
    since = workspace.metadata.deletion_timestamp or workspace.metadata.creation_timestamp
    return Cause(kind=workspace.kind, name=workspace.name, reason=reason, message=message, since=since)
