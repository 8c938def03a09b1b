"""Decides the number of copies from the load of the last minutes: a pure function.

Each observation recommends a number of copies: the largest of those that the targets require. Copies are added when
all recommendations of the window for scaling up are above the present number, and removed when all of the window for
scaling down are below it, so that a short peak or a short pause changes nothing. Steps are bounded per minute.

The number of copies that the requests require does not depend on the copies that exist, and ratios are those of the
copies that are ready. A copy that starts, for which a node may take minutes, is therefore not counted twice: the same
load recommends the same number. Copies are removed only while the load of every ready copy is known, now and for most
of the window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, final

from kaito.workspace.scaling.load import Observation

KNOWN_SHARE: Final = 0.8
"""Share of the observations of a window in which the load of every ready copy must be known to remove one. A copy that
became ready is unknown until its first poll, and a poll may fail."""

TOLERANCE: Final = 0.1
"""Relative deviation from a target of a ratio that changes nothing, as in a HorizontalPodAutoscaler."""

Reason = Literal["Load", "Limit", "Schedule", "Steady", "Stabilizing", "UnknownLoad", "RateLimited"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the user requests, and defaults. Numbers of replicas are of Workspaces, or of the copies of a Workspace."""

    least: int
    most: int
    requests: float | None = None
    """Target of running and waiting requests for each copy."""
    queue_seconds: float | None = None
    """Target of the mean time in the queue."""
    cache_usage: float | None = None
    """Target of the used share of the key-value cache, 0 to 1."""
    up_seconds: float = 30.0
    """Window for scaling up."""
    down_seconds: float = 600.0
    """Window for scaling down."""
    up_step: int = 4
    """Copies that may be added per minute."""
    down_step: int = 1
    """Copies that may be removed per minute."""
    copies_per_replica: int = 1
    """Copies of each Workspace of an InferenceSet; 1 for a Workspace, whose replicas are its copies."""
    scheduled: int = 0
    """Fewest copies of the schedule at this time; 0 for none."""

    @property
    def floor(self) -> int:
        """Fewest copies now."""
        return min(max(self.least, self.scheduled), self.most)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The number of copies, and why."""

    replicas: int
    reason: Reason
    message: str


def decide(
    replicas: int,
    history: Sequence[Observation],
    policy: Policy,
    *,
    now: datetime,
    last_change: datetime | None = None,
) -> Decision:
    """Returns the number of copies to request.

    Args:
        replicas: the number that is requested at present.
        history: observations, oldest first.
        policy: targets, windows and limits.
        now: the current time.
        last_change: when the number was last changed; it bounds the steps.
    """
    if not policy.floor <= replicas <= policy.most:
        return _limited(replicas, policy)
    recent = _since(history, now, policy.down_seconds)
    if not recent or not recent[-1].reported:
        return Decision(replicas=replicas, reason="UnknownLoad", message="no ready copy has reported its load")
    rising, cause = min(_recommended(each, policy) for each in _since(history, now, policy.up_seconds))
    if rising > replicas:
        return _step_up(replicas, min(rising, policy.most), cause, policy, now, last_change)
    is_covered = history[0].at <= now - timedelta(seconds=policy.down_seconds)
    return _consider_down(replicas, recent, policy, now, last_change, is_covered=is_covered)


def _limited(replicas: int, policy: Policy) -> Decision:
    if replicas > policy.most:
        return Decision(replicas=policy.most, reason="Limit", message=f"maxReplicas is {policy.most}")
    if policy.scheduled > policy.least:
        message = f"the schedule requires {policy.scheduled} copies now"
        return Decision(replicas=policy.floor, reason="Schedule", message=message)
    return Decision(replicas=policy.floor, reason="Limit", message=f"minReplicas is {policy.least}")


def _since(history: Sequence[Observation], now: datetime, seconds: float) -> Sequence[Observation]:
    """Returns the observations of a window; the last one alone if the window is shorter than the interval."""
    return [each for each in history if each.at >= now - timedelta(seconds=seconds)] or history[-1:]


def _recommended(seen: Observation, policy: Policy) -> tuple[int, str]:
    """Returns the number of replicas for the load at one time, and its cause."""
    found: list[tuple[int, str]] = [(policy.floor * policy.copies_per_replica, "no load")]
    if policy.requests:
        # Copies that did not report have the load of the others.
        total = seen.requests * (seen.copies / seen.reported if seen.reported else 1.0)
        cause = f"{total:.0f} requests run or wait, and the target is {policy.requests:g} for each copy"
        found.append((math.ceil(total / policy.requests - 1e-9), cause))
    if policy.queue_seconds and seen.queue_seconds is not None:
        cause = f"requests wait {seen.queue_seconds:.1f} s, and the target is {policy.queue_seconds:g} s"
        found.append((_by_ratio(seen.copies, seen.queue_seconds / policy.queue_seconds), cause))
    if policy.cache_usage and seen.cache_usage is not None:
        used, target = seen.cache_usage * 100, policy.cache_usage * 100
        cause = f"{used:.0f} % of the key-value cache is used, and the target is {target:.0f} %"
        found.append((_by_ratio(seen.copies, seen.cache_usage / policy.cache_usage), cause))
    copies, cause = max(found, key=lambda each: each[0])
    return max(math.ceil(copies / policy.copies_per_replica), policy.floor), cause


def _by_ratio(copies: int, ratio: float) -> int:
    """Returns the copies with which a mean reaches its target; at most twice as many, because a mean of a queue grows
    without a limit."""
    if abs(ratio - 1) <= TOLERANCE:
        return copies
    return math.ceil(copies * min(ratio, 2.0) - 1e-9)


def _step_up(
    replicas: int, wanted: int, cause: str, policy: Policy, now: datetime, last_change: datetime | None
) -> Decision:
    if wanted <= replicas:
        return Decision(replicas=replicas, reason="Limit", message=f"{cause}; maxReplicas is {policy.most}")
    if _is_too_soon(now, last_change):
        return Decision(
            replicas=replicas, reason="RateLimited", message=f"{cause}; the last step was less than 60 s ago"
        )
    return Decision(replicas=min(wanted, replicas + _step(policy.up_step, policy)), reason="Load", message=cause)


def _consider_down(
    replicas: int,
    recent: Sequence[Observation],
    policy: Policy,
    now: datetime,
    last_change: datetime | None,
    *,
    is_covered: bool,
) -> Decision:
    """Decides whether to remove copies.

    Args:
        replicas: the number that is requested at present.
        recent: the observations of the window.
        policy: targets, windows and limits.
        now: the current time.
        last_change: when the number was last changed.
        is_covered: whether the history is as long as the window.
    """
    wanted, cause = max(_recommended(each, policy) for each in recent)
    latest, latest_cause = _recommended(recent[-1], policy)
    if latest >= replicas:
        return Decision(replicas=replicas, reason="Steady", message=latest_cause)
    known = [each.is_complete and _knows_targets(each, policy) for each in recent]
    if not known[-1] or sum(known) < KNOWN_SHARE * len(known):
        message = "the load of some copies is unknown, so that no copy is removed"
        return Decision(replicas=replicas, reason="UnknownLoad", message=message)
    if wanted >= replicas or not is_covered:
        message = f"{latest_cause}; copies are removed after {policy.down_seconds:.0f} s with less load"
        return Decision(replicas=replicas, reason="Stabilizing", message=message)
    if _is_too_soon(now, last_change):
        return Decision(
            replicas=replicas, reason="RateLimited", message=f"{cause}; the last step was less than 60 s ago"
        )
    least = max(wanted, replicas - _step(policy.down_step, policy), policy.floor)
    return Decision(replicas=least, reason="Load", message=cause)


def _step(copies: int, policy: Policy) -> int:
    """Returns the replicas that may be added or removed per minute, at least one."""
    return max(copies // policy.copies_per_replica, 1)


def _knows_targets(seen: Observation, policy: Policy) -> bool:
    """Whether every value that has a target is known."""
    return not (policy.queue_seconds and seen.queue_seconds is None) and not (
        policy.cache_usage and seen.cache_usage is None
    )


def _is_too_soon(now: datetime, last_change: datetime | None) -> bool:
    # A later time was recorded with a clock that was ahead.
    return last_change is not None and abs((now - last_change).total_seconds()) < 60.0
