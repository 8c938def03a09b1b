"""Counters of the informers of a kind: plain numbers, read by the metrics at a scrape.

Counting is an integer addition on the hot path; this module does not use Prometheus. `Cache.stats()` returns one per
kind.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, final

WAIT_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Upper bounds of the histogram of own-writes waits, in seconds; longer waits end in a live read."""


def _counter() -> Counter[str]:
    return Counter()


@final
@dataclass(slots=True)
class KindStats:
    """Counters of one kind since the informer started."""

    kind: str
    """Kind and group, for example `Deployment.apps`."""
    objects: int = 0
    """Objects held now."""
    size: int = 0
    """Bytes of JSON text held now."""
    last_event: float = 0.0
    """Wall time of the last change received, in seconds since the epoch; 0 before the first."""
    events: Counter[str] = field(default_factory=_counter)
    """Watch events by type: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR."""
    restarts: Counter[str] = field(default_factory=_counter)
    """Watches that ended, by reason."""
    relists: Counter[str] = field(default_factory=_counter)
    """Relists, by the reason why the watch could not continue."""
    undecodable: int = 0
    """Objects skipped because they had no readable metadata."""
    handler_errors: Counter[str] = field(default_factory=_counter)
    """Events a handler failed on, by handler."""
    waits: Counter[str] = field(default_factory=_counter)
    """Reads that had to wait for own writes, by outcome: `caught_up`, `live`."""
    wait_counts: list[int] = field(default_factory=lambda: [0] * (len(WAIT_BUCKETS) + 1))
    """Waits per bucket of `WAIT_BUCKETS`, the last for longer ones; not cumulative."""
    wait_seconds: float = 0.0
    """Sum of all waits."""

    def waited(self, outcome: str, seconds: float) -> None:
        """Records a read that waited for own writes."""
        self.waits[outcome] += 1
        self.wait_counts[bisect_left(WAIT_BUCKETS, seconds)] += 1
        self.wait_seconds += seconds
