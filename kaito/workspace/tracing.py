"""The trace of a Workspace: its annotation, the environment of its pods, and spans of the phases of its start.

The annotation `kaito.sh/traceparent` contains the context of the admission, which the webhook sets, or of the first
reconcile. Claims carry it on, so that the spans of a provisioner join the trace. Karpenter records no spans, and the
claims that it creates from a NodePool cannot carry the context, because a change of the template replaces every node:
the stages of its claims are recorded here. Pods get the context as `TRACEPARENT` with the address of the collector. A
workload keeps the environment that it was created with, in an annotation: neither an upgrade nor a changed flag
replaces its pods.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, cast

from kaito.api import Claim, NodeClaim, Workspace, labels
from kaito.api.karpenter.nodeclaim import KAITO_NODE_CLASS_GROUP
from kaito.runtime import Request
from kaito.runtime.client import MergePatch
from kaito.runtime.controller import origin_of
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.runtime.meta import Condition
from kaito.runtime.tracing import Tracer, is_traceparent
from kaito.workspace.plan import Plan
from kaito.workspace.settings import WorkspaceSettings

TRACEPARENT_ENV: Final = "TRACEPARENT"
"""Environment variable with a trace context (as OpenTelemetry specifies it)."""

STAGES: Final = ("launch", "register", "initialize")
"""Names of the spans of a claim, as gpu-provisioner names them."""

ENDPOINT_ENV: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
RESOURCE_ENV: Final = "OTEL_RESOURCE_ATTRIBUTES"


def trace_environment(
    workspace: Workspace, settings: WorkspaceSettings, present: StatefulSet | Job | None
) -> Mapping[str, str]:
    """Returns the variables for tracing of the pods: those that the workload was created with, else those of now."""
    if present is not None:
        return _recorded(present)
    if not settings.tracing_endpoint:
        return {}
    identity = f"k8s.namespace.name={workspace.namespace},kaito.workspace={workspace.name}"
    environment = {ENDPOINT_ENV: settings.tracing_endpoint, RESOURCE_ENV: identity}
    traceparent = _traceparent(workspace)
    return environment | {TRACEPARENT_ENV: traceparent} if traceparent else environment


def trace_annotation(plan: Plan) -> dict[str, str]:
    """Returns the annotation of the workload with the environment; none without tracing."""
    environment = dict(plan.trace_environment)
    return {labels.TRACE_ENVIRONMENT: json.dumps(environment, sort_keys=True)} if environment else {}


def _recorded(workload: StatefulSet | Job) -> Mapping[str, str]:
    try:
        found: object = json.loads(workload.annotations.get(labels.TRACE_ENVIRONMENT, "{}"))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    given = cast("dict[str, object]", found)
    return {name: value for name, value in given.items() if isinstance(value, str)}


def claim_annotation(workspace: Workspace) -> dict[str, str]:
    """Returns the annotation that a claim takes over from its Workspace; none without a valid one."""
    traceparent = _traceparent(workspace)
    return {labels.TRACEPARENT: traceparent} if traceparent else {}


def _traceparent(workspace: Workspace) -> str:
    """The context of the trace of a Workspace; empty if its annotation is missing or not valid."""
    traceparent = workspace.annotations.get(labels.TRACEPARENT, "")
    return traceparent if is_traceparent(traceparent) else ""


async def ensure_traced(tracer: Tracer, request: Request[Workspace]) -> Request[Workspace]:
    """Sets the annotation of a new Workspace that was admitted without the webhook, and returns the request with it."""
    workspace = request.object
    is_new = not workspace.status.conditions
    if not tracer.annotation or not is_new or workspace.annotations.get(tracer.annotation):
        return request
    with tracer.start_as_current_span("first reconcile", attributes={"kaito.workspace": str(workspace.key)}) as span:
        change = {"metadata": {"annotations": {tracer.annotation: span.traceparent}}}
        return replace(request, object=await request.api.patch(workspace, MergePatch(change)))


def record_condition(
    tracer: Tracer, workspace: Workspace, condition_type: str, before: Condition | None, now: datetime
) -> None:
    """Records the time until a condition became True as a span: since the creation, or since it was True no longer."""
    parent = origin_of(workspace, tracer.annotation, now).parent
    created = workspace.metadata.creation_timestamp
    if not parent or created is None:
        return
    is_first = workspace.status.state in {None, "Pending", "Running"}
    since = None if is_first or before is None else before.last_transition_time
    tracer.record_span(
        condition_type,
        start=since or created,
        end=now,
        parent=parent,
        attributes={"kaito.workspace": str(workspace.key)},
    )


def record_claim(tracer: Tracer, workspace: Workspace, claim: Claim, since: datetime | None, now: datetime) -> None:
    """Records the stages of a claim of Karpenter that are complete, from the times of its conditions.

    gpu-provisioner records those of its claims.

    Args:
        tracer: records.
        workspace: the owner of the claim.
        claim: the claim.
        since: a claim that was initialized before is not recorded again; None for the first time.
        now: the current time.
    """
    parent = origin_of(workspace, tracer.annotation, now).parent
    start = claim.metadata.creation_timestamp
    if not parent or start is None or not isinstance(claim, NodeClaim) or _is_of_gpu_provisioner(claim):
        return
    ends = [found.last_transition_time for found in map(claim.condition, claim.stages) if found and found.is_true]
    times = [end for end in ends if end is not None]
    if len(times) < len(claim.stages) or (since is not None and times[-1] < since):
        return
    attributes = {"kaito.claim": claim.name, "cloud.instance_type": claim.instance_type}
    for name, end in zip(STAGES, times, strict=True):
        tracer.record_span(name, start=start, end=max(start, end), parent=parent, attributes=attributes)
        start = max(start, end)


def _is_of_gpu_provisioner(claim: NodeClaim) -> bool:
    return claim.spec.node_class_ref.group == KAITO_NODE_CLASS_GROUP


def record_pod(tracer: Tracer, workspace: Workspace, pod: Pod, now: datetime) -> None:
    """Records the scheduling and the init containers of a pod that is ready, from the times in its status."""
    parent = origin_of(workspace, tracer.annotation, now).parent
    if not parent:
        return
    attributes = {"k8s.pod.name": pod.name, "k8s.namespace.name": pod.namespace}
    scheduled = next((each.last_transition_time for each in pod.status.conditions if each.type == "PodScheduled"), None)
    created = pod.metadata.creation_timestamp
    if created is not None and scheduled is not None:
        tracer.record_span("schedule pod", start=created, end=scheduled, parent=parent, attributes=attributes)
    for status in pod.status.init_container_statuses:
        ended = status.state.terminated
        if ended is not None and ended.started_at is not None and ended.finished_at is not None:
            tracer.record_span(
                f"init container {status.name}",
                start=ended.started_at,
                end=ended.finished_at,
                parent=parent,
                attributes={**attributes, "k8s.container.name": status.name},
            )
