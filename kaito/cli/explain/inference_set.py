"""Formats the diagnosis of an InferenceSet: its conditions, and the diagnoses of its Workspaces that are not ready."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from kaito.api import InferenceSet, conditions
from kaito.cli.explain.output import as_data, render, wrapped
from kaito.diagnosis import Diagnosis
from kaito.planning.style import Style
from kaito.runtime.meta import Condition, find_condition


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SetDiagnosis:
    """An InferenceSet, and why its Workspaces are not ready."""

    inference_set: InferenceSet
    workspaces: int
    """Number of its Workspaces that exist."""
    waiting: tuple[str, ...]
    """Names of those that are not ready."""
    diagnoses: Sequence[Diagnosis]
    """Of the first of these."""

    @property
    def is_healthy(self) -> bool:
        """Whether the set has all its Workspaces, and each is ready."""
        ready = find_condition(self.inference_set.status.conditions, conditions.INFERENCE_SET_READY)
        return ready is not None and ready.is_true and not self.waiting

    @property
    def summary(self) -> str:
        """How many Workspaces are ready."""
        ready = self.workspaces - len(self.waiting)
        return f"{ready} of {self.inference_set.spec.replicas} Workspaces ready"


def render_set(diagnosis: SetDiagnosis, style: Style, *, now: datetime, width: int) -> str:
    """Returns the text of the diagnosis of a set, and below it those of its Workspaces."""
    found = diagnosis.inference_set
    color = "green" if diagnosis.is_healthy else "red"
    head = style.paint(f"InferenceSet {found.namespace}/{found.name}: {diagnosis.summary}", color)
    parts = ["\n".join([head, "", *_lines(diagnosis, width)]).rstrip() + "\n"]
    parts += [render(each, style, now=now, width=width) for each in diagnosis.diagnoses]
    return "\n".join(parts)


def _lines(diagnosis: SetDiagnosis, width: int) -> Iterator[str]:
    for condition in _not_true(diagnosis.inference_set):
        yield from wrapped(f"{condition.type}: {condition.reason}: {condition.message}", "cause", width)
    scaling = diagnosis.inference_set.status.autoscaling
    if scaling is not None:
        yield from wrapped(f"autoscaling: {scaling.reason}: {scaling.message}", "note", width)
    others = diagnosis.waiting[len(diagnosis.diagnoses) :]
    if others:
        text = f"{len(others)} further Workspaces are not ready: kaito explain {others[0]}"
        yield from wrapped(f"{text} -n {diagnosis.inference_set.namespace}", "note", width)


def _not_true(inference_set: InferenceSet) -> list[Condition]:
    of_interest = (conditions.INFERENCE_SET_READY, conditions.INFERENCE_SET_UPDATED)
    return [each for each in inference_set.status.conditions if each.type in of_interest and not each.is_true]


def set_data(diagnosis: SetDiagnosis) -> dict[str, Any]:
    """Returns the diagnosis as plain data."""
    found = diagnosis.inference_set
    return {
        "inferenceSet": {"namespace": found.namespace, "name": found.name},
        "healthy": diagnosis.is_healthy,
        "summary": diagnosis.summary,
        "conditions": [
            {"type": each.type, "reason": each.reason, "message": each.message} for each in _not_true(found)
        ],
        "notReady": list(diagnosis.waiting),
        "workspaces": [as_data(each) for each in diagnosis.diagnoses],
    }
