"""Which replicas are alive, and how many shards each of them holds. Nothing here waits or writes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, final

from kaito.runtime.kinds import Lease

DEFAULT_DURATION_SECONDS: Final = 15.0


class SeenLease(NamedTuple):
    """A lease, and when this process first saw its record."""

    lease: Lease
    record: Mapping[str, object]
    at: float


@final
class SeenLeases:
    """The leases of the members and shards, and when the record of each last changed.

    As in leader election, a lease has expired when its record has not changed for its duration, measured by the local
    clock from the moment when this process first saw the record: clocks of machines may differ.

    Args:
        now: a clock in seconds that never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: dict[str, SeenLease] = {}

    def update(self, leases: Iterable[Lease]) -> None:
        """Records the leases that exist."""
        before, now = self._seen, self._now()
        self._seen = {}
        for lease in leases:
            record, known = lease.spec.to_dict(), before.get(lease.name)
            at = known.at if known is not None and known.record == record else now
            self._seen[lease.name] = SeenLease(lease, record, at)

    def is_live(self, name: str) -> bool:
        """Whether a replica holds the lease, and it has not expired."""
        seen = self._seen.get(name)
        return seen is not None and bool(seen.lease.spec.holder_identity) and self._age(seen) <= self._duration(seen)

    def find(self, name: str) -> SeenLease | None:
        """Returns the lease; None if it does not exist."""
        return self._seen.get(name)

    def live_holders(self, prefix: str) -> set[str]:
        """Returns the holders of the live leases whose names begin with a prefix."""
        return {
            seen.lease.spec.holder_identity or ""
            for name, seen in self._seen.items()
            if name.startswith(prefix) and self.is_live(name)
        }

    def expired(self, prefix: str, durations: float) -> list[Lease]:
        """Returns the leases with a prefix that have no holder, or were not renewed for some durations."""
        return [
            seen.lease
            for name, seen in self._seen.items()
            if name.startswith(prefix)
            and (not seen.lease.spec.holder_identity or self._age(seen) > durations * self._duration(seen))
        ]

    def _age(self, seen: SeenLease) -> float:
        return self._now() - seen.at

    @staticmethod
    def _duration(seen: SeenLease) -> float:
        return float(seen.lease.spec.lease_duration_seconds or DEFAULT_DURATION_SECONDS)


def quota(member: str, members: Iterable[str], shards: int) -> int:
    """Returns how many shards a member holds: all shards are divided evenly, and the first in order hold one more."""
    ordered = sorted({member, *members})
    each, rest = divmod(shards, len(ordered))
    return each + (ordered.index(member) < rest)
