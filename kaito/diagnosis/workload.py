"""Finds the causes among the pods, the Service and the Job of a Workspace."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kaito.api import conditions, labels
from kaito.diagnosis.finding import Finding, workspace_finding
from kaito.diagnosis.result import (
    LOAD_BALANCER_PENDING,
    POD_PENDING,
    PROBE_FAILING,
    SERVICE_MISSING,
    Cause,
    NextStep,
)
from kaito.diagnosis.situation import Situation, first_seen_at, latest, parse_go_duration
from kaito.runtime.kinds import ContainerStatus, Event, Pod
from kaito.runtime.meta import Resource
from kaito.workspace.events import CREATION_FAILED, CREATION_SUCCEEDED, START_FAILURES, last_seen_at
from kaito.workspace.pod_faults import Fault, find_fault, has_started

_BACK_OFF: Final = re.compile(r"back-off (\S+) restarting")

_START_REASONS: Final = frozenset(
    {conditions.PULLING_WEIGHTS, conditions.DOWNLOADING_WEIGHTS, conditions.LOADING_MODEL, conditions.WARMING_UP}
)


def find_workload(situation: Situation) -> Finding | None:
    """Returns why the model does not answer, or the Job does not run; None if it does."""
    condition_type = conditions.JOB_STARTED if situation.workspace.tuning is not None else conditions.INFERENCE_READY
    condition = situation.condition(condition_type)
    if condition is not None and condition.is_true:
        return None
    pods = [pod for pod in situation.pods if not pod.deleting]
    fault = find_fault(pods)
    if fault is not None:
        return _faulty(situation, pods, fault)
    found = _not_created(situation) or _not_started(situation, pods) or _probe(situation, pods)
    if found is not None:
        return found
    if condition is None:
        return _starting(pods)
    pod = next((pod.name for pod in pods if not pod.is_ready), "")
    finding = workspace_finding(situation, condition)
    return Finding(cause=finding.cause, next=finding.next, pod=pod)


def find_job_failure(situation: Situation) -> Finding | None:
    """Returns why a tuning Job failed; None if it did not."""
    job = situation.job
    condition = situation.condition(conditions.JOB_STARTED) or situation.condition(conditions.WORKSPACE_SUCCEEDED)
    failed = situation.workspace.status.state == "Failed" or (job is not None and job.has_condition("Failed"))
    if situation.workspace.tuning is None or not failed:
        return None
    ended = next((c.last_transition_time for c in job.status.conditions if c.type == "Failed"), None) if job else None
    message = condition.message if condition is not None else "the tuning job failed"
    workspace = situation.workspace
    cause = Cause(
        kind="Job" if job is not None else workspace.kind,
        name=job.name if job is not None else workspace.name,
        reason=conditions.JOB_FAILED,
        message=message,
        since=ended or (situation.since(workspace, condition) if condition is not None else None),
    )
    return Finding(cause=cause, pod=next((pod.name for pod in situation.pods), ""))


def find_service(situation: Situation) -> Finding | None:
    """Returns why ready pods cannot be reached; None if they can."""
    workspace = situation.workspace
    if workspace.inference is None or "services" in situation.unread or not any(p.is_ready for p in situation.pods):
        return None
    service = next((each for each in situation.services if each.name == workspace.name), None)
    if service is None:
        message = f"the pods are ready, and the Service {workspace.name} does not exist"
        return Finding(cause=Cause(kind="Service", name=workspace.name, reason=SERVICE_MISSING, message=message))
    wants_address = labels.is_true(workspace.annotations.get(labels.ENABLE_LOAD_BALANCER))
    if wants_address and service.spec.type == "LoadBalancer" and not service.status.load_balancer.ingress:
        event = situation.event_note(service, "SyncLoadBalancerFailed")
        detail = f": {event.note}" if event is not None and event.warning else ""
        message = f"the load balancer of Service {service.name} has no address yet{detail}"
        since = service.metadata.creation_timestamp
        cause = Cause(kind="Service", name=service.name, reason=LOAD_BALANCER_PENDING, message=message, since=since)
        return Finding(cause=cause)
    return None


def find_adapters(situation: Situation) -> Finding | None:
    """Returns which adapter cannot be loaded; None if there is none."""
    condition = situation.condition(conditions.ADAPTERS_READY)
    if condition is None or condition.is_true or condition.reason != conditions.ADAPTER_FAILED:
        return None
    return workspace_finding(situation, condition)


def _faulty(situation: Situation, pods: Sequence[Pod], fault: Fault) -> Finding:
    pod = next((pod for pod in pods if f"pod {pod.name}" in fault.message), pods[0])
    status = next((s for s in _containers(pod) if f"container {s.name} of" in fault.message), None)
    scheduled = pod.condition("PodScheduled")
    since = latest((pod.metadata.creation_timestamp,))
    steps: tuple[NextStep, ...] = ()
    if status is not None:
        since = _failing_since(situation, pod, status) or since
        steps = _restart(status)
    elif fault.reason == conditions.UNSCHEDULABLE and scheduled is not None:
        since = scheduled.last_transition_time or since
    cause = Cause(kind=pod.kind, name=pod.name, reason=fault.reason, message=fault.message, since=since)
    return Finding(cause=cause, next=steps, pod=pod.name, node=pod.spec.node_name or "")


def _failing_since(situation: Situation, pod: Pod, status: ContainerStatus) -> datetime | None:
    """Returns since when a container fails: the first failure in Events, else its last end."""
    reasons = {"BackOff", "Failed", "FailedMount", "FailedCreatePodSandBox"}
    firsts = [first_seen_at(event) for event in situation.events_of(pod) if event.reason in reasons]
    ended = status.state.terminated or status.last_state.terminated
    return min(firsts, default=None) or (ended.finished_at if ended is not None else None)


def _restart(status: ContainerStatus) -> tuple[NextStep, ...]:
    """Returns when the kubelet restarts the container, from its message about the back-off."""
    waiting, ended = status.state.waiting, status.last_state.terminated or status.state.terminated
    found = _BACK_OFF.search(waiting.message) if waiting is not None else None
    delay = parse_go_duration(found[1]) if found is not None else None
    if delay is None or ended is None or ended.finished_at is None:
        return ()
    what = f"the kubelet restarts container {status.name}; {status.restart_count} restarts so far"
    return (NextStep(what=what, at=ended.finished_at + delay, is_retry=True),)


def _not_created(situation: Situation) -> Finding | None:
    """Returns why Kubernetes cannot create the pods, from the Events of the StatefulSet or the Job."""
    owners: list[Resource] = [*situation.stateful_sets, *([situation.job] if situation.job is not None else [])]
    for owner in owners:
        attempts = [e for e in situation.events_of(owner) if e.reason in {CREATION_FAILED, CREATION_SUCCEEDED}]
        newest = max(attempts, key=last_seen_at, default=None)
        if newest is not None and newest.reason == CREATION_FAILED:
            return _from_event(owner, conditions.POD_CREATION_FAILED, newest.note, attempts)
    return None


def _not_started(situation: Situation, pods: Sequence[Pod]) -> Finding | None:
    """Returns why a scheduled pod has no container yet, from the Events of the kubelet."""
    for pod in pods:
        if has_started(pod) or not pod.spec.node_name:
            continue
        failures = [e for e in situation.events_of(pod) if e.type == "Warning" and e.reason in START_FAILURES]
        if failures:
            note = f"pod {pod.name} cannot start: {failures[0].reason}: {failures[0].note}"
            found = _from_event(pod, conditions.CONTAINER_START_ERROR, note, failures)
            return Finding(cause=found.cause, pod=pod.name, node=pod.spec.node_name)
    return None


def _from_event(owner: Resource, reason: str, message: str, events: Sequence[Event]) -> Finding:
    first = min(map(first_seen_at, events))
    return Finding(cause=Cause(kind=owner.kind, name=owner.name, reason=reason, message=message, since=first))


def _probe(situation: Situation, pods: Sequence[Pod]) -> Finding | None:
    """Returns the failing probe of a container that runs; None if the server reports that it is still starting."""
    condition = situation.condition(conditions.INFERENCE_READY)
    if condition is not None and condition.reason in _START_REASONS:
        return None
    for pod in pods:
        running = [s for s in pod.status.container_statuses if s.state.running and not s.ready]
        failures = [e for e in situation.events_of(pod) if e.reason in {"Unhealthy", "ProbeError"}]
        if pod.is_ready or not running or not failures:
            continue
        status = running[0]
        message = f"container {status.name} of pod {pod.name} runs and is not ready: {failures[0].note.strip()}"
        started = status.state.running.started_at if status.state.running else None
        since = latest((started, min(map(first_seen_at, failures))))
        cause = Cause(kind=pod.kind, name=pod.name, reason=PROBE_FAILING, message=message, since=since)
        steps = _startup_limit(pod, status.name, started)
        return Finding(cause=cause, next=steps, pod=pod.name, node=pod.spec.node_name or "")
    return None


def _startup_limit(pod: Pod, container: str, started: datetime | None) -> tuple[NextStep, ...]:
    """Returns when the kubelet restarts a container whose startup probe keeps failing."""
    probe = next((c.startup_probe for c in pod.spec.containers if c.name == container), None)
    if probe is None or started is None:
        return ()
    delay = (probe.initial_delay_seconds or 0) + (probe.period_seconds or 10) * (probe.failure_threshold or 3)
    at = started + timedelta(seconds=delay)
    return (NextStep(what=f"the kubelet restarts container {container} if its startup probe still fails", at=at),)


def _starting(pods: Sequence[Pod]) -> Finding | None:
    """Returns a pod that is not ready, for a Workspace without conditions of the workload."""
    pod = next((pod for pod in pods if not pod.is_ready), None)
    if pod is None:
        return None
    message = f"pod {pod.name} is {pod.status.phase or 'Pending'} and not ready"
    since = pod.metadata.creation_timestamp
    return Finding(
        cause=Cause(kind=pod.kind, name=pod.name, reason=POD_PENDING, message=message, since=since), pod=pod.name
    )


def _containers(pod: Pod) -> list[ContainerStatus]:
    return [*pod.status.init_container_statuses, *pod.status.container_statuses]
