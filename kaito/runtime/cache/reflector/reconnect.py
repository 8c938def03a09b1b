"""The reasons why a watch ended, and the backoff of the reflector.

The numbers are client-go's reflector's: 0.8 s, doubling to 30 s, each wait in [d, 2d), reset after 120 s without
failures. Each reflector has its own: a shared one let a busy watch stall a healthy one (stackable trino-operator #936).
"""

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

FIRST_SECONDS: Final = 0.8
LONGEST_SECONDS: Final = 30.0
RESET_SECONDS: Final = 120.0
"""A failure after this time without failures starts again at the first wait."""


@final
class ReconnectDelay:
    """The backoff of one reflector."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._base = FIRST_SECONDS
        self._last: float | None = None

    def next(self, now: float, *, at_least: float = 0.0) -> float:
        """Seconds to wait after a failure at `now`; `at_least` is the server's `Retry-After`."""
        if self._last is not None and now - self._last > RESET_SECONDS:
            self._base = FIRST_SECONDS
        base = self._base
        self._base = min(base * 2, LONGEST_SECONDS)
        wait = max(base * (1 + self._rng.random()), at_least)
        self._last = now + wait
        return wait


@dataclass(frozen=True, slots=True)
class _How:
    word: str
    relist: bool
    pause: bool


class Ending(Enum):
    """Why a watch ended; the value is the `reason` label of metrics and determines the next step."""

    CLOSED = _How("closed", relist=False, pause=False)
    """The server closed it regularly, as it does every few minutes."""
    RESET = _How("reset", relist=False, pause=False)
    """It broke after it had worked: a restarted load balancer, or a server that shuts down."""
    STALLED = _How("stalled", relist=False, pause=False)
    """Nothing was received for too long, on a connection that may be half open."""
    BROKEN = _How("broken", relist=False, pause=True)
    """Rejected, or broken at once: the server may be down; the store is still valid."""
    THROTTLED = _How("throttled", relist=False, pause=True)
    """429."""
    UNAUTHORIZED = _How("unauthorized", relist=False, pause=True)
    """401 although the transport reloaded its credentials."""
    EXPIRED = _How("expired", relist=True, pause=True)
    """410: the server no longer has the history after our version; or it was restored and is at a lower one."""
    EMPTY = _How("empty", relist=True, pause=True)
    """Closed at once without a single event: it would repeat indefinitely (client-go: very short watch)."""
    MALFORMED = _How("malformed", relist=True, pause=True)
    """Not a watch stream: a proxy's page, a cut line, an event of an unknown type."""
    FAILED = _How("failed", relist=True, pause=True)
    """Any other error of the server."""
    PERIODIC = _How("periodic", relist=True, pause=False)
    """Not a failure: the declaration requests a periodic relist."""

    @property
    def reason(self) -> str:
        """The name in logs and metrics."""
        return self.value.word

    @property
    def relist(self) -> bool:
        """Whether a relist is needed."""
        return self.value.relist

    @property
    def pause(self) -> bool:
        """Whether to wait for the backoff first."""
        return self.value.pause
