"""`FunctionSource`: a function that adds keys itself, for events that neither the cluster nor a channel brings."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.view import View
from kaito.runtime.handler import Enqueue
from kaito.runtime.tasks import TaskScope

Feed = Callable[[Enqueue, View], Awaitable[None]]
"""Adds keys to the queue for as long as it runs. It may return; what it raises stops the manager."""


@final
class FunctionSource:
    """Runs a function that feeds a controller's queue, on every replica, from before the election on.

    Args:
        function: called once with the queue and a `View` of the cache.
        name: for logs and tasks; the function's name by default.
    """

    def __init__(self, function: Feed, *, name: str = "") -> None:
        self.name: str = name or getattr(function, "__name__", "function")
        self._function = function

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> "StartedFunction":
        """Call the function, in a task of `scope`."""
        return StartedFunction(scope.spawn(self._run(queue, View(cache)), name=f"source.{self.name}"))

    async def _run(self, queue: Enqueue, view: View) -> None:
        await self._function(queue, view)

    def __repr__(self) -> str:
        return f"FunctionSource({self.name})"


@final
class StartedFunction:
    """A function at work."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    async def wait_synced(self) -> None:
        """A function has no past: returns at once."""

    @property
    def synced(self) -> bool:
        """Always."""
        return True

    @property
    def idle(self) -> bool:
        """Always: what it waits for is not known."""
        return True

    @property
    def sync_error(self) -> str:
        """Nothing that is not raised."""
        return ""

    def stop(self) -> None:
        """Cancel the function."""
        self._task.cancel()
