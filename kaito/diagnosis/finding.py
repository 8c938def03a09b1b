"""One possible root cause: what the modules `deletion`, `resources` and `workload` return."""

from dataclasses import dataclass
from typing import final

from kaito.diagnosis.result import Cause, NextStep
from kaito.diagnosis.situation import Situation, without_next_time
from kaito.runtime.meta import Condition, Resource


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cause with its timed next steps, and the objects that the advice names."""

    cause: Cause
    next: tuple[NextStep, ...] = ()
    progress: bool | None = None
    """Whether it is a normal part of a start; None if the advice of the reason decides."""
    claim: str = ""
    node: str = ""
    pod: str = ""


def cause_of(situation: Situation, obj: Resource, condition: Condition) -> Cause:
    """Returns the cause that a condition of an object reports."""
    return Cause(
        kind=obj.kind,
        name=obj.name,
        reason=condition.reason or condition.type,
        message=without_next_time(condition.message),
        since=situation.since(obj, condition),
    )


def workspace_finding(situation: Situation, condition: Condition, *, next_steps: tuple[NextStep, ...] = ()) -> Finding:
    """Returns the finding that a condition of the Workspace reports."""
    return Finding(cause=cause_of(situation, situation.workspace, condition), next=next_steps)
