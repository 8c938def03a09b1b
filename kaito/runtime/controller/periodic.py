"""`Periodic`: a controller without a kind, for work that repeats at an interval whatever happens in the cluster.

Made by `Controller.every`. It starts after the caches are synced and on the leader only, and has the same deadline,
backoff, metrics and logs as every controller.
"""

from collections.abc import Sequence
from typing import final

from kaito.runtime.cache import Cached
from kaito.runtime.controller.arguments import check_function
from kaito.runtime.controller.base import BaseController
from kaito.runtime.controller.cache_needs import WatchedFields
from kaito.runtime.controller.options import RunOptions, check_seconds
from kaito.runtime.reconcile import PeriodicFunction


@final
class Periodic(BaseController[str]):
    """One function, run at an interval by one replica. See `Controller.every`."""

    def __init__(
        self, seconds: float, function: PeriodicFunction, options: RunOptions[str], *, cache: Sequence[Cached]
    ) -> None:
        super().__init__(options, cache=cache)
        check_function(function, f"function of periodic controller {self.name}", kind=None)
        check_seconds(self.name, "period", seconds, zero=False)
        self.seconds = seconds
        self.function = function

    @property
    def watched_fields(self) -> Sequence[WatchedFields]:
        """Empty: no event triggers it."""
        return ()

    def __repr__(self) -> str:
        return f"<periodic controller {self.name} every {self.seconds:g} s>"
