"""`Periodic`: a controller without a kind, for what must be looked at again and again whatever the cluster says.

Made by `Controller.every`. It passes the same barriers as every controller (caches synced, leadership) and has the same
deadline, backoff, metrics and logs.
"""

from collections.abc import Sequence
from typing import final

from kaito.runtime.cache import Cached
from kaito.runtime.controller.arguments import check_function, check_name, check_pace, check_seconds
from kaito.runtime.controller.cache_needs import Need, Needs, Sight
from kaito.runtime.meta import Resource
from kaito.runtime.reconcile import TickFunction
from kaito.runtime.workqueue import Backoff


@final
class Periodic:
    """One function, run every so many seconds by one replica. See `Controller.every`."""

    workers = 1
    wait_for_kinds = False

    def __init__(
        self,
        seconds: float,
        function: TickFunction,
        *,
        name: str,
        deadline: float | None,
        backoff: Backoff | None = None,
        cache: Sequence[Cached] = (),
    ) -> None:
        check_name(name)
        check_seconds(name, "deadline", deadline, zero=False, none="no limit")
        check_pace(name, backoff, None)
        check_function(function, f"function of periodic controller {name}", kind=None)
        check_seconds(name, "period", seconds, zero=False)
        self.seconds = seconds
        self.function = function
        self.name = name
        self.deadline = deadline
        self.backoff: Backoff = backoff or Backoff()
        self._needs = Needs(name)
        self._needs.take(cache)

    @property
    def kinds(self) -> Sequence[type[Resource]]:
        """Every kind that runs read from the cache."""
        return [need.cached.kind for need in self.needs]

    @property
    def sights(self) -> Sequence[Sight]:
        """None: nothing triggers it."""
        return ()

    @property
    def needs(self) -> Sequence[Need]:
        """What it needs in the cache."""
        return self._needs.all

    def seal(self) -> None:
        """Nothing can be added to it anyway; see `Controller.seal`."""

    def __repr__(self) -> str:
        return f"<periodic controller {self.name} every {self.seconds:g} s>"
