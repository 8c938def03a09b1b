"""`ActiveFaults`: what ends each active fault, and for how long nothing has failed."""

import asyncio
from collections.abc import Callable
from typing import final


@final
class ActiveFaults:
    """The active faults of a run.

    Args:
        time: returns the seconds since the start of the run.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._until = 0.0
        self._last_end = 0.0
        self._ends: dict[object, Callable[[], None]] = {}

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last effect of a fault ended; 0 while there is one."""
        return max(self._time() - self._until, 0.0)

    @property
    def over_at(self) -> float:
        """When the last fault, and its effects, will have ended."""
        return max(self._until, self._last_end)

    def last(self, seconds: float) -> None:
        """Declares that a fault has effects for so long from now."""
        self._until = max(self._until, self._time() + seconds)

    def end_after(self, seconds: float, end: Callable[[], None], disturbs: float | None) -> None:
        """Ends a fault after so many seconds, or earlier by `end_all`; its effects last for `disturbs`, or as long."""
        self.last(seconds if disturbs is None else disturbs)
        self._last_end = max(self._last_end, self._time() + seconds)
        token = object()
        self._ends[token] = end

        def once() -> None:
            undo = self._ends.pop(token, None)
            if undo is not None:
                undo()

        asyncio.get_running_loop().call_later(seconds, once)

    def end_all(self) -> None:
        """Ends all faults."""
        for token in list(self._ends):
            self._ends.pop(token)()

    def settle(self, at: float) -> None:
        """Declares that all effects have ended now, or ends at that later time."""
        self._until = max(min(self._until, self._time()), at)
