"""Time limits of many short operations with one timer.

`asyncio.timeout` creates and cancels a timer for each use, which costs more than most of the work of a short request.
`Deadlines` keeps the operations under way and one timer for the earliest deadline; an operation that ends in time
touches no timer. Reconciles and requests use it.
"""

import asyncio
from types import TracebackType
from typing import final


@final
class Deadlines:
    """Deadlines of the operations of one event loop."""

    __slots__ = ("_limits", "_timer")

    def __init__(self) -> None:
        self._limits: dict[TimeLimit, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, seconds: float | None) -> "TimeLimit":
        """Returns a scope that is canceled after `seconds`; None for no limit."""
        return TimeLimit(self, seconds)

    def close(self) -> None:
        """Cancels the timer. Operations under way have no limit any more."""
        self._limits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, limit: "TimeLimit") -> None:
        """Starts a limit; called by its scope."""
        self._limits[limit] = None
        if self._timer is None or limit.when < self._timer.when():
            self._schedule(limit.when)

    def remove(self, limit: "TimeLimit") -> None:
        """Ends a limit; called by its scope."""
        self._limits.pop(limit, None)

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        """Cancels what is due, and schedules the next deadline."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for due in [limit for limit in self._limits if limit.when <= now]:
            del self._limits[due]
            due.expire()
        if self._limits:
            self._schedule(min(limit.when for limit in self._limits))


@final
class TimeLimit:
    """Scope with a time limit, with the semantics of `asyncio.timeout`.

    The task is canceled at the deadline, and the cancellation leaves the scope as `TimeoutError`. A cancellation by
    another caller at the same time remains a cancellation.

    Raises:
        TimeoutError: the scope did not end in time.
    """

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_seconds", "_task", "when")

    def __init__(self, deadlines: Deadlines, seconds: float | None) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self.when: float = 0.0
        """Deadline on the event loop's clock."""

    @property
    def expired(self) -> bool:
        """Whether the deadline passed inside the scope."""
        return self._expired

    def expire(self) -> None:
        """Cancels the task of the scope."""
        if self._task is not None:
            self._expired = True
            self._task.cancel()

    def __enter__(self) -> "TimeLimit":
        if self._seconds is None:
            return self
        task = asyncio.current_task()
        if task is None:
            message = "a time limit needs a task"
            raise RuntimeError(message)
        self._task = task
        self._cancelling = task.cancelling()
        self.when = asyncio.get_running_loop().time() + self._seconds
        self._deadlines.add(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._deadlines.remove(self)
        if self._expired and task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc
