"""`Backoff`: exponential delays with a cap and full jitter, for queues and retry loops."""

import random
from collections.abc import Callable
from dataclasses import dataclass

Jitter = Callable[[], float]
"""Returns a random number in [0, 1)."""

system_jitter: Jitter = random.SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays of `base * factor ** failures` seconds, at most `cap`.

    The defaults suit work inside of the cluster. controller-runtime's cap of 16 minutes is too long for it: a key that
    failed for an hour would stay idle long after its error is resolved.

    Raises:
        ValueError: a negative number, a cap below the base, or a factor below 1.
    """

    base: float = 0.05
    """First delay in seconds."""
    cap: float = 60.0
    """Maximum delay in seconds."""
    factor: float = 2.0
    """Growth per failure."""
    jitter: bool = True
    """Full jitter: the delay is uniform between 0 and the computed one, so that keys that fail together spread out."""

    def __post_init__(self) -> None:
        """Validates the numbers."""
        if self.base <= 0 or self.cap < self.base or self.factor < 1:
            message = f"backoff needs 0 < base <= cap and factor >= 1, got {self}"
            raise ValueError(message)

    def ceiling(self, failures: int) -> float:
        """The delay without jitter, after `failures` earlier failures (0 for the first)."""
        try:
            return min(self.base * self.factor**failures, self.cap)
        except OverflowError:
            return self.cap

    def delay(self, failures: int, jitter: Jitter = system_jitter) -> float:
        """The delay in seconds, after `failures` earlier failures."""
        ceiling = self.ceiling(failures)
        return ceiling * jitter() if self.jitter else ceiling
