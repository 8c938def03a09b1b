"""Decides how many nodes the NodePool of a Workspace has: a pure function of pool, claims, record and time.

Karpenter replaces a lost claim of a static pool at once and without a limit. After the second loss in a row, the pool
is therefore reduced to the claims that have an instance, for 30, 60, 120 s and so on up to 15 minutes, so that a cloud
that refuses every launch is not asked in a loop. A smaller number of nodes that the user requests reaches the pool here
only as far as claims have no instance; `steps.surplus` lowers it further when nodes run no pod any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, final

from kaito.api import Claim
from kaito.workspace.alternatives import has_launched
from kaito.workspace.claim_policy import MAX_FAILURES, STABLE_SECONDS, ProvisionAttempts, backoff_after, is_stable

FREE_FAILURES: Final = 1
"""Losses in a row that Karpenter replaces without a pause: a node that was deleted by hand is replaced at once."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """Input of the decision."""

    now: datetime
    wanted: int
    """Number of nodes that the Workspace needs from the pool."""
    replicas: int | None
    """Number of nodes in the pool's spec; None if the pool does not exist."""
    claims: Sequence[Claim]
    """Claims of the pool that are not being deleted."""
    attempts: ProvisionAttempts
    """Record of the losses."""
    expected: frozenset[str] = frozenset()
    """Names of the claims that existed at the end of the last reconcile."""
    ready_since: datetime | None = None
    """Since when claims and nodes were all Ready at the end of the last reconcile; None if they were not."""
    not_before: datetime | None = None
    """Earliest time at which the pool may grow, because of a limit of the cost or of the cloud; None for now."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDecision:
    """What to do about the pool."""

    replicas: int | None
    """Number of nodes for the pool's spec; None if no pool is created now."""
    attempts: ProvisionAttempts = field(default_factory=ProvisionAttempts)
    """The new record; it must be written before the pool grows."""
    grows: bool = False
    """Whether the pool gets more nodes than it has now."""
    lost: tuple[str, ...] = ()
    """Names of the claims whose loss this decision counts."""
    next_creation_at: datetime | None = None
    """When the pool may grow; None if nothing is missing, or if it may now."""
    requeue_at: datetime | None = None
    """When to decide again."""


def decide_pool(state: PoolState) -> PoolDecision:
    """Decides about the pool of a Workspace."""
    attempts = state.attempts.not_in_future(state.now)
    names = {claim.name for claim in state.claims}
    if _launched(state) >= state.wanted:
        # Also if claims have other names than before: Karpenter replaces a node after the new one is Ready.
        attempts, stable_at = _after_success(state, attempts)
        return _decision(state, attempts, stable_at)
    lost: tuple[str, ...] = ()
    paused_until = _paused_until(attempts)
    if paused_until is None or paused_until <= state.now:
        # Claims that end in a pause are those that this policy gave up.
        lost = tuple(sorted(state.expected - names - set(attempts.lost)))
    if lost:
        failures = 1 if is_stable(state.ready_since, state.now) else min(attempts.failures + 1, MAX_FAILURES)
        attempts = ProvisionAttempts(
            serial=attempts.serial, failures=failures, backoff_started_at=state.now, lost=lost, cause=attempts.cause
        )
    decision = _decision(state, attempts, None)
    return replace(decision, lost=lost)


def pause_of(attempts: ProvisionAttempts) -> timedelta:
    """Returns for how long the pool does not grow after the last loss."""
    counted = attempts.failures - FREE_FAILURES
    return backoff_after(counted) if counted > 0 else timedelta()


def _paused_until(attempts: ProvisionAttempts) -> datetime | None:
    started = attempts.backoff_started_at
    return started + pause_of(attempts) if started is not None else None


def _decision(state: PoolState, attempts: ProvisionAttempts, stable_at: datetime | None) -> PoolDecision:
    launched = _launched(state)
    times = (_paused_until(attempts), state.not_before)
    due = max((time for time in times if time is not None), default=None)
    must_wait = due is not None and due > state.now
    missing = state.wanted > launched
    current = state.replicas or 0
    if missing and must_wait:
        nodes = min(current, launched)
    elif state.wanted >= current:
        nodes = current if must_wait else state.wanted
    else:
        nodes = min(current, max(state.wanted, launched))
    held = due if must_wait and (missing or state.wanted > current) else None
    requeue = [time for time in (held, stable_at) if time is not None]
    return PoolDecision(
        replicas=None if state.replicas is None and not nodes else nodes,
        attempts=attempts,
        grows=nodes > current,
        next_creation_at=held,
        requeue_at=min(requeue, default=None),
    )


def _launched(state: PoolState) -> int:
    """Returns the number of claims with an instance.

    The others do not count: Karpenter creates the next claim so fast that the loss of one would not be noticed.
    """
    return sum(has_launched(claim) for claim in state.claims)


def _after_success(state: PoolState, attempts: ProvisionAttempts) -> tuple[ProvisionAttempts, datetime | None]:
    """Returns the record if no claim is missing, and the earliest time at which it can be reset."""
    if not attempts.failures or not all(claim.is_ready for claim in state.claims):
        return attempts, None
    if is_stable(state.ready_since, state.now):
        return ProvisionAttempts(serial=attempts.serial), None
    return attempts, (state.ready_since or state.now) + timedelta(seconds=STABLE_SECONDS)
