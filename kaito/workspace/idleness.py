"""Decides when a Workspace without requests is scaled to zero: a pure function.

The order loses no request: first the activator is added to the endpoints of the Service (`hand_over`), then, when every
node routes to it and another poll still saw no request, the copies are removed. A pod that is removed finishes its
requests, and accepts new ones until every node has removed it from the endpoints.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, final

from kaito.api.workspace import ScalingStatus
from kaito.workspace.activity import POLL_SECONDS, Activity

HAND_OVER_SECONDS: Final = 10.0
"""Time from the addition of the activator to the endpoints until all nodes route to it. kube-proxy follows within a
second; the rest is margin for a node that is busy."""

MAX_POLL_AGE: Final = timedelta(seconds=2 * POLL_SECONDS)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IdleState:
    """Input of the decision."""

    now: datetime
    idle_seconds: int
    """Time without requests after which the Workspace is scaled to zero."""
    scaling: ScalingStatus | None
    """What the status contains."""
    is_ready: bool
    """Whether all copies are ready."""
    activity: Activity | None
    """Requests of the copies; None if unknown."""
    has_activator: bool
    """Whether a pod of the activator is ready."""
    handed_over_at: datetime | None
    """Since when the endpoints contain the activator; None if they do not."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IdleDecision:
    """What to do."""

    scaling: ScalingStatus
    """The new status."""
    hand_over: bool = False
    """Whether the endpoints shall contain the activator, although copies are ready."""
    scale_to_zero: bool = False
    requeue_at: datetime | None = None
    """When to decide again."""
    problem: str = ""
    """Why an idle Workspace is not scaled to zero."""


def decide_idle(state: IdleState) -> IdleDecision:
    """Decides for a Workspace whose copies run."""
    now, activity, scaling = state.now, state.activity, state.scaling or ScalingStatus()
    if not state.is_ready or activity is None:
        return IdleDecision(scaling=scaling)
    # Later times are those of a clock that was ahead: the copies would be kept until the clock reaches them.
    if scaling.last_activity_time is not None and scaling.last_activity_time > now:
        scaling = scaling.evolve(last_activity_time=None)
    if activity.changed_at is not None and activity.changed_at > now:
        activity = replace(activity, changed_at=None)
    last = _last_activity(scaling, activity, now)
    scaling, record_at = _recorded(scaling, activity, last, state)
    due = last + timedelta(seconds=state.idle_seconds)
    if now < due:
        return IdleDecision(scaling=scaling, requeue_at=min(due, record_at or due))
    if not state.has_activator:
        problem = "not scaled to zero, because no pod of the activator is ready"
        return IdleDecision(scaling=scaling, problem=problem, requeue_at=now + timedelta(seconds=60))
    again = now + timedelta(seconds=POLL_SECONDS)
    if now - activity.polled_at > MAX_POLL_AGE or state.handed_over_at is None:
        return IdleDecision(scaling=scaling, hand_over=True, requeue_at=again)
    routed_at = state.handed_over_at + timedelta(seconds=HAND_OVER_SECONDS)
    if activity.polled_at < routed_at:
        return IdleDecision(scaling=scaling, hand_over=True, requeue_at=max(routed_at, again))
    return IdleDecision(scaling=scaling, hand_over=True, scale_to_zero=True)


def _last_activity(scaling: ScalingStatus, activity: Activity, now: datetime) -> datetime:
    """Returns when the last request was noticed: by this process, else by an earlier one."""
    recorded = scaling.last_activity_time
    if activity.is_running or recorded is None:
        return now
    if activity.requests_seen != scaling.requests_seen:
        return activity.changed_at or now
    return max(recorded, activity.changed_at or recorded)


def _recorded(
    scaling: ScalingStatus, activity: Activity, last: datetime, state: IdleState
) -> tuple[ScalingStatus, datetime | None]:
    """Returns the status to write, and when it is written if that is later.

    While requests arrive, one write per idle time is enough: other counters than the recorded ones are activity for a
    process that starts. When they have stopped for a quarter of it, the time is recorded, so that a restart does not
    extend the idle time.
    """
    if scaling.last_activity_time is not None and scaling.requests_seen == activity.requests_seen:
        return scaling, None
    quiet_at = last + timedelta(seconds=state.idle_seconds / 4)
    recorded = scaling.last_activity_time
    is_old = recorded is None or state.now - recorded >= timedelta(seconds=state.idle_seconds)
    if state.now < quiet_at and not is_old:
        return scaling, quiet_at
    return scaling.evolve(last_activity_time=last.replace(microsecond=0), requests_seen=activity.requests_seen), None
