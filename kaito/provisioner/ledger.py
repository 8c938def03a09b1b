"""What the process remembers between reconciles: failed attempts of claims, when to try again, sizes that ran out.

Losing it costs one early attempt after a restart, nothing else: everything that matters is in the cluster and in the
cloud. Keys are claim UIDs.
"""

from dataclasses import dataclass
from typing import final

from kaito.runtime.clock import monotonic


@dataclass(slots=True)
class Attempt:
    """Failures in a row of one claim."""

    failures: int = 0
    troubles: int = 0
    """Requests in a row that the cloud did not answer usefully; one that it answers ends the row."""
    not_before: float = 0.0
    """Loop time before which the cloud is left alone."""


@final
class Ledger:
    """Attempts by claim."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._pace: dict[str, float] = {}
        self._out_of_stock: dict[str, float] = {}

    def wait(self, uid: str) -> float:
        """Seconds until the next attempt is due; 0 when it is."""
        attempt = self._attempts.get(uid)
        return max(attempt.not_before - monotonic(), 0.0) if attempt else 0.0

    def failed(self, uid: str) -> int:
        """Count a failure; returns how many in a row there were."""
        attempt = self._attempts.setdefault(uid, Attempt())
        attempt.failures += 1
        return attempt.failures

    def troubled(self, uid: str) -> int:
        """Count a request without a useful answer; returns how many in a row there were."""
        attempt = self._attempts.setdefault(uid, Attempt())
        attempt.troubles += 1
        return attempt.troubles

    def untroubled(self, uid: str) -> None:
        """The cloud answered."""
        attempt = self._attempts.get(uid)
        if attempt is not None:
            attempt.troubles = 0

    def failures(self, uid: str) -> int:
        """Failures in a row so far."""
        attempt = self._attempts.get(uid)
        return attempt.failures if attempt else 0

    def postpone(self, uid: str, seconds: float) -> None:
        """Leave the cloud alone for that long."""
        self._attempts.setdefault(uid, Attempt()).not_before = monotonic() + seconds

    def keep_pace(self, uid: str, seconds: float | None) -> None:
        """The cloud said how often to look at the claim's operation; None leaves what it said before."""
        if seconds is not None:
            self._pace[uid] = seconds

    def pace(self, uid: str, default: float) -> float:
        """Seconds until the next look at the claim's operation."""
        return self._pace.get(uid, default)

    def out_of_stock(self, instance_type: str, seconds: float) -> None:
        """The cloud had no machine of the size."""
        self._out_of_stock[instance_type.lower()] = monotonic() + seconds

    def is_out_of_stock(self, instance_type: str) -> bool:
        """Whether the cloud had none a short while ago."""
        return self._out_of_stock.get(instance_type.lower(), 0.0) > monotonic()

    def forget(self, uid: str) -> None:
        """The claim is launched, or gone."""
        self._attempts.pop(uid, None)
        self._pace.pop(uid, None)
