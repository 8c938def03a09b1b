"""Lists the objects from the Workspace to the server in the order in which they depend on each other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kaito.api import Claim, conditions, labels
from kaito.api.karpenter import conditions as stages
from kaito.diagnosis.gpus import advertised_gpus
from kaito.diagnosis.resources import is_in_progress
from kaito.diagnosis.result import Link, LinkState, State
from kaito.diagnosis.situation import LaunchRecord, Situation
from kaito.runtime.kinds import Node, Pod, StatefulSet
from kaito.runtime.meta import Condition
from kaito.workspace.failure import shorten
from kaito.workspace.pod_faults import find_fault

SUMMARY_CHARACTERS: Final = 160
"""Longest summary of a link. The cause contains the full message."""


_STATES: Final[Mapping[State, LinkState]] = {
    "ready": "ok",
    "succeeded": "ok",
    "stopped": "ok",
    "progressing": "waiting",
    "deleting": "waiting",
    "failing": "failed",
}


def chain(situation: Situation, state: State) -> tuple[Link, ...]:
    """Returns the links, from the Workspace, which is in this state, to the server."""
    return (
        _workspace(situation, _STATES[state]),
        *_claims(situation),
        *_nodes(situation),
        *_workload(situation),
        *_pods(situation),
        *_server(situation),
    )


def _workspace(situation: Situation, state: LinkState) -> Link:
    workspace = situation.workspace
    order = (
        conditions.WORKSPACE_DELETING,
        conditions.RESOURCE_READY,
        conditions.JOB_STARTED if workspace.tuning is not None else conditions.INFERENCE_READY,
        conditions.WORKSPACE_SUCCEEDED,
    )
    found = [condition for name in order if (condition := situation.condition(name)) is not None]
    wrong = next((c for c in found if c.is_true == (c.type == conditions.WORKSPACE_DELETING)), None)
    event = situation.event_note(workspace, *((wrong.reason,) if wrong is not None else ()))
    created = workspace.metadata.creation_timestamp
    done = found[-1] if found else None
    if wrong is None and done is not None:
        summary: str = workspace.status.state or "Ready"
        return Link(
            kind=workspace.kind,
            name=workspace.name,
            state=state,
            summary=summary,
            since=done.last_transition_time,
            created=created,
            event=event,
        )
    summary = f"{wrong.type}={wrong.status} {wrong.reason}" if wrong is not None else "no conditions"
    since = situation.since(workspace, wrong) if wrong is not None else created
    return Link(
        kind=workspace.kind,
        name=workspace.name,
        state=state,
        summary=summary,
        since=since,
        created=created,
        event=event,
    )


def _claims(situation: Situation) -> Iterator[Link]:
    """Yields the claims, each with its instance."""
    if not situation.has_claims and not situation.workspace.status.claims:
        return
    kind = _claim_kind(situation)
    if "claims" in situation.unread:
        for name in situation.workspace.status.claims:
            yield Link(kind=kind, name=name, state="unknown", summary="could not be read")
        return
    for claim in situation.claims:
        yield _claim(situation, claim)
        yield _instance(situation, claim)
    missing = situation.wanted_nodes - len(situation.claims)
    is_awaited = not situation.workspace.deleting and not _is_done(situation)
    if missing > 0 and is_awaited and _lacks_nodes(situation):
        yield Link(kind=kind, name="", state="absent", summary=f"{missing} of {situation.wanted_nodes} do not exist")


def _lacks_nodes(situation: Situation) -> bool:
    """Whether the nodes of other origin, such as preferred ones, do not suffice."""
    return len([node for node in situation.nodes if node.is_ready]) < situation.wanted_nodes


def _claim_kind(situation: Situation) -> str:
    if situation.claims:
        return situation.claims[0].kind
    return "Machine" if situation.condition(conditions.MACHINE_READY) is not None else "NodeClaim"


def _claim(situation: Situation, claim: Claim) -> Link:
    created = claim.metadata.creation_timestamp
    size = claim.instance_type or "any of its instance types"
    if claim.deleting:
        blocking = claim.blocking_termination_condition()
        reason = f" ({blocking.reason})" if blocking is not None else ""
        event = situation.event_note(claim, *((blocking.reason,) if blocking is not None else ()))
        rejected = blocking is not None and not is_in_progress(blocking)
        return Link(
            kind=claim.kind,
            name=claim.name,
            state="failed" if rejected else "waiting",
            summary=f"is being deleted{reason}",
            since=claim.metadata.deletion_timestamp,
            created=created,
            event=event,
        )
    ready = claim.condition(stages.READY)
    if claim.is_ready:
        since = ready.last_transition_time if ready is not None else created
        return Link(kind=claim.kind, name=claim.name, state="ok", summary=size, since=since, created=created)
    blocking = claim.blocking_condition() or (ready if ready is not None and ready.status == "False" else None)
    if blocking is None:
        return Link(
            kind=claim.kind,
            name=claim.name,
            state="waiting",
            summary=f"{size}, no provisioner has reported on it",
            since=created,
            created=created,
            event=situation.event_note(claim),
        )
    return Link(
        kind=claim.kind,
        name=claim.name,
        state="waiting" if is_in_progress(blocking) else "failed",
        summary=f"{size}, {blocking.type}={blocking.status} {blocking.reason}",
        since=situation.since(claim, blocking),
        created=created,
        event=situation.event_note(claim, blocking.reason, "OfferRefused"),
    )


def _instance(situation: Situation, claim: Claim) -> Link:
    """Returns the agent pool or instance of a claim, as the claim reports it."""
    launched = claim.condition(claim.stages.launched)
    provider_id = claim.status.provider_id
    is_pool = claim.kind == "Machine" or "virtualMachineScaleSets" in provider_id or _has_pools(claim)
    kind = "AgentPool" if is_pool else "Instance"
    name = claim.name if is_pool else provider_id.rpartition("/")[2]
    if provider_id or (launched is not None and launched.is_true):
        since = launched.last_transition_time if launched is not None else None
        zone = claim.labels.get(labels.ZONE, "")
        capacity = claim.labels.get(labels.CAPACITY_TYPE, "")
        facts = ", ".join(filter(None, ("exists", zone and f"zone {zone}", capacity)))
        return Link(kind=kind, name=name, state="ok", summary=facts, since=since)
    if launched is None:
        return Link(kind=kind, name=name, state="absent", summary="not requested yet")
    record = LaunchRecord.of(claim)
    failures = f", {record.failures} failed attempts" if record.failures else ""
    refused = f", without: {', '.join(sorted(record.refused)[:3])}" if record.refused else ""
    state: LinkState = "waiting" if is_in_progress(launched) else "absent"
    summary = "is being created" if launched.reason == stages.AGENT_POOL_CREATING else "does not exist"
    return Link(
        kind=kind,
        name=name,
        state=state,
        summary=_short(f"{summary}{failures}{refused}"),
        since=situation.since(claim, launched),
    )


def _has_pools(claim: Claim) -> bool:
    """Whether the claim is for gpu-provisioner, which creates an agent pool of the claim's name."""
    return claim.labels.get(labels.NODEPOOL) == labels.NODEPOOL_KAITO and "karpenter" not in claim.status.provider_id


