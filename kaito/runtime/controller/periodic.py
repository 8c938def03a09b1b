"""`Periodic`: a controller without a kind, for what must be looked at again and again whatever the cluster says.

Made by `Controller.every`. It passes the same barriers as every controller (caches synced, leadership) and has the same
deadline, backoff, metrics and logs.
"""

from typing import final

from kaito.runtime.controller.declaration import check_common, check_function
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.reconcile import TickFunction
from kaito.runtime.workqueue import Backoff


@final
class Periodic:
    """One function, run every so many seconds by one replica. See `Controller.every`."""

    workers = 1

    def __init__(
        self,
        seconds: float,
        function: TickFunction,
        *,
        name: str,
        deadline: float | None,
        backoff: Backoff | None = None,
    ) -> None:
        check_common(name, workers=1, deadline=deadline)
        check_function(function, f"function of periodic controller {name}")
        if seconds <= 0:
            message = f"controller {name}: every {seconds} seconds is not a period"
            raise ConfigurationError(message)
        self.seconds = seconds
        self.function = function
        self.name = name
        self.deadline = deadline
        self.backoff: Backoff = backoff or Backoff()

    def __repr__(self) -> str:
        return f"<periodic controller {self.name} every {self.seconds:g} s>"
