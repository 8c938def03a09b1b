"""`KindAvailability`: waits until the server serves kinds whose CustomResourceDefinitions may be missing."""

import asyncio
from collections.abc import Sequence
from typing import Final, final

from kaito.runtime.cache import Cache
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource

LOOKUP_SECONDS: Final = 10.0
"""Interval of discovery requests for a kind (controller-runtime's kind source retries at the same interval)."""

_log = get_logger(__name__)


@final
class KindAvailability:
    """Whether the manager's own cluster serves some kinds.

    Args:
        kinds: all of them must be served.
        discovery: looks them up on the server.
        cache: its open watches prove that a kind is served, without a request.
        controller: the controller that needs them, for the log.
    """

    def __init__(
        self, kinds: Sequence[type[Resource]], discovery: ServerDiscovery, cache: Cache, *, controller: str
    ) -> None:
        self._kinds = kinds
        self._discovery = discovery
        self._cache = cache
        self._log = _log.bind(controller=controller)

    async def wait_served(self) -> None:
        """Waits until the server serves all of them. Errors of the server are retried."""
        is_logged = False
        while missing := await self._missing(missing_on_error=True):
            if not is_logged:
                self._log.info("waiting for kinds to be served", kinds=missing)
                is_logged = True
            await asyncio.sleep(LOOKUP_SECONDS)

    async def wait_removed(self) -> None:
        """Waits until the server no longer serves one of them. An error of the server is not a removal."""
        while True:
            await asyncio.sleep(LOOKUP_SECONDS)
            if self._has_watches():
                continue
            if missing := await self._missing(missing_on_error=False):
                self._log.warning("kinds no longer served", kinds=missing)
                return

    def _has_watches(self) -> bool:
        """Whether every informer has an open watch, which proves that its kind is served."""
        return all(row.watching for kind in self._kinds for row in self._cache.informer(kind).health())

    async def _missing(self, *, missing_on_error: bool) -> list[str]:
        missing: list[str] = []
        for gvk in (kind.gvk() for kind in self._kinds):
            self._discovery.invalidate(gvk)
            try:
                served = await self._discovery.find(gvk) is not None
            except KaitoRuntimeError as error:
                self._log.warning("discovery request failed", kind=str(gvk), error=str(error))
                served = not missing_on_error
            if not served:
                missing.append(str(gvk))
        return missing
