"""Rate limiters: when a key may be tried again after a failure.

The queue asks `when` for every rate-limited add, so a limiter also counts failures; `forget` drops what it knows of a
key. State is kept only for keys that failed and were not forgotten since.
"""

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, final

from kaito.runtime.clock import monotonic
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.workqueue.backoff import Backoff, Jitter, system_jitter

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class RateLimiter(Protocol[K_contra]):
    """Decides the delay of rate-limited adds."""

    def when(self, key: K_contra) -> float:
        """Count one failure of the key and say how many seconds to wait."""
        ...

    def forget(self, key: K_contra) -> None:
        """The key succeeded or is gone: drop its failures."""
        ...

    def failures(self, key: K_contra) -> int:
        """Failures since the last `forget`."""
        ...


@final
class ExponentialLimiter(RateLimiter[K]):
    """Each key backs off on its own."""

    def __init__(self, backoff: Backoff | None = None, *, jitter: Jitter = system_jitter) -> None:
        self._backoff = backoff or Backoff()
        self._jitter = jitter
        self._failures: dict[K, int] = {}

    def when(self, key: K) -> float:
        """Count one failure of the key and say how many seconds to wait."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return self._backoff.delay(failures, self._jitter)

    def forget(self, key: K) -> None:
        """Drop the key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures since the last `forget`."""
        return self._failures.get(key, 0)

    def __len__(self) -> int:
        """Keys with failures: what the limiter keeps in memory."""
        return len(self._failures)


@final
class BucketLimiter(RateLimiter[K]):
    """All keys share one token bucket; an add beyond it reserves a later token (as golang.org/x/time/rate does).

    Args:
        rate: tokens a second.
        burst: tokens of a full bucket.
        now: clock in seconds.
    """

    def __init__(self, rate: float, burst: int, *, now: Callable[[], float] = monotonic) -> None:
        self._bucket = TokenBucket(rate, burst, now=now)

    def when(self, key: K) -> float:  # noqa: ARG002 - the protocol's signature; the bucket is shared
        """Take one token, on credit if necessary; returns the seconds until it is available."""
        return self._bucket.reserve()

    def forget(self, key: K) -> None:
        """Nothing is kept per key."""

    def failures(self, key: K) -> int:  # noqa: ARG002 - the protocol's signature
        """A bucket does not count per key."""
        return 0


@final
class LongestOf(RateLimiter[K]):
    """The strictest of several limiters: every one counts, the longest wait holds."""

    def __init__(self, *limiters: RateLimiter[K]) -> None:
        if not limiters:
            message = "LongestOf needs at least one limiter"
            raise ValueError(message)
        self._limiters = limiters

    def when(self, key: K) -> float:
        """The longest wait of all limiters."""
        return max(limiter.when(key) for limiter in self._limiters)

    def forget(self, key: K) -> None:
        """Forget in every limiter."""
        for limiter in self._limiters:
            limiter.forget(key)

    def failures(self, key: K) -> int:
        """The highest count of all limiters."""
        return max(limiter.failures(key) for limiter in self._limiters)