def _nodes(situation: Situation) -> Iterator[Link]:
    if "nodes" in situation.unread:
        for name in situation.workspace.status.worker_nodes:
            yield Link(kind="Node", name=name, state="unknown", summary="could not be read")
        return
    for node in situation.nodes:
        yield _node(situation, node)
    missing = situation.wanted_nodes - len(situation.nodes)
    if missing > 0 and not situation.workspace.deleting and not _is_done(situation):
        yield Link(
            kind="Node", name="", state="absent", summary=f"{missing} of {situation.wanted_nodes} have not joined"
        )


def _is_done(situation: Situation) -> bool:
    return situation.workspace.status.state == "Succeeded"


def _node(situation: Situation, node: Node) -> Link:
    created = node.metadata.creation_timestamp
    ready = node.condition("Ready")
    gpus = [f"{node.status.capacity[name]} {name}" for name in advertised_gpus(node)]
    size = ", ".join(filter(None, (node.labels.get(labels.INSTANCE_TYPE, ""), *(gpus or ["no GPU advertised"]))))
    since = ready.last_transition_time if ready is not None else created
    if ready is None or ready.status != "True":
        detail = ": ".join(filter(None, (ready.reason, ready.message))) if ready is not None else "no report yet"
        event = situation.event_note(node, "NodeNotReady")
        summary = _short(f"not Ready ({detail})")
        return Link(
            kind="Node", name=node.name, state="failed", summary=summary, since=since, created=created, event=event
        )
    state: LinkState = "failed" if node.spec.unschedulable else "ok" if gpus else "waiting"
    cordoned = "cordoned, " if node.spec.unschedulable else ""
    return Link(kind="Node", name=node.name, state=state, summary=f"{cordoned}{size}", since=since, created=created)


