"""The ready keys of a work queue: a FIFO per priority level.

Only `WorkQueue` uses it. There are few levels at a time (the initial list, changes, priorities of `Again`), so
comparing their heads is cheap. Aging needs no sorting, because the head of a level has waited longest.
"""

from collections import deque
from collections.abc import Collection, Hashable
from enum import Enum
from typing import Generic, TypeVar, final

from kaito.runtime.workqueue.cause import Cause

K = TypeVar("K", bound=Hashable)


class EntryState(Enum):
    """The state of a queued key."""

    WAITING = "waiting"
    """In the heap until it is due."""
    READY = "ready"
    """In the FIFO of its level."""
    PARKED = "parked"
    """Ready, but a worker still processes the key: enters the FIFO at `done`."""


class Entry(Generic[K]):
    """One queued key."""

    __slots__ = ("causes", "key", "priority", "ready_at", "sequence", "state")

    def __init__(self, key: K, priority: int, ready_at: float, causes: tuple[Cause, ...]) -> None:
        self.key: K = key
        self.priority: int = priority
        self.ready_at: float = ready_at
        """When it becomes, or became, ready."""
        self.sequence: int = 0
        """Order in which the entries of all levels became ready."""
        self.state: EntryState = EntryState.WAITING
        self.causes: tuple[Cause, ...] = causes


@final
class Levels(Generic[K]):
    """The ready entries.

    Args:
        aging_step: seconds of waiting that raise the priority by one; None for strict priorities.
    """

    def __init__(self, aging_step: float | None) -> None:
        self._aging_step = aging_step
        self._levels: dict[int, deque[Entry[K]]] = {}
        self._counts: dict[int, int] = {}
        self._sequence = 0

    def push(self, entry: Entry[K]) -> None:
        """Appends an entry to its level."""
        self._sequence += 1
        entry.sequence = self._sequence
        entry.state = EntryState.READY
        level = self._levels.get(entry.priority)
        if level is None:
            level = self._levels[entry.priority] = deque()
        level.append(entry)
        self._counts[entry.priority] = self._counts.get(entry.priority, 0) + 1

    def raise_priority(self, entry: Entry[K], priority: int) -> None:
        """Moves a ready entry to the end of a higher level.

        The old level still contains it, because removal from the middle of a deque is linear; `_head` skips it there.
        That is safe because the priority of a queued key never falls: an entry does not return to a level it left.
        """
        self._counts[entry.priority] -= 1
        entry.priority = priority
        self.push(entry)

    def remove(self, keys: Collection[K]) -> None:
        """Removes the entries of some keys. Linear in the number of entries."""
        for priority, level in self._levels.items():
            kept = deque(entry for entry in level if entry.key not in keys)
            self._counts[priority] = sum(entry.priority == priority for entry in kept)
            self._levels[priority] = kept

    def pop(self, now: float) -> Entry[K] | None:
        """Removes and returns the entry with the highest priority after aging; the oldest among equals."""
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
        """Removes all entries."""
        self._levels.clear()
        self._counts.clear()

    def __len__(self) -> int:
        return sum(self._counts.values())

    def depth(self) -> dict[int, int]:
        """Number of entries per level."""
        return {priority: count for priority, count in self._counts.items() if count}

    def oldest(self, now: float) -> dict[int, float]:
        """Seconds for which the head of each level has been ready."""
        heads = ((priority, self._head(priority)) for priority in tuple(self._levels))
        return {priority: now - head.ready_at for priority, head in heads if head is not None}
