"""Whether kinds are served: waited for by controllers and watches whose CustomResourceDefinitions may be missing."""

import asyncio
from collections.abc import Sequence
from typing import Final, final

from kaito.runtime.cache import Cache
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource

LOOKUP_SECONDS: Final = 10.0
"""Between two questions whether a kind is served (controller-runtime's kind source retries as often)."""

_log = get_logger(__name__)


@final
class Served:
    """Some kinds of the manager's own cluster.

    Args:
        kinds: all of them must be served.
        discovery: asks the server.
        cache: keeps them while they are served; its watches tell when it is worth asking again.
        controller: on whose behalf, for the log.
    """

    def __init__(
        self, kinds: Sequence[type[Resource]], discovery: ServerDiscovery, cache: Cache, *, controller: str
    ) -> None:
        self._kinds = kinds
        self._discovery = discovery
        self._cache = cache
        self._log = _log.bind(controller=controller)

    async def wait(self) -> None:
        """Return when the server serves them; a server that does not answer is asked again."""
        told = False
        while missing := await self._missing(unknown_is_missing=True):
            if not told:
                self._log.info("waiting for kinds to be served", kinds=missing)
                told = True
            await asyncio.sleep(LOOKUP_SECONDS)

    async def until_gone(self) -> None:
        """Return when one of them is served no more. A server that does not answer tells nothing."""
        while True:
            await asyncio.sleep(LOOKUP_SECONDS)
            if self._watching():
                continue
            if missing := await self._missing(unknown_is_missing=False):
                self._log.warning("kinds are served no more", kinds=missing)
                return

    def _watching(self) -> bool:
        """Whether every informer has its watch: then its kind is served, and nobody needs to be asked."""
        return all(row.watching for kind in self._kinds for row in self._cache.informer(kind).health())

    async def _missing(self, *, unknown_is_missing: bool) -> list[str]:
        missing: list[str] = []
        for gvk in (kind.gvk() for kind in self._kinds):
            self._discovery.forget(gvk)
            try:
                served = await self._discovery.find(gvk) is not None
            except KaitoRuntimeError as error:
                self._log.warning("cannot ask which kinds are served", error=str(error))
                served = not unknown_is_missing
            if not served:
                missing.append(str(gvk))
        return missing
