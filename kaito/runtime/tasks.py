"""Tasks with an owner: the only module that starts tasks.

`TaskScope` is a task group for background work: leaving its body cancels what still runs and waits for it, so no task
outlives the object that started it. The first failure of a task cancels the body and comes out of the scope bare, not
wrapped in a group, when it is the only one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar, final

T = TypeVar("T")


async def sleep_forever() -> None:
    """Suspend until cancelled."""
    await asyncio.Event().wait()


@final
class TaskScope:
    """Owns background tasks for the length of an `async with` body."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        try:
            await self._group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start `work` as a task named `<scope>.<name>`; it is cancelled when the scope is left."""
        task = self._group.create_task(work, name=f"{self._name}.{name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cancel(self) -> None:
        """Ask every running task to stop; leaving the scope waits for them."""
        for task in self._running:
            task.cancel()


async def settle(task: asyncio.Task[T]) -> T | None:
    """Wait for a task that was told to stop; its cancellation is a normal end, its failure is raised."""
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines at the same time and wait for all; the results in their order.

    The first failure cancels the others. A single failure comes out bare, several as an ExceptionGroup.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) == 1:
            raise failures.exceptions[0] from None
        raise
    return [task.result() for task in tasks]


@final
class TaskPool:
    """Owns background tasks that must be stopped by a deadline rather than waited for without end.

    `TaskScope` is the better owner wherever waiting is safe. A manager stopping foreign code uses this: what does not
    end in time is reported by name and left behind, for a process that is about to exit.

    Args:
        name: prefix of the tasks' names.
        ended: called with the name of a task that ended by itself, and with its error if it failed. Not called for
            tasks that were told to stop and obeyed.
    """

    def __init__(self, name: str, *, ended: Callable[[str, BaseException | None], None]) -> None:
        self._name = name
        self._ended = ended
        self._running: set[asyncio.Task[Any]] = set()
        self._told_to_end: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start `work` as a task named `<pool>.<name>`."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}.{name}")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        expected = self._stopping or task in self._told_to_end
        self._told_to_end.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None or not expected:
            self._ended(task.get_name(), error)

    async def end(self, task: "asyncio.Task[Any]") -> None:
        """Cancel one task and wait for its end."""
        if task in self._running:
            self._told_to_end.add(task)
            task.cancel()
            await asyncio.wait([task])

    def cancel(self) -> None:
        """Tell every task to stop; `stop` waits for them."""
        if not self._stopping:
            self._stopping = True
            for task in self._running:
                task.cancel()

    async def stop(self, timeout: float | None) -> list[str]:
        """Cancel every task and wait for them, `timeout` seconds at most; the names of those still running then."""
        self.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout)
        return sorted(task.get_name() for task in self._running)
