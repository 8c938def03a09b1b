"""`RunningController`: engine, sources and informers of a controller. Made by `build`, run by the manager.

It holds references to the informers that it needs: those of a removed controller stop with it, unless others need them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from kaito.runtime.cache import Cache, InformerRef
from kaito.runtime.controller.cache_needs import CacheNeed
from kaito.runtime.controller.cluster_sets import BaseClusterSet
from kaito.runtime.controller.engine import Engine
from kaito.runtime.controller.kind_availability import KindAvailability
from kaito.runtime.errors import ConfigurationError, InvariantError
from kaito.runtime.source import InboundEndpoint, StartedSource
from kaito.runtime.tasks import TaskScope

StartSource = Callable[[TaskScope], StartedSource]
"""Starts a source."""


@dataclass(frozen=True, slots=True)
class OptionalSource:
    """A source of a kind that may be missing."""

    start: StartSource
    need: CacheNeed
    availability: KindAvailability


@final
class RunningController:
    """An engine and how to run its sources.

    Args:
        engine: the queue and the workers.
        sources: how to start each source.
        needs: the kinds that it needs in caches.
        cache: the cache of the manager's own cluster.
        availability: of the kinds, for a controller that waits for them; None for one that does not.
        optional: sources that the start does not wait for.
        inbound: its HTTP endpoints, which the manager serves.
    """

    def __init__(
        self,
        engine: Engine[Any],
        sources: Sequence[StartSource],
        needs: Sequence[CacheNeed],
        cache: Cache,
        *,
        availability: KindAvailability | None = None,
        optional: Sequence[OptionalSource] = (),
        inbound: Sequence[InboundEndpoint] = (),
    ) -> None:
        self.engine = engine
        self._sources = sources
        self._needs = [need for need in needs if not (need.optional or isinstance(need.cluster, BaseClusterSet))]
        self._cache = cache
        self._availability = availability
        self._optional = optional
        self.inbound = inbound
        self._informers: list[InformerRef[Any]] = []

    @property
    def waits_for_kinds(self) -> bool:
        """Whether its kinds may be missing, so that the manager's start and readiness do not depend on it."""
        return self._availability is not None

    async def stop(self, drain_seconds: float) -> None:
        """Closes the queue, after workers have drained it for `drain_seconds` at most if the controller wants that."""
        drain = min(self.engine.options.drain, drain_seconds)
        if drain > 0:
            await self.engine.queue.drain(drain)
        self.engine.close()

    # -- informers ---------------------------------------------------------------------------------------------------

    def acquire_informers(self) -> None:
        """Acquires the informers of the needed kinds; a running cache starts them. `run_sources` adds the indexes.

        Raises:
            ConfigurationError: one of the kinds is cached in another form.
        """
        try:
            for need in self._needs:
                self._informers.append(self._acquire(need))
        except ConfigurationError:
            self.release_informers()
            raise

    def _acquire(self, need: CacheNeed) -> InformerRef[Any]:
        cache = self._cache_of(need)
        return cache.acquire(need.cached.kind if cache.declares(need.cached.kind) else need.cached)

    def release_informers(self) -> None:
        """Releases the informers; those that are not needed elsewhere stop."""
        while self._informers:
            self._informers.pop().release()

    def _cache_of(self, need: CacheNeed) -> Cache:
        if need.cluster is None:
            return self._cache
        if isinstance(need.cluster, BaseClusterSet):
            message = f"{self.engine.name}: the informers of {need.cluster.name} belong to its source"
            raise InvariantError(message)
        return need.cluster.cache

    # -- sources -----------------------------------------------------------------------------------------------------

    async def run_sources(self) -> None:
        """Runs the sources, which fill the queue, until cancelled; see `Engine.run_sources`."""
        async with TaskScope(f"optional.{self.engine.name}") as scope:
            for source in self._optional:
                scope.spawn(self._run_optional(source), name=source.need.cached.kind.kind)
            if self._availability is None:
                await self._run_required()
            while self._availability is not None:
                await self._run_while_served(self._availability)

    async def _run_required(self) -> None:
        for need in self._needs:
            await self._add_indexes(need)
        await self.engine.run_sources(self._sources)

    async def _add_indexes(self, need: CacheNeed) -> None:
        for index in need.cached.indexes:
            await self._cache_of(need).add_index(index)

    async def _run_while_served(self, availability: KindAvailability) -> None:
        await availability.wait_served()
        self.acquire_informers()
        try:
            async with TaskScope(f"served.{self.engine.name}") as scope:
                sources = scope.spawn(self._run_required(), name="sources")
                removal = scope.spawn(availability.wait_removed(), name="wait-removed")
                await asyncio.wait([sources, removal], return_when=asyncio.FIRST_COMPLETED)
                if sources.done():
                    sources.result()
                    message = f"the sources of {self.engine.name} ended"
                    raise InvariantError(message)
        finally:
            self.release_informers()

    async def _run_optional(self, source: OptionalSource) -> None:
        while True:
            await source.availability.wait_served()
            informer = self._acquire(source.need)
            try:
                await self._add_indexes(source.need)
                async with TaskScope(f"optional.{self.engine.name}") as scope:
                    started = source.start(scope)
                    try:
                        await source.availability.wait_removed()
                    finally:
                        started.stop()
            finally:
                informer.release()
