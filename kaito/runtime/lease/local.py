"""`LocalLeadership`: leader election in the main event loop, for virtual time, where there is only one loop.

Production uses `ThreadLeadership`: in the main loop, work that blocks the loop delays the renewals, too.
"""

import asyncio
from contextlib import suppress
from typing import final

from kaito.runtime.lease.base import RELEASE_SECONDS, BaseLeadership
from kaito.runtime.lease.elector import Elector
from kaito.runtime.tasks import TaskPool


@final
class LocalLeadership(BaseLeadership):
    """Runs an elector in the main loop."""

    def __init__(self, elector: Elector) -> None:
        super().__init__(elector.terms)
        self._local_elector = elector
        self._pool = TaskPool("lease", on_end=self._on_end)

    @property
    def _elector(self) -> Elector:
        return self._local_elector

    async def start(self) -> None:
        """Starts to campaign."""
        self._lost = asyncio.get_running_loop().create_future()
        self._pool.spawn(self._campaign(), name=self._terms.name)

    async def _campaign(self) -> None:
        await self._elector.acquire()
        self._elected.set()
        self._set_lost(await self._elector.renew())

    def _on_end(self, _: str, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)

    async def stop(self, *, release: bool) -> None:
        """Stops campaigning, and releases the lease if that is safe."""
        await self._pool.stop(RELEASE_SECONDS)
        if release and self._elected.is_set():
            with suppress(TimeoutError):  # the lease then expires
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._elector.release()
