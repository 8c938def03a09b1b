"""The interface of sources: start, wait until synced, stop."""

from typing import Protocol, runtime_checkable

from kaito.runtime.cache.cache import Cache
from kaito.runtime.handler import Enqueue
from kaito.runtime.tasks import TaskScope


class StartedSource(Protocol):
    """Started source of a controller."""

    async def wait_synced(self) -> None:
        """Waits until the initial events have been handled; returns at once if there are none."""
        ...

    @property
    def synced(self) -> bool:
        """Whether the initial events have been handled."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no event is buffered or being handled."""
        ...

    @property
    def sync_error(self) -> str:
        """The error of the server that prevents the sync; empty if there is none."""
        ...

    def stop(self) -> None:
        """Stops delivering events. May be called repeatedly."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """Started source that can deliver the state of the cluster again."""

    def replay(self) -> None:
        """Delivers every object again, as in the initial list."""
        ...


@runtime_checkable
class Source(Protocol):
    """Source of a controller's events."""

    @property
    def name(self) -> str:
        """Name in logs and metrics."""
        ...

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> StartedSource:
        """Starts to deliver events to `queue`; tasks run in `scope`."""
        ...
