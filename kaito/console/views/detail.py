"""Everything about one Workspace: the row, the diagnosis, the chain, Events, endpoints, cost and manifest."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import yaml

from kaito.api import Workspace, labels
from kaito.console.views.costs import Cost
from kaito.console.views.endpoints import endpoints
from kaito.console.views.gpus import gpu_links
from kaito.console.views.json_values import Json, number, time_text
from kaito.console.views.rows import row
from kaito.console.views.waterfall import waterfall
from kaito.diagnosis import Cause, Diagnosis, EventNote, Link, NextStep, Situation, count_of
from kaito.runtime.kinds import Event
from kaito.runtime.tracing import trace_id
from kaito.workspace.events import last_seen_at

MAX_EVENTS: Final = 100
"""Events in the list, the newest first."""

_SERVER_FIELDS: Final = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")


def detail(
    situation: Situation,
    diagnosis: Diagnosis,
    cost: Cost,
    *,
    now: datetime,
    direct_url: str | None = None,
    tuning: Json | None = None,
) -> Json:
    """Returns the detail.

    Args:
        situation: the objects of the Workspace.
        diagnosis: their diagnosis.
        cost: what the nodes cost.
        now: the current time.
        direct_url: address at which this machine reaches the Service, if there is one.
        tuning: what the tuning job reports.
    """
    workspace = situation.workspace
    inference = workspace.inference
    return {
        **row(situation, diagnosis, cost),
        "cause": _cause(diagnosis.cause) if diagnosis.cause is not None else None,
        "next": [_step(step) for step in diagnosis.next],
        "advice": list(diagnosis.advice),
        "notes": list(diagnosis.notes),
        "chain": [_link(link) for link in _with_gpus(situation, diagnosis.chain)],
        "waterfall": waterfall(situation, diagnosis),
        "traceId": trace_id(workspace.annotations.get(labels.TRACEPARENT, "")),
        "tuning": tuning,
        "adapters": [
            {"name": adapter.source.name, "strength": number(adapter.strength)}
            for adapter in (inference.adapters if inference is not None else [])
        ],
        "events": _events(situation.events),
        "endpoints": endpoints(situation, direct_url) if diagnosis.serving else None,
        "cost": {
            "hourly": number(cost.hourly),
            "accumulated": number(cost.accumulated(now)),
            "idle": number(cost.idle),
            "currency": cost.currency,
            "partial": bool(cost.unknown_nodes),
        },
        "yaml": manifest(workspace),
    }


def manifest(workspace: Workspace) -> str:
    """Returns the manifest that would create the Workspace again."""
    document = {**workspace.to_dict()}
    metadata = {name: value for name, value in document.get("metadata", {}).items() if name not in _SERVER_FIELDS}
    # The copy is another Workspace, with a trace of its own.
    annotations = {name: value for name, value in workspace.annotations.items() if name != labels.TRACEPARENT}
    metadata.pop("annotations", None)
    document |= {"metadata": metadata | ({"annotations": annotations} if annotations else {})}
    document.pop("status", None)
    ordered = {name: document.pop(name) for name in ("apiVersion", "kind", "metadata") if name in document}
    return yaml.safe_dump(ordered | document, sort_keys=False, allow_unicode=True)


def _with_gpus(situation: Situation, chain: Sequence[Link]) -> list[Link]:
    """Returns the chain with the GPUs behind the last node."""
    nodes = [index for index, link in enumerate(chain) if link.kind == "Node"]
    end = nodes[-1] + 1 if nodes else len(chain)
    return [*chain[:end], *(gpu_links(situation) if nodes else ()), *chain[end:]]


def _cause(cause: Cause) -> Json:
    return {
        "kind": cause.kind,
        "name": cause.name,
        "reason": cause.reason,
        "message": cause.message,
        "since": time_text(cause.since),
    }


def _step(step: NextStep) -> Json:
    return {"what": step.what, "at": time_text(step.at), "isRetry": step.is_retry}


def _link(link: Link) -> Json:
    return {
        "kind": link.kind,
        "name": link.name,
        "state": link.state,
        "summary": link.summary,
        "since": time_text(link.since),
        "created": time_text(link.created),
        "event": _note(link.event) if link.event is not None else None,
    }


def _note(note: EventNote) -> Json:
    return {
        "reason": note.reason,
        "note": note.note,
        "warning": note.warning,
        "at": time_text(note.at),
        "count": note.count,
    }


def _events(events: Sequence[Event]) -> list[Json]:
    newest = sorted(events, key=last_seen_at, reverse=True)[:MAX_EVENTS]
    return [
        {
            "at": time_text(last_seen_at(event)),
            "kind": event.regarding.kind,
            "name": event.regarding.name,
            "reason": event.reason,
            "note": event.note,
            "warning": event.type == "Warning",
            "count": count_of(event),
        }
        for event in newest
    ]
