"""Starts a launch: requests the first offer that may succeed; when the cloud refuses it at once, the next one."""

from dataclasses import dataclass, field, replace

from kaito.cloud.errors import CloudError, InstanceTypeUnavailable, InsufficientCapacity, QuotaExceeded, Verdict
from kaito.cloud.provider import Started
from kaito.provisioner import attempts, reasons
from kaito.provisioner.context import Pass
from kaito.provisioner.failures import pause
from kaito.provisioner.ledger import Refusal
from kaito.provisioner.offers import Candidate, Choice, choice
from kaito.provisioner.plan import Plan

REQUESTS_PER_PASS = 5
"""Creations asked for in one pass, all but one refused; AKS allows 20 in a burst and one a minute per agent pool."""

SHORTEST_PAUSE_SECONDS = 1.0

_KINDS: dict[Verdict, type[CloudError]] = {
    Verdict.QUOTA: QuotaExceeded,
    Verdict.CAPACITY: InsufficientCapacity,
    Verdict.SIZE: InstanceTypeUnavailable,
    Verdict.ZONE: InstanceTypeUnavailable,
}


class NoOffer(Exception):
    """Every offer is refused."""

    def __init__(self, error: CloudError, retry: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry
        """Seconds until one of them may be tried again."""


@dataclass(slots=True)
class _Search:
    """The refusals of one search, and when the earliest of them ends."""

    refusals: list[CloudError] = field(default_factory=list[CloudError])
    waits: list[float] = field(default_factory=list[float])

    def add(self, error: CloudError, wait: float) -> None:
        self.refusals.append(error)
        self.waits.append(wait)

    def failure(self) -> NoOffer:
        return NoOffer(attempts.combined(self.refusals), max(min(self.waits), SHORTEST_PAUSE_SECONDS))


async def start(run: Pass, plan: Plan) -> tuple[Candidate, Started] | None:
    """Ask for the first offer that the cloud accepts; None when the search goes on in a later pass.

    Raises:
        NoOffer: every offer is refused.
        CloudError: the cloud refused for a reason that is not about the offer.
    """
    found = await choice(run, plan)
    search, requests = _begun(run, found), 0
    for candidate in _ordered(run, found):
        refused = _closed(run, candidate)
        if refused is not None:
            search.add(*refused)
            continue
        try:
            await run.cloud.check(candidate.instance)
        except CloudError as error:
            if not attempts.is_about_offer(error):
                raise
            search.add(
                error, pause(error, 1, run.settings)
            )  # found by reading, without a creation: it is not remembered
            continue
        if requests == REQUESTS_PER_PASS:
            await attempts.write_record(run)
            run.wake(run.settings.poll_interval, "further offers")
            return None
        requests += 1
        started = await _request(run, candidate, found, search)
        if started is not None:
            return candidate, started
    raise search.failure()


async def _request(run: Pass, candidate: Candidate, found: Choice, search: _Search) -> Started | None:
    """Send the creation; None when the cloud refuses the offer."""
    try:
        started = await run.cloud.create(replace(candidate.instance, created=run.now))
    except CloudError as error:
        if not attempts.is_about_offer(error):
            raise
        refuse_all_alike(run, candidate, found, error)
        search.add(*(_closed(run, candidate) or (error, run.settings.poll_interval)))
        run.event(reasons.OFFER_REFUSED, f"{candidate.offer}: {error}", warning=True)
        return None
    run.tools.ledger.probing(candidate.offer, run.now)
    return started


def refuse_all_alike(run: Pass, refused: Candidate, found: Choice, error: CloudError) -> None:
    """Remember a refusal; a region's quota that is too small for one size is so for every size as large."""
    alike = [refused]
    if error.regional and refused.vcpus:
        alike += [
            candidate
            for candidate in found.candidates
            if candidate.offer != refused.offer
            and candidate.offer.capacity == refused.offer.capacity
            and candidate.vcpus >= refused.vcpus
        ]
    for candidate in {candidate.offer.key_any_zone: candidate for candidate in reversed(alike)}.values():
        attempts.refuse(run, candidate.offer, error)


def next_offer_in(run: Pass, found: Choice) -> float:
    """Seconds until one of the offers is not refused any more; 0 when one is free now."""
    waits = [refused[1] if (refused := _closed(run, candidate)) else 0.0 for candidate in found.candidates]
    return min(waits, default=pause(found.refusals[0], 1, run.settings) if found.refusals else 0.0)


def _begun(run: Pass, found: Choice) -> _Search:
    search = _Search()
    for refusal in found.refusals:
        search.add(refusal, pause(refusal, 1, run.settings))
    return search


def _ordered(run: Pass, found: Choice) -> list[Candidate]:
    by_offer = {candidate.offer: candidate for candidate in found.candidates}
    return [by_offer[offer] for offer in run.tools.ledger.ordered(list(by_offer), run.now)]


def _closed(run: Pass, candidate: Candidate) -> tuple[CloudError, float] | None:
    """The refusal of an offer that is not tried now, as an error, and its seconds left."""
    refusal = run.tools.ledger.closed(candidate.offer, run.now)
    if refusal is None:
        return None
    return _as_error(candidate, refusal), (refusal.retry_at - run.now).total_seconds()


def _as_error(candidate: Candidate, refusal: Refusal) -> CloudError:
    kind = _KINDS.get(refusal.verdict, InsufficientCapacity)
    return kind(f"{candidate.offer}: {refusal.message}", code=refusal.code, verdict=refusal.verdict)
