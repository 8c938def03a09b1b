"""Tracks deletions of instances between reconciles: the cloud's last response, when it was sent, how often to poll."""

from typing import final

from kaito.runtime.client import ConditionUpdate
from kaito.runtime.clock import monotonic


@final
class DeletionTracker:
    """Deletions by claim UID, shared by the controllers of claims and of nodes: both delete instances."""

    def __init__(self) -> None:
        self._conditions: dict[str, ConditionUpdate] = {}
        self._accepted_at: dict[str, float] = {}
        self._poll_intervals: dict[str, float] = {}

    def set_condition(self, uid: str, update: ConditionUpdate) -> None:
        """Stores the condition `InstanceTerminating` for the cloud's last response."""
        self._conditions[uid] = update

    def condition(self, uid: str) -> ConditionUpdate | None:
        """The condition `InstanceTerminating`; None before the first request."""
        return self._conditions.get(uid)

    def record_accepted(self, uid: str) -> None:
        """Stores that the cloud accepted a deletion now."""
        self._accepted_at[uid] = monotonic()

    def accepted_at(self, uid: str) -> float | None:
        """Loop time at which the cloud last accepted a deletion."""
        return self._accepted_at.get(uid)

    def set_poll_interval(self, uid: str, seconds: float | None) -> None:
        """Stores the `Retry-After` of the operation; None keeps the previous one."""
        if seconds is not None:
            self._poll_intervals[uid] = seconds

    def poll_interval(self, uid: str, default: float) -> float:
        """Seconds between two reads of the instance."""
        return self._poll_intervals.get(uid, default)

    def forget(self, uid: str) -> None:
        """Drops everything about a claim."""
        for entries in (self._conditions, self._accepted_at, self._poll_intervals):
            entries.pop(uid, None)
