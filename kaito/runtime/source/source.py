"""What a controller needs of a source: start it, wait for it, stop it."""

from typing import Protocol, runtime_checkable

from kaito.runtime.cache.cache import Cache
from kaito.runtime.handler import Enqueue
from kaito.runtime.tasks import TaskScope


class StartedSource(Protocol):
    """A source at work."""

    async def wait_synced(self) -> None:
        """Wait until everything that was there at the start has been handled; returns at once if there is no such
        thing."""
        ...

    @property
    def synced(self) -> bool:
        """Whether `wait_synced` would return at once."""
        ...

    @property
    def idle(self) -> bool:
        """Nothing is buffered or being handled."""
        ...

    @property
    def sync_error(self) -> str:
        """Why it is not synced yet, in the server's words; empty when nothing is known to be wrong."""
        ...

    def stop(self) -> None:
        """Deliver nothing more. Harmless when repeated."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where events come from."""

    @property
    def name(self) -> str:
        """For logs and metrics."""
        ...

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> StartedSource:
        """Begin to deliver events to `queue`; tasks of its own run in `scope`."""
        ...
