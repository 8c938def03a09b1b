"""Creates the instance of a claim from the first offering that the cloud accepts."""

from dataclasses import dataclass, field, replace

from kaito.cloud.errors import (
    CloudError,
    ErrorCategory,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    QuotaExceeded,
)
from kaito.cloud.provider import StartedOperation
from kaito.provisioner import launch_attempts, reasons
from kaito.provisioner.context import ReconcileContext
from kaito.provisioner.failures import retry_seconds
from kaito.provisioner.offerings import Candidate, Candidates, list_candidates
from kaito.provisioner.plan import LaunchPlan
from kaito.provisioner.unavailable_offerings import Unavailability

REQUESTS_PER_RECONCILE = 5
"""Creations sent in one reconcile; AKS allows 20 at once and then one per minute and agent pool."""

SHORTEST_RETRY_SECONDS = 1.0

_ERROR_TYPES: dict[ErrorCategory, type[CloudError]] = {
    ErrorCategory.QUOTA: QuotaExceeded,
    ErrorCategory.CAPACITY: InsufficientCapacity,
    ErrorCategory.SIZE: InstanceTypeUnavailable,
    ErrorCategory.ZONE: InstanceTypeUnavailable,
}


class NoOfferingAvailable(Exception):
    """Every offering of the claim is unavailable."""

    def __init__(self, error: CloudError, retry: float) -> None:
        super().__init__(str(error))
        self.error = error
        """The combined error of all offerings."""
        self.retry = retry
        """Seconds until the first of them may be tried again."""


@dataclass(slots=True)
class _Rejections:
    """Errors of the offerings that were tried or skipped, and the retry delay of each."""

    errors: list[CloudError] = field(default_factory=list[CloudError])
    delays: list[float] = field(default_factory=list[float])

    def add(self, error: CloudError, retry: float) -> None:
        self.errors.append(error)
        self.delays.append(retry)

    def combined(self) -> NoOfferingAvailable:
        retry = max(min(self.delays), SHORTEST_RETRY_SECONDS)
        return NoOfferingAvailable(launch_attempts.combine(self.errors), retry)


async def create_instance(ctx: ReconcileContext, plan: LaunchPlan) -> tuple[Candidate, StartedOperation] | None:
    """Requests the first offering that the cloud accepts; None if the next reconcile continues with further offerings.

    Raises:
        NoOfferingAvailable: every offering is unavailable.
        CloudError: the cloud rejected a request for a reason that does not concern the offering.
    """
    candidates = await list_candidates(ctx, plan)
    rejections, requests = _rejections(ctx, candidates), 0
    for candidate in _prioritized(ctx, candidates):
        unavailable = _unavailability(ctx, candidate)
        if unavailable is not None:
            rejections.add(*unavailable)
            continue
        try:
            await ctx.cloud.check_availability(candidate.instance)
        except CloudError as error:
            if not launch_attempts.is_about_offering(error):
                raise
            # Not marked as unavailable: the check costs no creation and is repeated by the next attempt.
            rejections.add(error, retry_seconds(error, 1, ctx.settings))
            continue
        if requests == REQUESTS_PER_RECONCILE:
            await launch_attempts.write_record(ctx)
            ctx.request.requeue_after(ctx.settings.poll_interval_seconds, "further offerings")
            return None
        requests += 1
        started = await _request(ctx, candidate, candidates, rejections)
        if started is not None:
            return candidate, started
    raise rejections.combined()


async def _request(
    ctx: ReconcileContext, candidate: Candidate, candidates: Candidates, rejections: _Rejections
) -> StartedOperation | None:
    """Sends the creation; None if the cloud does not have the offering."""
    try:
        started = await ctx.cloud.create(replace(candidate.instance, created=ctx.now))
    except CloudError as error:
        if not launch_attempts.is_about_offering(error):
            raise
        mark_unavailable(ctx, candidate, candidates, error)
        rejections.add(*(_unavailability(ctx, candidate) or (error, ctx.settings.poll_interval_seconds)))
        ctx.event(reasons.OFFER_REFUSED, f"{candidate.offering}: {error}", warning=True)
        return None
    ctx.deps.unavailable.start_probe(candidate.offering)
    return started


def mark_unavailable(ctx: ReconcileContext, candidate: Candidate, candidates: Candidates, error: CloudError) -> None:
    """Marks an offering as unavailable; a regional quota also rules out all instance types with as many vCPUs."""
    affected = [candidate]
    if error.regional and candidate.vcpus:
        affected += [
            other
            for other in candidates.accepted
            if other.offering != candidate.offering
            and other.offering.capacity == candidate.offering.capacity
            and other.vcpus >= candidate.vcpus
        ]
    for other in {other.offering.key_any_zone: other for other in reversed(affected)}.values():
        launch_attempts.mark_unavailable(ctx, other.offering, error)


def next_offering_seconds(ctx: ReconcileContext, candidates: Candidates) -> float:
    """Seconds until one of the offerings may be tried; 0 if one may be tried now."""
    delays = [unavailable[1] if (unavailable := _unavailability(ctx, c)) else 0.0 for c in candidates.accepted]
    errors = candidates.errors
    return min(delays, default=retry_seconds(errors[0], 1, ctx.settings) if errors else 0.0)


def has_other_offering(ctx: ReconcileContext, candidates: Candidates) -> bool:
    """Whether an offering is left that was not unavailable recently."""
    entries = [ctx.deps.unavailable.find(candidate.offering) for candidate in candidates.accepted]
    return any(entry is None or not entry.is_deprioritized for entry in entries)


def _rejections(ctx: ReconcileContext, candidates: Candidates) -> _Rejections:
    rejections = _Rejections()
    for error in candidates.errors:
        rejections.add(error, retry_seconds(error, 1, ctx.settings))
    return rejections


def _prioritized(ctx: ReconcileContext, candidates: Candidates) -> list[Candidate]:
    by_offering = {candidate.offering: candidate for candidate in candidates.accepted}
    return [by_offering[offering] for offering in ctx.deps.unavailable.prioritize(list(by_offering))]


def _unavailability(ctx: ReconcileContext, candidate: Candidate) -> tuple[CloudError, float] | None:
    """The error of an offering that must not be tried now, and the seconds until it may be tried."""
    entry = ctx.deps.unavailable.current(candidate.offering)
    if entry is None:
        return None
    return _to_error(candidate, entry), entry.retry_seconds


def _to_error(candidate: Candidate, entry: Unavailability) -> CloudError:
    error_type = _ERROR_TYPES.get(entry.category, InsufficientCapacity)
    return error_type(f"{candidate.offering}: {entry.message}", code=entry.code, category=entry.category)
