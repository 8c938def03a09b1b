"""What the process remembers between reconciles: failed attempts of claims, and offers that the cloud refused.

An offer is one size in one zone with one capacity type. Refusals are shared between claims: when one claim
finds an offer out of stock, the next one does not try it. Attempts are keyed by claim UID. Both are written on their
claim (`kaito.provisioner.record`), so that a restart forgets nothing that cost money or requests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, final

from kaito.cloud.errors import CloudError, Verdict
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ConditionStatus

CapacityType = Literal["spot", "on-demand"]
ANY_ZONE = "*"

PROBE_SECONDS = 900.0
"""For so long only one claim tries an offer that was refused before; others wait for its result."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One size in one zone (empty: the cloud chooses) with one capacity type."""

    instance_type: str
    zone: str = ""
    capacity: CapacityType = "on-demand"

    @property
    def key(self) -> str:
        """The offer in the record of a claim."""
        return f"{self.instance_type.lower()}/{self.zone}/{self.capacity}"

    @property
    def key_any_zone(self) -> str:
        """The same in every zone."""
        return f"{self.instance_type.lower()}/{ANY_ZONE}/{self.capacity}"

    def __str__(self) -> str:
        """For conditions and events, for example `Standard_NC24ads_A100_v4 (spot, zone 3)`."""
        marks = ", ".join(
            mark
            for mark in ("spot" if self.capacity == "spot" else "", f"zone {self.zone}" if self.zone else "")
            if mark
        )
        return f"{self.instance_type} ({marks})" if marks else self.instance_type


@dataclass(slots=True)
class Refusal:
    """The cloud refused an offer, at creation or after it."""

    verdict: Verdict
    code: str
    message: str
    failures: int
    """Refusals in a row."""
    retry_at: datetime
    """No claim tries the offer before."""
    last_until: datetime
    """Until then the offer comes after those that were not refused."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the deletion of an instance stands: condition `InstanceTerminating`."""

    status: ConditionStatus
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class Attempt:
    """Failures in a row of one claim."""

    failures: int = 0
    troubles: int = 0
    """Requests in a row that the cloud did not answer usefully; one that it answers ends the row."""
    not_before: float = 0.0
    """Loop time before which the cloud is left alone."""
    last: str = ""
    """The last failure, for people: reason and the cloud's words."""
    refused: set[str] = field(default_factory=set[str])
    """Keys of the offers that were refused to this claim."""


