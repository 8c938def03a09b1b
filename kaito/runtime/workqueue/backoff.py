"""How long to wait before the next try: exponential, capped, with full jitter.

A value: queues, the reflector and retry loops hold one and ask `delay`. Randomness is the caller's.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

Jitter = Callable[[], float]
"""A random number in [0, 1)."""

system_jitter: Jitter = random.SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Wait `base * factor ** failures` seconds, at most `cap`.

    The defaults suit work inside the cluster. controller-runtime's 5 ms to 16 minutes is its users' recurring
    complaint: a key that failed for an hour then sleeps long after the cause is gone.

    Raises:
        ValueError: a number that cannot be meant (negative, cap below base, factor below 1).
    """

    base: float = 0.05
    """First wait in seconds."""
    cap: float = 60.0
    """Longest wait in seconds."""
    factor: float = 2.0
    """Growth per failure."""
    jitter: bool = True
    """Full jitter: the wait is uniform between 0 and the computed one, so that keys failing together spread out."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.base <= 0 or self.cap < self.base or self.factor < 1:
            message = f"backoff needs 0 < base <= cap and factor >= 1, got {self}"
            raise ValueError(message)

    def ceiling(self, failures: int) -> float:
        """The wait without jitter after that many earlier failures (0 = this is the first)."""
        try:
            return min(self.base * self.factor**failures, self.cap)
        except OverflowError:
            return self.cap

    def delay(self, failures: int, jitter: Jitter = system_jitter) -> float:
        """The wait in seconds after that many earlier failures."""
        ceiling = self.ceiling(failures)
        return ceiling * jitter() if self.jitter else ceiling
