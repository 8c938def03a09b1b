"""`Cause`: why a key is in the queue, one for each event.

Handlers make them, the queue merges them, and the log, the trace and `/debug/queues` contain them. A reconcile function
gets them for information only: it must decide by the state of the cluster, because causes are merged and dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaito.runtime.clock import monotonic

MAX_CAUSES = 8
"""Maximum causes of a queued key. Later ones are dropped: the first explain why the key was queued."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a reconcile."""

    kind: str
    """Kind of the object whose event it was, or the controller's kind for requeues; may be empty."""
    object: str
    """`namespace/name` of the object."""
    verb: str
    """`create`, `update`, `delete`, `generic`, `again`, `retry`."""
    note: str = ""
    """A detail, for example the `why` of an `Again`."""
    at: float = field(default_factory=monotonic, compare=False)
    """When it was observed, in seconds of the running loop's clock."""

    def __str__(self) -> str:
        text = f"{self.verb} {self.kind} {self.object}"
        return f"{text} ({self.note})" if self.note else text


def merge_causes(known: tuple[Cause, ...], new: Sequence[Cause]) -> tuple[Cause, ...]:
    """Merges the causes of two adds: without duplicates (the oldest is kept), `MAX_CAUSES` at most."""
    for cause in new:
        if len(known) >= MAX_CAUSES:
            return known
        if cause not in known:
            known = (*known, cause)
    return known
