"""Rows of workloads in `kubectl get` (`kubernetes/pkg/printers/internalversion/printers.go`)."""

from __future__ import annotations

from datetime import datetime

from kaito.apiserver.printers.cells import (
    Cells,
    age_of,
    condition_states,
    container_cells,
    format_labels,
    format_selector,
    name_of,
    number_at,
    text_at,
)
from kaito.apiserver.printers.pods import pod_cells
from kaito.apiserver.schema.durations import age, human_duration, parse_time
from kaito.apiserver.wire import Json, Object, lookup


def _deployment(data: Object, now: datetime) -> list[Json]:
    ready = f"{number_at(data, 'status', 'readyReplicas')}/{number_at(data, 'spec', 'replicas')}"
    fresh, available = number_at(data, "status", "updatedReplicas"), number_at(data, "status", "availableReplicas")
    names, images = container_cells(data, "spec", "template", "spec")
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [name_of(data), ready, fresh, available, age_of(data, now), names, images, selector]


def _stateful_set(data: Object, now: datetime) -> list[Json]:
    ready = f"{number_at(data, 'status', 'readyReplicas')}/{number_at(data, 'spec', 'replicas')}"
    return [name_of(data), ready, age_of(data, now), *container_cells(data, "spec", "template", "spec")]


def _replica_set(data: Object, now: datetime) -> list[Json]:
    counts = [
        number_at(data, "spec", "replicas"),
        number_at(data, "status", "replicas"),
        number_at(data, "status", "readyReplicas"),
    ]
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [name_of(data), *counts, age_of(data, now), *container_cells(data, "spec", "template", "spec"), selector]


def _daemon_set(data: Object, now: datetime) -> list[Json]:
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    counts = [number_at(data, "status", field) for field in fields]
    nodes = format_labels(lookup(data, ("spec", "template", "spec", "nodeSelector")))
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [
        name_of(data),
        *counts,
        nodes,
        age_of(data, now),
        *container_cells(data, "spec", "template", "spec"),
        selector,
    ]


def _job(data: Object, now: datetime) -> list[Json]:
    done, wanted = number_at(data, "status", "succeeded"), lookup(data, ("spec", "completions"))
    parallel = number_at(data, "spec", "parallelism")
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    conditions = condition_states(data)
    status = next((word for kind, word in _JOB_STATES if conditions.get(kind) == "True"), "Running")
    if data["metadata"].get("deletionTimestamp") and status not in {"Complete", "Failed"}:
        status = "Terminating"
    started = parse_time(lookup(data, ("status", "startTime")))
    ended = parse_time(lookup(data, ("status", "completionTime"))) or now
    took = "" if started is None else human_duration((ended - started).total_seconds())
    selector = format_selector(lookup(data, ("spec", "selector")))
    names, images = container_cells(data, "spec", "template", "spec")
    return [name_of(data), status, completions, took, age_of(data, now), names, images, selector]


_JOB_STATES = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)


def _cron_job(data: Object, now: datetime) -> list[Json]:
    last = lookup(data, ("status", "lastScheduleTime"))
    template = ("spec", "jobTemplate", "spec", "template", "spec")
    suspend = lookup(data, ("spec", "suspend"))
    return [
        name_of(data),
        text_at(data, "spec", "schedule"),
        text_at(data, "spec", "timeZone", default="<none>"),
        "<unset>" if suspend is None else str(bool(suspend)),
        len(lookup(data, ("status", "active")) or ()),
        age(last, now) if last else "<none>",
        age_of(data, now),
        *container_cells(data, *template),
        "<none>",
    ]


def _pod_template(data: Object, _now: datetime) -> list[Json]:
    labels = format_labels(lookup(data, ("template", "metadata", "labels")))
    return [name_of(data), *container_cells(data, "template", "spec"), labels]


def _revision(data: Object, now: datetime) -> list[Json]:
    owners: list[Object] = data["metadata"].get("ownerReferences") or []
    owner = next((item for item in owners if item.get("controller")), None)
    shown = "<none>"
    if owner is not None:
        group = str(owner.get("apiVersion", "")).rpartition("/")[0]
        shown = f"{str(owner.get('kind')).lower()}{'.' + group if group else ''}/{owner.get('name')}"
    return [name_of(data), shown, data.get("revision", 0), age_of(data, now)]


WORKLOADS: dict[str, Cells] = {
    "pods": pod_cells,
    "podtemplates": _pod_template,
    "deployments.apps": _deployment,
    "statefulsets.apps": _stateful_set,
    "replicasets.apps": _replica_set,
    "replicationcontrollers": _replica_set,
    "daemonsets.apps": _daemon_set,
    "controllerrevisions.apps": _revision,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
}
"""By storage name."""
