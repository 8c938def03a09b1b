"""Tasks with an owner: the only module that starts tasks.

`TaskScope` is a task group for background work: leaving its body cancels the running tasks and waits for them, so no
task outlives the object that started it. The first failure of a task cancels the body. A single failure is raised as it
is, not wrapped in an exception group.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar, final

T = TypeVar("T")


async def sleep_forever() -> None:
    """Suspends until cancelled."""
    await asyncio.Event().wait()


@final
class TaskScope:
    """Runs background tasks during an `async with` body."""

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
        """Starts `work` as a task named `<scope>.<name>`; it is cancelled when the scope is left."""
        task = self._group.create_task(work, name=f"{self._name}.{name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cancel(self) -> None:
        """Cancels every running task; leaving the scope waits for them."""
        for task in self._running:
            task.cancel()


async def settle(task: asyncio.Task[T]) -> T | None:
    """Waits for a task that was cancelled. Its cancellation is a normal end, its failure is raised."""
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Runs coroutines concurrently and waits for all; their results in order.

    The first failure cancels the others. A single failure is raised as it is, several as an ExceptionGroup.
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
    """Runs background tasks that have to stop within a timeout.

    Prefer `TaskScope`, which waits without a limit. A manager uses a pool for code of others: tasks that do not stop in
    time are reported by name and abandoned, because the process exits anyway.

    Args:
        name: prefix of the tasks' names.
        on_end: called with the name of a task that ended without being cancelled, and with its error if it failed; not
            called for a task that ended after its cancellation.
    """

    def __init__(self, name: str, *, on_end: Callable[[str, BaseException | None], None]) -> None:
        self._name = name
        self._on_end = on_end
        self._running: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Starts `work` as a task named `<pool>.<name>`."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}.{name}")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        expected = self._stopping or task in self._cancelled
        self._cancelled.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None or not expected:
            self._on_end(task.get_name(), error)

    async def end(self, task: "asyncio.Task[Any]") -> None:
        """Cancels one task and waits until it has ended."""
        if task in self._running:
            self._cancelled.add(task)
            task.cancel()
            await asyncio.wait([task])

    def cancel(self) -> None:
        """Cancels every task; `stop` waits for them."""
        if not self._stopping:
            self._stopping = True
            for task in self._running:
                task.cancel()

    async def stop(self, timeout: float | None) -> list[str]:
        """Cancels every task and waits, `timeout` seconds at most; the names of the tasks that still run then."""
        self.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout)
        return sorted(task.get_name() for task in self._running)
