"""`ShardHold`: the period in which this replica holds a shard, so that it alone reconciles the keys of the shard.

The manager's sharding opens a hold when it has acquired the lease of a shard. The engine runs each reconcile of the
shard's keys in the hold, which ends them and fences their writes when the shard is lost.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar
from typing import Any, Protocol, final

from kaito.runtime.tasks import TaskScope

_current: ContextVar["ShardHold | None"] = ContextVar("shard_hold", default=None)


def current_shard_hold() -> "ShardHold | None":
    """Returns the hold in which the caller's reconcile runs; None outside of reconciles of shards."""
    return _current.get()


@final
class ShardHold:
    """One period of one shard.

    Args:
        shard: number of the shard.
        check: raises `NotLeader` if the lease of the shard may have expired.
    """

    def __init__(self, shard: int, check: Callable[[], None]) -> None:
        self.shard = shard
        self._check = check
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def check(self) -> None:
        """Fences a write.

        Raises:
            NotLeader: another replica may hold the shard.
        """
        self._check()

    @property
    def is_idle(self) -> bool:
        """Whether no reconcile runs in it."""
        return not self._tasks

    async def run(self, work: Coroutine[Any, Any, None]) -> bool:
        """Runs a reconcile; False if the end of the hold cancelled it."""
        async with TaskScope(f"shard-{self.shard}") as scope:
            token = _current.set(self)
            try:  # a task of its own: the end of the hold cancels it, and not the worker
                task = scope.spawn(work, name="reconcile")
            finally:
                _current.reset(token)
            self._tasks.add(task)
            self._idle.clear()
            task.add_done_callback(self._done)
            await asyncio.wait({task})
        return not task.cancelled()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until no reconcile runs in it; False if one still runs after some seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Cancels the reconciles that run in it."""
        for task in self._tasks:
            task.cancel()


class ShardGate(Protocol):
    """Which keys this replica reconciles."""

    def hold_of(self, key: Hashable) -> ShardHold | None:
        """Returns the hold of the key's shard; None if this replica does not hold it."""
        ...
