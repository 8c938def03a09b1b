"""Reads models in the background. A reconcile queries the result and is queued again when there is one.

Equal queries of several Workspaces are one read. A failed read is repeated when a reconcile queries again after a
pause, which grows with each failure and is at least that of the header `Retry-After`.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, final

from kaito.api import conditions
from kaito.runtime.cache import View
from kaito.runtime.clock import monotonic
from kaito.runtime.handler import Enqueue
from kaito.runtime.meta import ObjectKey
from kaito.runtime.workqueue import Cause
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 600.0
"""Pause after the first failed read, and the longest one."""

REFUSED_PAUSE_SECONDS: Final = 300.0
"""Pause after an answer that only a change of the model or of the Workspace can correct."""

KEPT_SECONDS: Final = 600.0
"""Time for which facts serve further Workspaces with the same query."""

MAX_CONCURRENT_READS: Final = 4
MAX_ENTRIES: Final = 1024

ReadModel = Callable[[ModelQuery], Awaitable[FactsRecord]]
"""Reads a model. Raises `ModelUnavailable`."""


@final
@dataclass(slots=True)
class _Entry:
    """One query, what is known, and who waits for it."""

    query: ModelQuery
    waiting: set[ObjectKey] = field(default_factory=set[ObjectKey])
    record: FactsRecord | None = None
    failure: ModelUnavailable | None = None
    failures: int = 0
    due: float = 0.0
    """Time from which the next query of a reconcile starts a new read."""
    is_reading: bool = False


@final
class ModelReads:
    """Queries and their results.

    Args:
        read: reads one model.
    """

    def __init__(self, read: ReadModel) -> None:
        self._read = read
        self._entries: dict[str, _Entry] = {}
        self._wanted: list[str] = []
        self._added = asyncio.Event()

    def find(self, workspace: ObjectKey, query: ModelQuery) -> FactsRecord | None:
        """Returns the facts; None if a read is in progress, after which the Workspace is queued.

        Raises:
            ModelUnavailable: the last read failed, and it is too early for another one.
        """
        key = _key(query)
        entry = self._entries.get(key)
        if entry is None:
            self._forget()
            entry = self._entries[key] = _Entry(query)
        is_due = not entry.is_reading and monotonic() >= entry.due
        if entry.record is not None and not is_due:
            return entry.record
        entry.waiting.add(workspace)
        if is_due:
            entry.is_reading = True
            self._wanted.append(key)
            self._added.set()
        if entry.failure is not None:  # the last answer stands until there is a new one
            raise entry.failure
        return None

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Reads until canceled; the function of a `FunctionSource`."""
        limit = asyncio.Semaphore(MAX_CONCURRENT_READS)
        async with asyncio.TaskGroup() as group:
            while True:
                await self._added.wait()
                self._added.clear()
                wanted, self._wanted = self._wanted, []
                for key in wanted:
                    group.create_task(self._read_one(key, enqueue, limit), name=f"model.{key[:8]}")

    async def _read_one(self, key: str, enqueue: Enqueue, limit: asyncio.Semaphore) -> None:
        entry = self._entries[key]
        try:
            async with limit:
                entry.record, entry.failure = await self._read(entry.query), None
        except ModelUnavailable as error:
            entry.record, entry.failure = None, error
        except Exception as error:  # noqa: BLE001 - a defect of a read must not end the reads of other models
            message = f"{entry.query.reference} cannot be read: {error!r}"
            entry.record = None
            entry.failure = ModelUnavailable(conditions.MODEL_UNREACHABLE, message, is_transient=True)
        finally:
            entry.is_reading = False
        entry.failures = 0 if entry.failure is None else entry.failures + 1
        pause = KEPT_SECONDS if entry.failure is None else _pause(entry.failure, entry.failures)
        entry.due = monotonic() + pause
        waiting, entry.waiting = entry.waiting, set()
        for workspace in waiting:
            enqueue.add(workspace, cause=Cause("Model", str(entry.query.reference), "read"))

    def _forget(self) -> None:
        """Removes results that are not current any more, so that memory does not grow with deleted Workspaces."""
        if len(self._entries) < MAX_ENTRIES:
            return
        now = monotonic()
        for key in [key for key, entry in self._entries.items() if not entry.is_reading and entry.due <= now]:
            del self._entries[key]


def _pause(error: ModelUnavailable, failures: int) -> float:
    if not error.is_transient:
        return REFUSED_PAUSE_SECONDS
    growing = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10))
    return max(growing, error.retry_after or 0.0)


def _key(query: ModelQuery) -> str:
    """Returns a digest of the query: other credentials are another query."""
    text = "\0".join((query.name, query.token, str(query.trust_remote_code), *query.docker_configs))
    return hashlib.sha256(text.encode()).hexdigest()
