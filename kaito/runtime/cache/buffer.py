"""Buffer of the changes for one handler: ordered, and bounded by the number of objects even if the handler is slow.

Below `SQUASH_ABOVE` every change is kept. Above, an update of an object that waits already is merged into the waiting
change: the handler then receives fewer updates, each from the state it last received to the newest.
controller-runtime's buffers grow without bound.
"""

from collections import deque
from typing import Final, final

from kaito.runtime.cache.event import Change, EventType
from kaito.runtime.meta import ObjectKey

SQUASH_ABOVE: Final = 1024
"""Changes kept one by one (the size client-go's buffers start with)."""


@final
class Waiting:
    """A change in the buffer; `tries` counts how often the handler failed on it."""

    __slots__ = ("change", "tries")

    def __init__(self, change: Change, tries: int = 0) -> None:
        self.change: Change = change
        self.tries: int = tries


@final
class ChangeBuffer:
    """Waiting changes, and marks where an initial list ends."""

    __slots__ = ("_latest", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Waiting | None] = deque()
        self._latest: dict[ObjectKey, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, change: Change) -> None:
        """Waits at the end, or in the place of an earlier change of the object."""
        if len(self._waiting) < SQUASH_ABOVE:
            if self._latest:  # An earlier buffered change of the object is no longer its latest.
                self._latest.pop(change.key, None)
            self._waiting.append(Waiting(change))
            return
        earlier = self._latest.get(change.key)
        if change.type is EventType.UPDATE and earlier is not None and earlier.change.type is not EventType.DELETE:
            earlier.change = earlier.change._replace(new=change.new)
            return
        waiting = self._latest[change.key] = Waiting(change)
        self._waiting.append(waiting)

    def put_again(self, waiting: Waiting) -> None:
        """Buffers a failed change again."""
        self._waiting.append(waiting)

    def mark(self) -> None:
        """Marks the end of an initial list."""
        self._waiting.append(None)

    def take(self) -> Waiting | None:
        """The next change, or None for a mark.

        Raises:
            IndexError: nothing waits.
        """
        waiting = self._waiting.popleft()
        if waiting is not None and self._latest and self._latest.get(waiting.change.key) is waiting:
            del self._latest[waiting.change.key]
        return waiting

    def clear(self) -> None:
        """Drops all changes."""
        self._waiting.clear()
        self._latest.clear()
