"""Backoff of launches: failures per claim, and the earliest time of the next attempt.

State lives in memory and is copied to an annotation of the claim (`launch_record`), so that a restart repeats no
attempt that the backoff delays.
"""

import asyncio
from dataclasses import dataclass, field
from typing import final

from kaito.runtime.clock import monotonic


@dataclass(slots=True)
class LaunchAttempts:
    """Consecutive failures of one claim."""

    failures: int = 0
    """Failed launches since the last success."""
    request_failures: int = 0
    """Requests since the last usable response that failed for a reason that does not concern the launch."""
    not_before: float = 0.0
    """Loop time of the next attempt."""
    last_failure: str = ""
    """Reason and message of the last failure, for the claim's condition."""
    unavailable: set[str] = field(default_factory=set[str])
    """Keys of the offerings that were unavailable for this claim."""


@final
class LaunchBackoff:
    """Launch attempts by claim UID."""

    def __init__(self) -> None:
        self.is_restored = False
        """Whether the launch records of existing claims have been read."""
        self.restoring = asyncio.Lock()
        """Held while they are read."""
        self._attempts: dict[str, LaunchAttempts] = {}

    def attempts(self, uid: str) -> LaunchAttempts:
        """The attempts of a claim; callers may change the fields."""
        return self._attempts.setdefault(uid, LaunchAttempts())

    def has_attempts(self, uid: str) -> bool:
        """Whether there are failures to write into the claim's launch record."""
        attempts = self._attempts.get(uid)
        return attempts is not None and bool(attempts.failures or attempts.unavailable or attempts.last_failure)

    def remaining_seconds(self, uid: str) -> float:
        """Seconds until the next attempt is allowed."""
        attempts = self._attempts.get(uid)
        return max(attempts.not_before - monotonic(), 0.0) if attempts else 0.0

    def record_failure(self, uid: str) -> int:
        """Counts a failed launch; returns the number of consecutive ones."""
        attempts = self.attempts(uid)
        attempts.failures += 1
        return attempts.failures

    def record_request_failure(self, uid: str) -> int:
        """Counts a request without a usable response; returns the number of consecutive ones."""
        attempts = self.attempts(uid)
        attempts.request_failures += 1
        return attempts.request_failures

    def reset_request_failures(self, uid: str) -> None:
        """Ends the series of failed requests after a usable response."""
        attempts = self._attempts.get(uid)
        if attempts is not None:
            attempts.request_failures = 0

    def defer(self, uid: str, seconds: float) -> None:
        """Delays the next attempt."""
        self.attempts(uid).not_before = monotonic() + seconds

    def forget(self, uid: str) -> None:
        """Drops the attempts of a claim."""
        self._attempts.pop(uid, None)
