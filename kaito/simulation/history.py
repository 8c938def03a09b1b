"""Values that users change, over time: a controller acts on what it has read a moment before."""

from typing import Final, Generic, TypeVar, final

T = TypeVar("T")

READ_SECONDS: Final = 120.0
"""Longest time from the read of a value to the creation of an object because of it."""


@final
class History(Generic[T]):
    """One value over time."""

    def __init__(self) -> None:
        self._changes: list[tuple[float, T]] = []

    def note(self, now: float, value: T) -> None:
        """Notes the value from now on."""
        if not self._changes or self._changes[-1][1] != value:
            self._changes.append((now, value))

    def recent(self, now: float) -> list[T]:
        """Returns the values that a controller may have read: those that applied in the last `READ_SECONDS`."""
        ends = [*(began for began, _ in self._changes[1:]), now]
        return [value for (_, value), ended in zip(self._changes, ends, strict=False) if ended >= now - READ_SECONDS]