def _workload(situation: Situation) -> Iterator[Link]:
    if "workloads" in situation.unread:
        return
    for stateful_set in situation.stateful_sets:
        yield _stateful_set(situation, stateful_set)
    job = situation.job
    if job is not None:
        created, event = job.metadata.creation_timestamp, situation.event_note(job)
        ended = next(
            (c for c in job.status.conditions if c.type in {"Complete", "Failed"} and c.status == "True"), None
        )
        state: LinkState = "waiting" if ended is None else "ok" if ended.type == "Complete" else "failed"
        running = "is running" if job.status.ready else "has no running pod"
        summary = f"{ended.type}: {ended.message or ended.reason}" if ended is not None else running
        since = ended.last_transition_time if ended is not None else created
        yield Link(
            kind="Job", name=job.name, state=state, summary=_short(summary), since=since, created=created, event=event
        )
    elif not situation.stateful_sets and not situation.workspace.deleting:
        kind = "Job" if situation.workspace.tuning is not None else "StatefulSet"
        yield Link(kind=kind, name=situation.workspace.name, state="absent", summary="does not exist yet")


def _stateful_set(situation: Situation, stateful_set: StatefulSet) -> Link:
    wanted = 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas
    ready = stateful_set.status.ready_replicas
    event = situation.event_note(stateful_set)
    return Link(
        kind="StatefulSet",
        name=stateful_set.name,
        state="ok" if ready >= wanted else "waiting",
        summary=f"{ready} of {wanted} pods ready",
        created=stateful_set.metadata.creation_timestamp,
        since=stateful_set.metadata.creation_timestamp,
        event=event if event is not None and event.warning else None,
    )


def _pods(situation: Situation) -> Iterator[Link]:
    for pod in situation.pods:
        yield _pod(situation, pod)


def _pod(situation: Situation, pod: Pod) -> Link:
    created = pod.metadata.creation_timestamp
    where = f" on {pod.spec.node_name}" if pod.spec.node_name else ""
    ready = pod.condition("Ready")
    since = (ready.last_transition_time if ready is not None else None) or created
    if pod.deleting:
        since = pod.metadata.deletion_timestamp
        return Link(kind="Pod", name=pod.name, state="waiting", summary=f"is ending{where}", since=since)
    if pod.is_ready or pod.status.phase == "Succeeded":
        return Link(
            kind="Pod", name=pod.name, state="ok", summary=f"{pod.status.phase}{where}", since=since, created=created
        )
    fault = find_fault([pod])
    event = situation.event_note(pod)
    summary = _short(fault.reason if fault is not None else f"{pod.status.phase or 'Pending'}, not ready") + where
    state: LinkState = "failed" if fault is not None else "waiting"
    return Link(kind="Pod", name=pod.name, state=state, summary=summary, since=since, created=created, event=event)


def _server(situation: Situation) -> Iterator[Link]:
    """Yields the server of an inference Workspace."""
    workspace = situation.workspace
    if workspace.inference is None or workspace.deleting:
        return
    name, address = workspace.name, f"http://{workspace.name}.{workspace.namespace}.svc"
    condition = situation.condition(conditions.INFERENCE_READY)
    if condition is None:
        ready = any(pod.is_ready for pod in situation.pods)
        yield Link(
            kind="Server",
            name=name,
            state="ok" if ready else "absent",
            summary=f"{address} answers" if ready else "does not exist yet",
        )
        return
    if condition.is_true:
        yield Link(
            kind="Server", name=name, state="ok", summary=f"{address} answers", since=condition.last_transition_time
        )
        return
    yield Link(
        kind="Server",
        name=name,
        state=_server_state(condition, situation.pods),
        summary=f"{address} does not answer ({condition.reason})",
        since=condition.last_transition_time,
    )


def _server_state(condition: Condition, pods: Sequence[Pod]) -> LinkState:
    if not pods:
        return "absent"
    return "waiting" if is_in_progress(condition) else "failed"


def _short(text: str) -> str:
    return shorten(text, SUMMARY_CHARACTERS)
