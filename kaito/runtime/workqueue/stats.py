"""Counters of a queue as plain numbers: cheap in the hot path, read by `kaito.runtime.metrics` at a scrape.

The bucket bounds are controller-runtime's, for existing dashboards.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

QUEUE_BOUNDS_SECONDS = tuple(1e-8 * 10**k for k in range(12))
"""Histogram bounds of `workqueue_queue_duration_seconds` and `workqueue_work_duration_seconds`."""


class Buckets:
    """A histogram: counts per upper bound, and the sum of the values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = QUEUE_BOUNDS_SECONDS) -> None:
        self.bounds: tuple[float, ...] = tuple(map(float, bounds))
        self.counts: list[int] = [0] * (len(self.bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """`(le, cumulative count)` for each bound and `+Inf`, as in the exposition format."""
        return cumulative(self.bounds, self.counts)


def cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts per bucket, the last for values above all bounds, as `(le, cumulative count)`."""
    return [(le, float(count)) for le, count in zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True)]


@dataclass(slots=True)
class QueueStats:
    """Counters of one queue since it was made."""

    adds: int = 0
    """Keys that became ready; an add of a queued key does not count."""
    retries: int = 0
    """Adds with a delay."""
    queue_duration: Buckets = field(default_factory=Buckets)
    """Seconds from ready to hand-out."""
    work_duration: Buckets = field(default_factory=Buckets)
    """Seconds from hand-out to done."""
