"""Offerings that the cloud could not provide, shared by all claims.

An offering is an instance type in a zone with a capacity type. If the launch of one claim finds it out of stock, the
launches of other claims skip it until its retry time. The entries are copied to the launch records of the claims
(`launch_record`), so that a restart keeps them. Times are those of the monotonic clock: a retry is not delayed by a
wall clock that was wrong at the failure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

from kaito.cloud.errors import CloudError, ErrorCategory
from kaito.runtime.clock import monotonic

CapacityType = Literal["spot", "on-demand"]
ANY_ZONE = "*"

PROBE_SECONDS = 900.0
"""While one claim tries an offering that was unavailable before, other claims wait this long for its result."""


@dataclass(frozen=True, slots=True)
class Offering:
    """An instance type in a zone (empty: the cloud chooses one) with a capacity type."""

    instance_type: str
    zone: str = ""
    capacity: CapacityType = "on-demand"

    @property
    def key(self) -> str:
        """Identifies the offering in a launch record."""
        return f"{self.instance_type.lower()}/{self.zone}/{self.capacity}"

    @property
    def key_any_zone(self) -> str:
        """Identifies the instance type and capacity type in every zone."""
        return f"{self.instance_type.lower()}/{ANY_ZONE}/{self.capacity}"

    def __str__(self) -> str:
        """Formats it for conditions and events, for example `Standard_NC24ads_A100_v4 (spot, zone 3)`."""
        details = ", ".join(
            detail
            for detail in ("spot" if self.capacity == "spot" else "", f"zone {self.zone}" if self.zone else "")
            if detail
        )
        return f"{self.instance_type} ({details})" if details else self.instance_type


@dataclass(slots=True)
class Unavailability:
    """Why and until when an offering is unavailable."""

    category: ErrorCategory
    code: str
    message: str
    failures: int
    """Consecutive errors of the same category."""
    retry_at: float
    """Loop time before which no claim tries the offering."""
    deprioritized_until: float
    """Loop time until which offerings that were not unavailable are tried first."""

    @property
    def retry_seconds(self) -> float:
        """Seconds until a claim may try the offering; negative if one may try it now."""
        return self.retry_at - monotonic()

    @property
    def is_deprioritized(self) -> bool:
        """Whether offerings that were not unavailable are tried first."""
        return self.deprioritized_until > monotonic()


@final
class UnavailableOfferings:
    """Unavailable offerings by key."""

    def __init__(self) -> None:
        self._entries: dict[str, Unavailability] = {}

    def mark(
        self,
        offering: Offering,
        error: CloudError,
        *,
        retry: Callable[[int], float],
        deprioritize: float,
    ) -> tuple[str, Unavailability]:
        """Marks an offering as unavailable; returns its key and the entry.

        Missing capacity and a missing zone concern one zone; quota and restrictions concern every zone.

        Args:
            offering: the offering that was requested.
            error: the cloud's error.
            retry: seconds until the next attempt, by the number of consecutive errors.
            deprioritize: seconds for which other offerings are tried first.
        """
        is_zonal = error.category in {ErrorCategory.CAPACITY, ErrorCategory.ZONE}
        key = offering.key if is_zonal else offering.key_any_zone
        before = self._entries.get(key)
        failures = before.failures + 1 if before is not None and before.category is error.category else 1
        now, wait = monotonic(), retry(failures)
        entry = Unavailability(
            error.category,
            error.code,
            error.message,
            failures,
            retry_at=now + wait,
            deprioritized_until=now + max(wait, deprioritize),
        )
        self._entries[key] = entry
        return key, entry

    def restore(self, key: str, entry: Unavailability) -> None:
        """Adds an entry of a launch record; of two entries, the one with the later retry time is kept."""
        before = self._entries.get(key)
        if before is None or before.retry_at < entry.retry_at:
            self._entries[key] = entry

    def find(self, offering: Offering) -> Unavailability | None:
        """The entry of the offering's zone or of every zone, whichever has the later retry time."""
        found = [self._entries[key] for key in (offering.key, offering.key_any_zone) if key in self._entries]
        return max(found, key=lambda entry: entry.retry_at, default=None)

    def current(self, offering: Offering) -> Unavailability | None:
        """The entry of an offering that must not be tried now; None if it may be tried."""
        entry = self.find(offering)
        return entry if entry is not None and entry.retry_seconds > 0 else None

    def prioritize(self, offerings: Sequence[Offering]) -> list[Offering]:
        """Sorts recently unavailable offerings last and keeps the order otherwise."""

        def is_deprioritized(offering: Offering) -> bool:
            entry = self.find(offering)
            return entry is not None and entry.is_deprioritized

        return sorted(offerings, key=is_deprioritized)

    def start_probe(self, offering: Offering) -> None:
        """Makes other claims wait while one claim tries an offering that was unavailable before."""
        entry = self.find(offering)
        if entry is not None:
            entry.retry_at = max(entry.retry_at, monotonic() + PROBE_SECONDS)

    def mark_available(self, offering: Offering) -> None:
        """Removes the entries of an offering that the cloud has provided."""
        self.clear((offering.key, offering.key_any_zone))

    def clear(self, keys: Iterable[str]) -> None:
        """Removes entries, so that the offerings are tried without waiting."""
        for key in keys:
            self._entries.pop(key, None)

    def clear_quota(self) -> None:
        """Removes the entries for exceeded quota, after the deletion of an instance has freed some."""
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry.category is not ErrorCategory.QUOTA
        }

    def entries(self, keys: Iterable[str]) -> dict[str, Unavailability]:
        """The entries with these keys."""
        return {key: self._entries[key] for key in keys if key in self._entries}
