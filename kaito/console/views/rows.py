"""The row of a Workspace in the list."""

from datetime import datetime

from kaito.api import Workspace
from kaito.console.views.costs import Cost
from kaito.console.views.json_values import Json, number, time_text
from kaito.diagnosis import Diagnosis, Situation


def row(situation: Situation, diagnosis: Diagnosis, cost: Cost) -> Json:
    """Returns the row."""
    workspace, cause = situation.workspace, diagnosis.cause
    return {
        "namespace": workspace.namespace,
        "name": workspace.name,
        "uid": workspace.uid,
        "task": diagnosis.task,
        "state": diagnosis.state,
        "serving": diagnosis.serving,
        "model": model_of(workspace),
        "instanceType": workspace.status.instance_type or workspace.resource.instance_type,
        "copies": _copies(workspace),
        "nodes": _nodes(situation),
        "summary": diagnosis.summary,
        "reason": cause.reason if cause is not None else None,
        "since": time_text(cause.since if cause is not None else _latest_transition(workspace)),
        "created": time_text(workspace.metadata.creation_timestamp),
        "hourlyCost": number(cost.hourly),
        "currency": cost.currency,
    }


def model_of(workspace: Workspace) -> str:
    """Returns the name of the preset or of the model; `pod template` without either."""
    return workspace.preset_name or "pod template"


def _copies(workspace: Workspace) -> Json | None:
    if workspace.tuning is not None:
        return None
    replicas = workspace.spec.replicas
    wanted = replicas if replicas is not None else max(workspace.status.replicas, 1)
    return {"wanted": wanted, "ready": workspace.status.ready_replicas}


def _nodes(situation: Situation) -> Json:
    if "nodes" in situation.unread:
        return {"wanted": situation.wanted_nodes, "ready": len(situation.workspace.status.worker_nodes)}
    return {"wanted": situation.wanted_nodes, "ready": sum(node.is_ready for node in situation.nodes)}


def _latest_transition(workspace: Workspace) -> datetime | None:
    times = [condition.last_transition_time for condition in workspace.status.conditions]
    return max((time for time in times if time is not None), default=None)
