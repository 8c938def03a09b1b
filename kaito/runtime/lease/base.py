"""`BaseLeadership`: the state of an election that the main loop sees, whichever loop the elector runs in."""

import asyncio
from abc import ABC, abstractmethod

from kaito.runtime.errors import InvariantError, NotLeader
from kaito.runtime.lease.elector import Elector, LeaseTerms

RELEASE_SECONDS = 5.0
"""Timeout of the release of the lease."""


class BaseLeadership(ABC):
    """Implements `kaito.runtime.manager.leadership.Leadership` but for the start and the stop.

    Args:
        terms: the lease and its times.
    """

    def __init__(self, terms: LeaseTerms) -> None:
        self._terms = terms
        self._elected = asyncio.Event()
        self._lost: asyncio.Future[str] | None = None

    @property
    @abstractmethod
    def _elector(self) -> Elector | None:
        """The elector, as soon as its numbers mean something."""

    async def elected(self) -> None:
        """Waits until this process leads."""
        await self._elected.wait()

    async def lost(self) -> str:
        """Waits until this process no longer leads; the reason."""
        if self._lost is None:
            message = "lost() before start()"
            raise InvariantError(message)
        return await asyncio.shield(self._lost)

    def check(self) -> None:
        """Fences a write; see `Elector.check`."""
        if self._elector is None:
            message = f"lease {self._terms.namespace}/{self._terms.name} is not held: write rejected"
            raise NotLeader(message)
        self._elector.check()

    @property
    def remaining(self) -> float:
        """Remaining seconds in which writes pass the fence."""
        return max(0.0, self._elector.remaining) if self._elector is not None else 0.0

    def late(self) -> str | None:
        """Why a leader must be restarted: its lease has expired, and it did not notice. None if all is well."""
        if self._elector is None or not self._elected.is_set():
            return None
        age, duration = self._elector.renewal_age, self._terms.duration
        return f"leader, but the lease was last renewed {age:.0f} s ago" if age > 2 * duration else None

    def _set_lost(self, reason: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _fail(self, error: BaseException) -> None:
        """Raises an error of the election in `lost`; `elected` returns so that `lost` is awaited."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(error)
        self._elected.set()
