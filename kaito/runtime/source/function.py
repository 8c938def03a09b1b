"""`FunctionSource`: a function that adds keys to a controller's queue, for other event sources."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.view import View
from kaito.runtime.handler import Enqueue
from kaito.runtime.tasks import TaskScope

Feed = Callable[[Enqueue, View], Awaitable[None]]
"""Adds keys to the queue while it runs. It may return; an exception stops the manager."""


@final
class FunctionSource:
    """Source that runs a function, on every replica and before leader election.

    Args:
        function: called once with the queue and a `View` of the cache.
        name: for logs and tasks; the function's name by default.
    """

    def __init__(self, function: Feed, *, name: str = "") -> None:
        self.name: str = name or getattr(function, "__name__", "function")
        self._function = function

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedFunction":
        """Starts the function in a task of `scope`."""
        return StartedFunction(scope.spawn(self._run(queue, View(cache)), name=f"source.{self.name}"))

    async def _run(self, queue: Enqueue, view: View) -> None:
        await self._function(queue, view)

    def __repr__(self) -> str:
        return f"FunctionSource({self.name})"


@final
class StartedFunction:
    """Started source of a function."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    async def wait_synced(self) -> None:
        """Returns at once: a function has no initial events."""

    @property
    def synced(self) -> bool:
        """Whether the source is synced: always."""
        return True

    @property
    def idle(self) -> bool:
        """Whether the source is idle: always, because the function's state is unknown."""
        return True

    @property
    def sync_error(self) -> str:
        """Returns no error: a failure stops the manager."""
        return ""

    def stop(self) -> None:
        """Cancels the function."""
        self._task.cancel()
