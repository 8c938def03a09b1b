"""Computes the conditions of an InferenceSet from what a reconcile observed: a pure function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, final

from kaito.api import conditions
from kaito.runtime.client import ConditionUpdate
from kaito.workspace.failure import shorten
from kaito.workspace.inference_sets.children import Child
from kaito.workspace.inference_sets.rollout import Bounds, NodeBudget

MAX_CAUSES: Final = 3
"""Number of Workspaces whose causes a message contains."""

Problem = tuple[str, str]
"""Reason and message."""


@final
@dataclass(slots=True, kw_only=True)
class SetState:
    """What one reconcile observed and did."""

    replicas: int
    children: Sequence[Child] | None = None
    """None before they were listed."""
    requests: Mapping[str, float] | None = None
    """Running and waiting requests by name of the Workspace, as far as they are known; None if they were not read."""
    bounds: Bounds = field(default_factory=Bounds)
    budget: NodeBudget = field(default_factory=NodeBudget)
    is_limited: bool = False
    """Whether the node limit prevents a Workspace from being created."""
    invalid: Problem | None = None
    """Why the set is not acted on."""
    service: Problem | None = None
    """Why the Service of the set does not exist."""
    routed: ConditionUpdate | None = None
    """The condition about the route of a Gateway; None without one."""
    upgrade_at: datetime | None = None
    """When the next window for upgrades opens; None without a window."""
    refused: Problem | None = None
    """Why a Workspace could not be created or changed."""

    @property
    def live(self) -> list[Child]:
        """The Workspaces that are not being deleted."""
        return [child for child in self.children or () if not child.is_deleting]

    @property
    def serving(self) -> int:
        """Number of Workspaces that serve."""
        return sum(child.is_serving for child in self.live)

    @property
    def drifted(self) -> int:
        """Number of Workspaces whose pods are of an earlier release."""
        return sum(bool(child.pending) for child in self.live)

    @property
    def updated(self) -> int:
        """Number of Workspaces with the current template."""
        return sum(child.change == "none" for child in self.live)


def condition_updates(state: SetState, error: str = "") -> list[ConditionUpdate]:
    """Returns the conditions of a set that is not being deleted.

    Args:
        state: what the reconcile observed and did.
        error: why the reconcile failed; empty if it did not.
    """
    routed = [state.routed] if state.routed is not None else []
    return [_ready(state, error), _updated(state, error), *routed]


def node_limit_message(budget: NodeBudget, children: Sequence[Child]) -> str:
    """Returns why no further Workspace is created."""
    each = budget.per_workspace or 0
    used = sum(child.nodes or each for child in children)
    plural = "" if each == 1 else "s"
    return (
        f"another workspace needs {each} node{plural}, and {used} of at most {budget.limit} are in use: raise "
        "spec.nodeCountLimit, or lower spec.replicas"
    )


def _ready(state: SetState, error: str) -> ConditionUpdate:
    kind = conditions.INFERENCE_SET_READY
    if state.children is None:
        message = error or "the workspaces have not been observed yet"
        return ConditionUpdate.unknown(kind, conditions.RECONCILE_ERROR if error else conditions.PENDING, message)
    count = f"{state.serving} of {state.replicas} workspaces serve"
    problems = [problem for problem in (state.invalid, state.refused, _limit(state)) if problem is not None]
    if state.service is not None:
        return ConditionUpdate.false(kind, state.service[0], f"{count}; {state.service[1]}")
    if state.serving >= state.replicas:
        warnings = [message for _, message in problems[:1]] + ([error] if error else [])
        return ConditionUpdate.true(kind, kind, "; warning: ".join((count, *warnings)))
    if problems:
        reason, message = problems[0]
        return ConditionUpdate.false(kind, reason, f"{count}; {message}")
    causes = _causes([child for child in state.live if not child.is_serving])
    if error:
        return ConditionUpdate.false(kind, conditions.RECONCILE_ERROR, "; ".join((count, error, *causes)))
    return ConditionUpdate.false(kind, conditions.INFERENCE_SET_NOT_READY, "; ".join((count, *causes)))


def _limit(state: SetState) -> Problem | None:
    if not state.is_limited:
        return None
    return conditions.NODE_LIMIT_REACHED, node_limit_message(state.budget, state.children or ())


def _updated(state: SetState, error: str) -> ConditionUpdate:
    kind = conditions.INFERENCE_SET_UPDATED
    if state.children is None:
        message = error or "the workspaces have not been observed yet"
        return ConditionUpdate.unknown(kind, conditions.RECONCILE_ERROR if error else conditions.PENDING, message)
    count = f"{state.updated} of {len(state.live)} workspaces have the current template"
    if error:
        return ConditionUpdate.unknown(kind, conditions.RECONCILE_ERROR, f"{count}; {error}")
    outdated = [child for child in state.live if child.change != "none"]
    for problem in (state.invalid, state.refused):
        if problem is not None:
            return ConditionUpdate.false(kind, problem[0], f"{count}; {problem[1]}")
    if not outdated:
        unsettled = [child for child in state.live if not child.is_settled]
        if not unsettled:
            return ConditionUpdate.true(kind, kind, count + _describe_drift(state))
        return ConditionUpdate.false(kind, conditions.UPDATING, "; ".join((count, *_causes(unsettled))))
    if state.bounds.is_manual:
        names = ", ".join(child.name for child in outdated[:MAX_CAUSES])
        message = f"{count}; delete {names} to replace them"
        return ConditionUpdate.false(kind, conditions.UPDATE_ON_DELETE, message)
    limit = _limit(state)
    if limit is not None:
        return ConditionUpdate.false(kind, limit[0], f"{count}; {limit[1]}")
    unready = [child for child in state.live if child.change == "none" and not child.is_settled]
    return ConditionUpdate.false(kind, conditions.UPDATING, "; ".join((count, *_causes(unready))))


def _describe_drift(state: SetState) -> str:
    """Returns that pods of an earlier release wait for an upgrade, as the end of a message."""
    if not state.drifted:
        return ""
    if state.upgrade_at is None:
        until = "set spec.autoUpgrade.enabled, or change the template"
    else:
        until = f"they are upgraded at {state.upgrade_at.strftime('%Y-%m-%dT%H:%M:%SZ')}"
    return f"; {state.drifted} have the pods of an earlier release: {until}"


def _causes(children: Sequence[Child]) -> list[str]:
    """Returns why Workspaces are not ready, those with a known cause first."""
    shown = [f"{child.name}: {shorten(child.cause, 400)}" for child in children[:MAX_CAUSES] if child.cause]
    rest = len(children) - len(shown)
    return [*shown, f"and {rest} more"] if rest > 0 and shown else shown
