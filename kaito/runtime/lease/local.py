"""A campaign in the main event loop: for virtual time, where there is only one loop.

Production uses `thread`: here a blocked main loop delays the renewals too.
"""

import asyncio
from contextlib import suppress
from typing import final

from kaito.runtime.errors import InvariantError
from kaito.runtime.lease.elector import Elector
from kaito.runtime.tasks import TaskPool

RELEASE_SECONDS = 5.0
"""Longest time to hand the lease over."""


@final
class LocalLeadership:
    """See `kaito.runtime.manager.leadership.Leadership`."""

    def __init__(self, elector: Elector) -> None:
        self._elector = elector
        self._pool = TaskPool("lease", on_end=self._ended)
        self._elected = asyncio.Event()
        self._lost: asyncio.Future[str] | None = None

    async def start(self) -> None:
        """Begin to campaign."""
        self._lost = asyncio.get_running_loop().create_future()
        self._pool.spawn(self._campaign(self._lost), name=self._elector.terms.name)

    async def _campaign(self, lost: "asyncio.Future[str]") -> None:
        await self._elector.acquire()
        self._elected.set()
        reason = await self._elector.renew()
        if not lost.done():
            lost.set_result(reason)

    def _ended(self, _: str, error: BaseException | None) -> None:
        if error is not None and self._lost is not None and not self._lost.done():
            self._lost.set_exception(error)
            self._elected.set()

    async def elected(self) -> None:
        """Wait until this process leads."""
        await self._elected.wait()

    async def lost(self) -> str:
        """Wait until it no longer does; the reason."""
        if self._lost is None:
            message = "lost() before start()"
            raise InvariantError(message)
        return await asyncio.shield(self._lost)

    def check(self) -> None:
        """The fence; see `Elector.check`."""
        self._elector.check()

    @property
    def remaining(self) -> float:
        """Seconds for which writes pass the fence."""
        return max(0.0, self._elector.remaining)

    def late(self) -> str | None:
        """What is wrong with the renewals; None when all is well or another leads."""
        return renewals_late(self._elector, leads=self._elected.is_set())

    async def stop(self, *, release: bool) -> None:
        """Campaign no more, and hand the lease over if that is safe."""
        await self._pool.stop(RELEASE_SECONDS)
        if release and self._elected.is_set():
            with suppress(TimeoutError):  # others wait for the end of the lease instead
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._elector.release()


def renewals_late(elector: Elector, *, leads: bool) -> str | None:
    """The health check: a leader whose lease ran out without it noticing must not go on."""
    age, duration = elector.renewal_age, elector.terms.duration
    return f"leader, but the lease was last renewed {age:.0f} s ago" if leads and age > 2 * duration else None
