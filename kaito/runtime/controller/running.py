"""A controller at work: its engine, its sources, and its shares in the caches. Made by `build`, run by the manager.

The shares are what keeps informers alive: those of a removed controller stop with it, unless others need them too.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from kaito.runtime.cache import Cache, InformerRef
from kaito.runtime.controller.cache_needs import Need
from kaito.runtime.controller.engine import Engine
from kaito.runtime.controller.kind_availability import Served
from kaito.runtime.errors import ConfigurationError, InvariantError
from kaito.runtime.source import Started
from kaito.runtime.tasks import TaskScope

Starter = Callable[[TaskScope], Started]
"""Starts a source."""


@dataclass(frozen=True, slots=True)
class Late:
    """A watch of a kind that may be missing."""

    start: Starter
    need: Need
    served: Served


@final
class Running:
    """An engine and how to run its sources.

    Args:
        engine: the queue and the workers.
        sources: how to start each source.
        needs: what is needed in caches.
        cache: of the manager's own cluster.
        sync_timeout: seconds for the first lists.
        served: given to a controller that waits for its kinds; None for one that does not.
        late: watches that nobody waits for.
        drain: seconds that a stop gives to what is in hand or ready.
    """

    def __init__(
        self,
        engine: Engine[Any],
        sources: Sequence[Starter],
        needs: Sequence[Need],
        cache: Cache,
        *,
        sync_timeout: float = 120.0,
        served: Served | None = None,
        late: Sequence[Late] = (),
        drain: float = 0.0,
    ) -> None:
        self.engine = engine
        self._sources = sources
        self._needs = [need for need in needs if not need.optional]
        self._cache = cache
        self._sync_timeout = sync_timeout
        self._served = served
        self._late = late
        self._drain = drain
        self._holds: list[InformerRef[Any]] = []

    @property
    def waits(self) -> bool:
        """Whether nobody should wait for it: kinds of it may be missing for as long as they like."""
        return self._served is not None

    async def finish(self, most: float) -> None:
        """Take no more keys, let workers finish what is in hand or ready for `most` seconds at most, then close."""
        if self._drain > 0 and most > 0:
            await self.engine.queue.drain(min(self._drain, most))
        self.engine.close()

    # -- shares in the caches ----------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Have the needed kinds kept. A running cache starts to follow them; indexes follow in `run_sources`.

        Raises:
            ConfigurationError: one of them is kept in another form.
        """
        try:
            for need in self._needs:
                self._holds.append(self._acquire(need))
        except ConfigurationError:
            self.release()
            raise

    def _acquire(self, need: Need) -> InformerRef[Any]:
        cache = self._cache_of(need)
        return cache.acquire(need.cached.kind if cache.declares(need.cached.kind) else need.cached)

    def release(self) -> None:
        """Give the shares back."""
        while self._holds:
            self._holds.pop().release()

    def _cache_of(self, need: Need) -> Cache:
        return self._cache if need.cluster is None else need.cluster.cache

    # -- sources -----------------------------------------------------------------------------------------------------

    async def run_sources(self) -> None:
        """Fill the queue until cancelled; see `Engine.run_sources`."""
        async with TaskScope(f"late.{self.engine.name}") as scope:
            for late in self._late:
                scope.spawn(self._follow_late(late), name=late.need.cached.kind.kind)
            if self._served is None:
                await self._follow()
            while self._served is not None:
                await self._follow_while_served(self._served)

    async def _follow(self) -> None:
        for need in self._needs:
            await self._add_indexes(need)
        await self.engine.run_sources(self._sources, sync_timeout=self._sync_timeout)

    async def _add_indexes(self, need: Need) -> None:
        for index in need.cached.indexes:
            await self._cache_of(need).add_index(index)

    async def _follow_while_served(self, served: Served) -> None:
        await served.wait()
        self.hold()
        try:
            async with TaskScope(f"served.{self.engine.name}") as scope:
                following = scope.spawn(self._follow(), name="sources")
                gone = scope.spawn(served.until_gone(), name="until-gone")
                await asyncio.wait([following, gone], return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
                    message = f"the sources of {self.engine.name} ended"
                    raise InvariantError(message)
        finally:
            self.release()

    async def _follow_late(self, late: Late) -> None:
        while True:
            await late.served.wait()
            hold = self._acquire(late.need)
            try:
                await self._add_indexes(late.need)
                async with TaskScope(f"late.{self.engine.name}") as scope:
                    started = late.start(scope)
                    try:
                        await late.served.until_gone()
                    finally:
                        started.stop()
            finally:
                hold.release()
