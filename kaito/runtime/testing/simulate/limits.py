"""`Finding`: what a check returns, and `Limits`: the times of a run and its limits of work."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A state that must not be, or must not last.

    Attributes:
        invariant: name of the violated invariant.
        text: what is wrong, with the names of the objects.
        within: virtual seconds for which it may last while nothing fails; 0 if it must never be.
    """

    invariant: str
    text: str
    within: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times of a run in virtual seconds, and limits of work.

    Attributes:
        trouble_seconds: time in which steps happen.
        ends_early: whether the trouble ends as soon as the last step has happened and no fault is active any more.
        converge_seconds: time in which everything must be as wanted after the last fault.
        rest_seconds: time after that in which little may be written.
        deletion_seconds: time for which an object may be terminating while nothing fails.
        tear_down_seconds: time in which nothing may be left after everything was deleted.
        reconciles_per_hour: reconciles of one key by one controller.
        writes_per_hour: writes to one object by one operator.
        rest_writes: writes of all operators in the rest period, without leases and Events.
    """

    trouble_seconds: float = 3600.0
    ends_early: bool = False
    converge_seconds: float = 1800.0
    rest_seconds: float = 300.0
    deletion_seconds: float = 1800.0
    tear_down_seconds: float = 1800.0
    reconciles_per_hour: int = 1500
    writes_per_hour: int = 400
    rest_writes: int = 20