@final
class Ledger:
    """Attempts by claim, refusals by offer."""

    def __init__(self) -> None:
        self.recalled = False
        """Whether the records on the claims were read."""
        self._attempts: dict[str, Attempt] = {}
        self._pace: dict[str, float] = {}
        self._refusals: dict[str, Refusal] = {}
        self._endings: dict[str, Ending] = {}
        self._deletions: dict[str, float] = {}

    # attempts of a claim

    def attempt(self, uid: str) -> Attempt:
        """The claim's attempts so far; to be changed in place."""
        return self._attempts.setdefault(uid, Attempt())

    def has_record(self, uid: str) -> bool:
        """Whether there is anything to remember about the claim's attempts."""
        attempt = self._attempts.get(uid)
        return attempt is not None and bool(attempt.failures or attempt.refused or attempt.last)

    def wait(self, uid: str) -> float:
        """Seconds until the next attempt is due; 0 when it is."""
        attempt = self._attempts.get(uid)
        return max(attempt.not_before - monotonic(), 0.0) if attempt else 0.0

    def failed(self, uid: str) -> int:
        """Count a failure; returns how many in a row there were."""
        attempt = self.attempt(uid)
        attempt.failures += 1
        return attempt.failures

    def troubled(self, uid: str) -> int:
        """Count a request without a useful answer; returns how many in a row there were."""
        attempt = self.attempt(uid)
        attempt.troubles += 1
        return attempt.troubles

    def untroubled(self, uid: str) -> None:
        """The cloud answered."""
        attempt = self._attempts.get(uid)
        if attempt is not None:
            attempt.troubles = 0

    def postpone(self, uid: str, seconds: float) -> None:
        """Leave the cloud alone for that long."""
        self.attempt(uid).not_before = monotonic() + seconds

    def keep_pace(self, uid: str, seconds: float | None) -> None:
        """The cloud said how often to look at the claim's operation; None leaves what it said before."""
        if seconds is not None:
            self._pace[uid] = seconds

    def pace(self, uid: str, default: float) -> float:
        """Seconds until the next look at the claim's operation."""
        return self._pace.get(uid, default)

    def forget(self, uid: str) -> None:
        """The claim is launched, or gone, or starts afresh."""
        for remembered in (self._attempts, self._pace, self._endings, self._deletions):
            remembered.pop(uid, None)

    # the end of a claim's instance

    def ending(self, uid: str, ending: Ending) -> None:
        """What the cloud answered to the deletion last."""
        self._endings[uid] = ending

    def ending_of(self, uid: str) -> Ending | None:
        """What the cloud answered to the deletion last; None before it was asked."""
        return self._endings.get(uid)

    def deletion_asked(self, uid: str) -> None:
        """The cloud accepted a deletion now."""
        self._deletions[uid] = monotonic()

    def deletion_asked_at(self, uid: str) -> float | None:
        """Loop time at which the cloud accepted a deletion last."""
        return self._deletions.get(uid)

    # refusals of offers

    def refuse(
        self, offer: Offer, error: CloudError, *, now: datetime, pause: Callable[[int], float], last: float
    ) -> tuple[str, Refusal]:
        """Remember that the cloud refused an offer; returns the refusal and its key.

        A lack of capacity and a missing zone are about the offer's zone; quota and permission to use a size are not.

        Args:
            offer: what was refused.
            error: why.
            now: the current time.
            pause: seconds until the next try, by how often it was refused in a row.
            last: seconds for which the offer comes after others.
        """
        in_zone = error.verdict in {Verdict.CAPACITY, Verdict.ZONE}
        key = offer.key if in_zone else offer.key_any_zone
        before = self._refusals.get(key)
        failures = before.failures + 1 if before is not None and before.verdict is error.verdict else 1
        wait = pause(failures)
        refusal = Refusal(
            error.verdict,
            error.code,
            error.message,
            failures,
            retry_at=now + timedelta(seconds=wait),
            last_until=now + timedelta(seconds=max(wait, last)),
        )
        self._refusals[key] = refusal
        return key, refusal

    def recall(self, key: str, refusal: Refusal) -> None:
        """Take over a refusal that a claim's record has; the later one wins."""
        before = self._refusals.get(key)
        if before is None or before.retry_at < refusal.retry_at:
            self._refusals[key] = refusal

    def refusal(self, offer: Offer) -> Refusal | None:
        """Why and until when the offer is refused; the later one of its zone's and its size's."""
        found = [self._refusals[key] for key in (offer.key, offer.key_any_zone) if key in self._refusals]
        return max(found, key=lambda refusal: refusal.retry_at, default=None)

    def closed(self, offer: Offer, now: datetime) -> Refusal | None:
        """The refusal because of which the offer is not tried now."""
        refusal = self.refusal(offer)
        return refusal if refusal is not None and refusal.retry_at > now else None

    def ordered(self, offers: Sequence[Offer], now: datetime) -> list[Offer]:
        """The offers in the order in which they are tried: as given, those refused a while ago last."""

        def was_refused(offer: Offer) -> bool:
            refusal = self.refusal(offer)
            return refusal is not None and refusal.last_until > now

        return sorted(offers, key=was_refused)

    def probing(self, offer: Offer, now: datetime) -> None:
        """A claim tries an offer that was refused before: the others wait for its result."""
        refusal = self.refusal(offer)
        if refusal is not None:
            refusal.retry_at = max(refusal.retry_at, now + timedelta(seconds=PROBE_SECONDS))

    def obtained(self, offer: Offer) -> None:
        """The cloud delivered."""
        for key in (offer.key, offer.key_any_zone):
            self._refusals.pop(key, None)

    def reopen(self, keys: Iterable[str]) -> None:
        """Try the offers with these keys again without waiting."""
        for key in keys:
            self._refusals.pop(key, None)

    def quota_freed(self) -> None:
        """An instance is gone: offers that were refused for quota may be tried again."""
        self._refusals = {
            key: refusal for key, refusal in self._refusals.items() if refusal.verdict is not Verdict.QUOTA
        }

    def refusals(self, keys: Iterable[str]) -> dict[str, Refusal]:
        """Those of the offers with these keys."""
        return {key: self._refusals[key] for key in keys if key in self._refusals}
