"""Rate limiters: the delay before a key is retried after a failure.

The queue calls `when` for every failure, so a limiter also counts failures; `forget` resets them. A limiter keeps state
only for keys with failures.
"""

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, final

from kaito.runtime.clock import monotonic
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.workqueue.backoff import Backoff, Jitter, system_jitter

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class RateLimiter(Protocol[K_contra]):
    """Decides the delays of failed keys."""

    def when(self, key: K_contra) -> float:
        """Counts one failure of the key; the delay in seconds."""
        ...

    def forget(self, key: K_contra) -> None:
        """Resets the failures of a key that succeeded or does not exist."""
        ...

    def failures(self, key: K_contra) -> int:
        """Failures since the last `forget`."""
        ...


@final
class ExponentialLimiter(RateLimiter[K]):
    """Exponential backoff for each key."""

    def __init__(self, backoff: Backoff | None = None, *, jitter: Jitter = system_jitter) -> None:
        self._backoff = backoff or Backoff()
        self._jitter = jitter
        self._failures: dict[K, int] = {}

    def when(self, key: K) -> float:
        """Counts one failure of the key; the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return self._backoff.delay(failures, self._jitter)

    def forget(self, key: K) -> None:
        """Resets the key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures since the last `forget`."""
        return self._failures.get(key, 0)

    def __len__(self) -> int:
        """Number of keys with failures, which the limiter keeps in memory."""
        return len(self._failures)


@final
class BucketLimiter(RateLimiter[K]):
    """One token bucket for all keys. A failure beyond it reserves a later token, as in golang.org/x/time/rate.

    Args:
        rate: tokens per second.
        burst: tokens of a full bucket.
        now: clock in seconds.
    """

    def __init__(self, rate: float, burst: int, *, now: Callable[[], float] = monotonic) -> None:
        self._bucket = TokenBucket(rate, burst, now=now)

    def when(self, key: K) -> float:  # noqa: ARG002 - the protocol's signature; the bucket is shared
        """Takes one token, on credit if necessary; returns the seconds until it is available."""
        return self._bucket.reserve()

    def forget(self, key: K) -> None:
        """Does nothing: a bucket keeps no state per key."""

    def failures(self, key: K) -> int:  # noqa: ARG002 - the protocol's signature
        """0: a bucket does not count per key."""
        return 0


@final
class MaxOfLimiter(RateLimiter[K]):
    """Combines limiters: each counts, and the longest delay is used."""

    def __init__(self, *limiters: RateLimiter[K]) -> None:
        if not limiters:
            message = "MaxOfLimiter needs at least one limiter"
            raise ValueError(message)
        self._limiters = limiters

    def when(self, key: K) -> float:
        """The longest delay of all limiters."""
        return max(limiter.when(key) for limiter in self._limiters)

    def forget(self, key: K) -> None:
        """Resets the key's failures in every limiter."""
        for limiter in self._limiters:
            limiter.forget(key)

    def failures(self, key: K) -> int:
        """The highest count of all limiters."""
        return max(limiter.failures(key) for limiter in self._limiters)
