"""Holds the requests of a Workspace until a copy is ready, within limits of number, bytes and time."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskPool

WAKE_INTERVAL_SECONDS: Final = 5.0
"""Interval at which a Workspace with held requests is woken again: it may be scaled to zero at the same time."""

_log = get_logger(__name__)

Wake = Callable[[], Awaitable[None]]
"""Scales the Workspace up from zero; does nothing if it has copies."""


class TooManyHeld(Exception):
    """The activator holds as many requests, or bytes, as it may."""


class NotReadyInTime(Exception):
    """No copy became ready within the time limit."""


class Removed(Exception):
    """The activator does not receive the requests of the Workspace any more, and does not see its copies."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLimits:
    """Limits of one process."""

    requests: int = 1000
    """Requests that are held."""
    body_bytes: int = 256 * 2**20
    """Bytes of their bodies."""
    seconds: float = 600.0
    """Time for which a request is held."""


@final
class Held:
    """The requests that a process holds, for all Workspaces.

    Args:
        limits: the limits.
    """

    def __init__(self, limits: HoldLimits) -> None:
        self.limits = limits
        self.requests = 0
        self.body_bytes = 0

    @contextmanager
    def hold(self, body_bytes: int = 0) -> Generator[Callable[[int], None]]:
        """Counts a request as held inside the `with` block; yields a function that counts more bytes of its body.

        Raises:
            TooManyHeld: a limit is reached; also the function raises it.
        """
        counted = 0

        def count(more: int) -> None:
            nonlocal counted
            if self.body_bytes + more > self.limits.body_bytes:
                raise TooManyHeld
            counted += more
            self.body_bytes += more

        if self.requests >= self.limits.requests:
            raise TooManyHeld
        count(body_bytes)
        self.requests += 1
        try:
            yield count
        finally:
            self.requests -= 1
            self.body_bytes -= counted


@final
class Gate:
    """The ready copies of one Workspace. Requests wait here while there are none.

    Args:
        wake: scales the Workspace up from zero.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._addresses: tuple[str, ...] = ()
        self._next = 0
        self._changed = asyncio.Event()
        self._tasks = TaskPool("activator-gate", on_end=_log_failure)
        self._waiting = 0
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a copy."""
        return self._waiting

    def update(self, addresses: Sequence[str]) -> None:
        """Sets the addresses of the ready copies, and releases requests if there are any."""
        if tuple(addresses) == self._addresses:
            return
        self._addresses = tuple(addresses)
        self._release()

    def _release(self) -> None:
        """Lets every waiting request look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def choose(self, avoid: str = "") -> str | None:
        """Returns the address of the next copy in turn, another one than `avoid`; None if there is none."""
        candidates = [address for address in self._addresses if address != avoid]
        if not candidates:
            return None
        self._next += 1
        return candidates[self._next % len(candidates)]

    async def wait(self, until: float, *, avoid: str = "") -> str:
        """Wakes the Workspace and waits for a copy; returns its address.

        Args:
            until: the latest time, on the clock of the event loop.
            avoid: address of a copy that has just failed. It counts again after a change of the copies, or after
                `WAKE_INTERVAL_SECONDS`.

        Raises:
            NotReadyInTime: there is none at that time.
            Removed: the gate was closed.
        """
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            while True:
                address = self.choose(avoid)
                if address is not None:
                    return address
                if self._is_closed:
                    raise Removed
                left = until - loop.time()
                if left <= 0:
                    raise NotReadyInTime
                if not self._addresses:
                    self._start_waking()
                try:
                    async with asyncio.timeout(min(left, WAKE_INTERVAL_SECONDS)):
                        await self._changed.wait()
                except TimeoutError:
                    avoid = ""
        finally:
            self._waiting -= 1

    def _start_waking(self) -> None:
        """Starts one call of `wake` for all waiting requests."""
        if not len(self._tasks):
            self._tasks.spawn(self._call_wake(), name="wake")

    async def _call_wake(self) -> None:
        await self._wake()
        await asyncio.sleep(WAKE_INTERVAL_SECONDS / 2)  # not again for every request that arrives meanwhile

    def close(self) -> None:
        """Ends a call of `wake`, and the wait of every request."""
        self._is_closed = True
        self._tasks.cancel()
        self._release()


def _log_failure(_: str, error: BaseException | None) -> None:
    if error is not None:
        _log.error("waking a workspace failed", error=repr(error))
