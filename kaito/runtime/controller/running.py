"""A controller at work: its engine, its sources, and its shares in the caches. Made by `build`, run by the manager.

The shares are what keeps informers alive: those of a removed controller stop with it, unless others need them too.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from kaito.runtime.cache import Cache, Hold
from kaito.runtime.controller.engine import Engine
from kaito.runtime.controller.needs import Need
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import InvariantError, KaitoRuntimeError
from kaito.runtime.logging import get_logger
from kaito.runtime.source import Started
from kaito.runtime.tasks import TaskScope

LOOKUP_SECONDS: Final = 10.0
"""Between two questions whether a kind is served (controller-runtime's kind source retries as often)."""

_log = get_logger(__name__)


@final
class Running:
    """An engine and how to run its sources.

    Args:
        engine: the queue and the workers.
        sources: how to start each source.
        needs: what is needed in caches.
        cache: of the manager's own cluster.
        sync_timeout: seconds for the first lists.
        discovery: given to a controller that waits for its kinds; None for one that does not.
        drain: seconds that a stop gives to what is in hand or ready.
    """

    def __init__(
        self,
        engine: Engine[Any],
        sources: Sequence[Callable[[TaskScope], Started]],
        needs: Sequence[Need],
        cache: Cache,
        *,
        sync_timeout: float = 120.0,
        discovery: ServerDiscovery | None = None,
        drain: float = 0.0,
    ) -> None:
        self.engine = engine
        self._sources = sources
        self._needs = needs
        self._cache = cache
        self._sync_timeout = sync_timeout
        self._discovery = discovery
        self._drain = drain
        self._holds: list[Hold[Any]] = []

    @property
    def waits(self) -> bool:
        """Whether nobody should wait for it: kinds of it may be missing for as long as they like."""
        return self._discovery is not None

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
        for need in self._needs:
            cache = self._cache_of(need)
            known = cache.declares(need.cached.kind)
            self._holds.append(cache.acquire(need.cached.kind if known else need.cached))

    def release(self) -> None:
        """Give the shares back."""
        while self._holds:
            self._holds.pop().release()

    def _cache_of(self, need: Need) -> Cache:
        return self._cache if need.cluster is None else need.cluster.cache

    # -- sources -----------------------------------------------------------------------------------------------------

    async def run_sources(self) -> None:
        """Fill the queue until cancelled; see `Engine.run_sources`."""
        if self._discovery is None:
            await self._follow()
        while self._discovery is not None:
            await self._until_served(self._discovery)
            self.hold()
            try:
                await self._while_served(self._discovery)
            finally:
                self.release()
            _log.warning("kinds are gone, the controller rests", controller=self.engine.name)

    async def _follow(self) -> None:
        for need in self._needs:
            for index in need.cached.indexes:
                await self._cache_of(need).add_index(index)
        await self.engine.run_sources(self._sources, sync_timeout=self._sync_timeout)

    async def _until_served(self, discovery: ServerDiscovery) -> None:
        told = False
        while missing := await self._missing(discovery):
            if not told:
                _log.info("waiting for kinds to be served", controller=self.engine.name, kinds=missing)
                told = True
            await asyncio.sleep(LOOKUP_SECONDS)

    async def _while_served(self, discovery: ServerDiscovery) -> None:
        async with TaskScope(f"served.{self.engine.name}") as scope:
            following = scope.spawn(self._follow(), name="sources")
            while not (await asyncio.wait([following], timeout=LOOKUP_SECONDS))[0]:
                if not self._watching() and await self._missing(discovery, unknown_is_missing=False):
                    return
            following.result()
            message = f"the sources of {self.engine.name} ended"
            raise InvariantError(message)

    def _watching(self) -> bool:
        """Whether every informer has its watch: then its kind is served, and nobody needs to be asked."""
        informers = (self._cache_of(need).informer(need.cached.kind) for need in self._needs)
        return all(row.watching for informer in informers for row in informer.health())

    async def _missing(self, discovery: ServerDiscovery, *, unknown_is_missing: bool = True) -> list[str]:
        """The kinds that the server does not serve; those it gives no answer about count as told."""
        missing: list[str] = []
        for gvk in (need.cached.kind.gvk() for need in self._needs if need.cluster is None):
            discovery.forget(gvk)
            try:
                served = await discovery.find(gvk) is not None
            except KaitoRuntimeError as error:
                _log.warning("cannot ask which kinds are served", controller=self.engine.name, error=str(error))
                served = not unknown_is_missing
            if not served:
                missing.append(str(gvk))
        return missing
