"""Ready keys: a FIFO per priority level, and the choice among the heads of the levels.

Only `WorkQueue` uses it. Few levels exist at a time (the initial list, fresh events, whatever a reconciler asks for),
so choosing among heads is cheap, and ageing needs no re-sorting: inside a level the head has waited longest.
"""

from collections import deque
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar, final

from kaito.runtime.workqueue.cause import Cause

K = TypeVar("K", bound=Hashable)


class EntryState(Enum):
    """Where a queued key is."""

    WAITING = "waiting"
    """In the heap until its time comes."""
    READY = "ready"
    """In the FIFO of its level."""
    PARKED = "parked"
    """Ready, but its key is being processed: enters the FIFO at `done`."""


class Entry(Generic[K]):
    """One queued key."""

    __slots__ = ("causes", "key", "priority", "ready_at", "sequence", "state")

    def __init__(self, key: K, priority: int, ready_at: float, causes: tuple[Cause, ...]) -> None:
        self.key: K = key
        self.priority: int = priority
        self.ready_at: float = ready_at
        """When it becomes, or first became, ready."""
        self.sequence: int = 0
        """Order of becoming ready, across levels."""
        self.state: EntryState = EntryState.WAITING
        self.causes: tuple[Cause, ...] = causes


@final
class Levels(Generic[K]):
    """The ready entries.

    Args:
        aging_step: seconds of waiting worth one priority point; None for strict priorities.
    """

    def __init__(self, aging_step: float | None) -> None:
        self._aging_step = aging_step
        self._levels: dict[int, deque[Entry[K]]] = {}
        self._counts: dict[int, int] = {}
        self._sequence = 0

    def push(self, entry: Entry[K]) -> None:
        """To the end of its level."""
        self._sequence += 1
        entry.sequence = self._sequence
        entry.state = EntryState.READY
        level = self._levels.get(entry.priority)
        if level is None:
            level = self._levels[entry.priority] = deque()
        level.append(entry)
        self._counts[entry.priority] = self._counts.get(entry.priority, 0) + 1

    def lift(self, entry: Entry[K], priority: int) -> None:
        """Move a ready entry to the end of a higher level.

        Its record in the old level stays behind; `_head` skips it because that level is no longer the entry's. No
        entry can come back to a level it left: priorities only rise while a key is queued.
        """
        self._counts[entry.priority] -= 1
        entry.priority = priority
        self.push(entry)

    def pop(self, now: float) -> Entry[K] | None:
        """Take the entry that is to run next."""
        best: Entry[K] | None = None
        best_rank = (0.0, 0)
        for priority in tuple(self._levels):
            head = self._head(priority)
            if head is None:
                continue
            age = (now - head.ready_at) // self._aging_step if self._aging_step else 0.0
            rank = (priority + age, -head.sequence)
            if best is None or rank > best_rank:
                best, best_rank = head, rank
        if best is not None:
            self._levels[best.priority].popleft()
            self._counts[best.priority] -= 1
        return best

    def _head(self, priority: int) -> Entry[K] | None:
        level = self._levels[priority]
        while level:
            if level[0].priority == priority:
                return level[0]
            level.popleft()
        del self._levels[priority], self._counts[priority]
        return None

    def clear(self) -> None:
        """Drop everything."""
        self._levels.clear()
        self._counts.clear()

    def __len__(self) -> int:
        return sum(self._counts.values())

    def depth(self) -> dict[int, int]:
        """Entries per level."""
        return {priority: count for priority, count in self._counts.items() if count}

    def oldest(self, now: float) -> dict[int, float]:
        """Seconds the head of each level has been ready."""
        heads = ((priority, self._head(priority)) for priority in tuple(self._levels))
        return {priority: now - head.ready_at for priority, head in heads if head is not None}
