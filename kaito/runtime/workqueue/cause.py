"""Why a key is in the queue: one `Cause` per event, a handful kept per key.

Handlers make them, the queue merges them, the worker shows them in the log, the trace and `/debug/queues`. The
reconcile function sees them only as information: what it does must follow from the state of the cluster, not from
what happened to be noticed (a cause may be dropped, an event may be merged with another).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaito.runtime.clock import monotonic

CAUSES_KEPT = 8
"""Causes remembered per queued key; the first ones win, they explain why the key was queued at all."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a reconcile."""

    kind: str
    """Kind of the object whose event it was, or what else spoke: `Timer`, `Retry`, `Channel`."""
    object: str
    """The object's `namespace/name`."""
    verb: str
    """`create`, `update`, `delete`, `generic`, `again`, `retry`."""
    note: str = ""
    """A detail for the reader, for example the `why` of an `Again`."""
    at: float = field(default_factory=monotonic, compare=False)
    """When it was noticed, on the clock of the running loop; in seconds."""

    def __str__(self) -> str:
        text = f"{self.verb} {self.kind} {self.object}"
        return f"{text} ({self.note})" if self.note else text


def merge_causes(known: tuple[Cause, ...], new: Sequence[Cause]) -> tuple[Cause, ...]:
    """The causes of a key after another add: equal ones are told once (the oldest), at most `CAUSES_KEPT` remain."""
    for cause in new:
        if len(known) >= CAUSES_KEPT:
            return known
        if cause not in known:
            known = (*known, cause)
    return known
