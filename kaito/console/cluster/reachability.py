"""Reports whether the API server answers, from the state of the informers."""

import asyncio
from datetime import datetime
from typing import Final, final

from kaito.api import Workspace
from kaito.console.cluster.situations import is_not_served
from kaito.console.views.json_values import Json, time_text
from kaito.runtime.cache import Cache, InformerHealth
from kaito.runtime.clock import Clock

CHECK_SECONDS: Final = 0.5


@final
class Reachability:
    """The state of the watch of Workspaces.

    Args:
        cache: the informers.
        clock: the current time.
    """

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._since: datetime | None = None
        self._message = ""

    @property
    def problem(self) -> Json | None:
        """Why the rows are not up to date, and since when; None if they are."""
        if not self._message:
            return None
        return {"message": self._message, "since": time_text(self._since)}

    async def run(self) -> None:
        """Observes the informer until canceled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_SECONDS)

    def check(self) -> None:
        """Looks at the informer once."""
        broken = next((row for row in self._cache.informer(Workspace).health() if not row.watching and row.error), None)
        self._message = _describe(broken) if broken is not None else ""
        if broken is None:
            self._since = None
        elif self._since is None:
            self._since = self._clock.now()


def _describe(row: InformerHealth) -> str:
    if is_not_served(row.error):
        return "the cluster has no Workspaces: install Kaito; the page then shows them without a reload"
    if "forbidden" in row.error.lower():
        return f"the account of the console may not list Workspaces: start it with --namespace NAME ({row.error})"
    return f"the API server does not answer; what is shown is the last state ({row.error})"
