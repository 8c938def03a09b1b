"""The plan of a draft Workspace."""

from collections.abc import Sequence

from kaito.api import Claim, labels
from kaito.console.views.json_values import Json, number
from kaito.models.memory import GpuMemory
from kaito.planning.comparison import Change
from kaito.planning.report import PlanReport
from kaito.planning.style import Style
from kaito.planning.text import render
from kaito.workspace.preflight import Finding
from kaito.workspace.preview import PLACEHOLDER_UID


def plan_json(report: PlanReport, ready_after: Json | None) -> Json:
    """Returns the plan of one Workspace. `ready_after`: how long it is expected to take; None if that is unknown."""
    found, price = report.preview, report.price.cost if report.price is not None else None
    hardware = found.plan.hardware if found.plan is not None else None
    memory = report.memory
    return {
        "ok": not report.is_refused,
        "refusals": [_refusal(finding) for finding in found.errors],
        "nodes": hardware.count if hardware is not None else None,
        "instanceType": hardware.instance_type if hardware is not None else None,
        "memory": _memory(memory) if memory is not None else [],
        "gpuBytes": round(memory.total) if memory is not None else None,
        "hourly": number(price.per_hour) if price is not None else None,
        "monthly": number(price.per_month) if price is not None else None,
        "currency": price.price.currency if price is not None else "",
        "timeToReady": ready_after if not report.is_refused else None,
        "objects": [_object(change) for change in report.changes] if not report.is_refused else [],
        "warnings": [*map(_warning, report.warnings), *report.notes],
        "text": render(report, Style(), compared=True),
    }


def refused(refusals: Sequence[tuple[str, str]]) -> Json:
    """Returns the plan of a draft that is not a Workspace, from fields and messages."""
    return {
        "ok": False,
        "refusals": [{"field": field, "message": message} for field, message in refusals],
        "nodes": None,
        "instanceType": None,
        "memory": [],
        "gpuBytes": None,
        "hourly": None,
        "monthly": None,
        "currency": "",
        "timeToReady": None,
        "objects": [],
        "warnings": [],
        "text": "".join(f"{field}: {message}\n" if field else f"{message}\n" for field, message in refusals),
    }


def _object(change: Change) -> Json:
    """Returns an object; the name of a claim depends on the UID of a Workspace that does not exist yet."""
    is_named = not isinstance(change.object, Claim) or change.object.labels.get(labels.WORKSPACE_UID) != PLACEHOLDER_UID
    return {"kind": change.object.kind, "name": change.object.name if is_named else "", "action": change.action}


def _refusal(finding: Finding) -> Json:
    return {"field": finding.field, "message": finding.message}


def _warning(finding: Finding) -> str:
    return f"{finding.field}: {finding.message}" if finding.field else finding.message


def _memory(memory: GpuMemory) -> list[Json]:
    parts = {
        "weights": memory.weights,
        "adapters": memory.adapters,
        "state": memory.state,
        "key-value cache": memory.cache,
        "overhead": memory.overhead,
        "free": max(memory.free, 0.0),
        "reserved": max(memory.total - memory.usable, 0.0),
    }
    return [{"part": name, "bytes": round(size)} for name, size in parts.items() if round(size)]
