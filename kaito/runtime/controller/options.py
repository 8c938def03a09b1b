"""`RunOptions`: name and limits of a controller, validated once and shared by every sort of controller."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar, cast, final

from kaito.runtime.controller.arguments import check_name, reject
from kaito.runtime.controller.failures import FailurePolicy, check_attempts, check_policies
from kaito.runtime.workqueue import AGING_STEP_SECONDS, Backoff, ExponentialLimiter, RateLimiter
from kaito.runtime.workqueue.backoff import Jitter

K = TypeVar("K", bound=Hashable)

DEADLINE_SECONDS = 300.0
"""Default deadline. controller-runtime has none: there a reconcile that hangs blocks its worker indefinitely."""

SYNC_TIMEOUT_SECONDS = 120.0
"""Default time for the first lists, as controller-runtime's `CacheSyncTimeout`."""

_LIMITER_METHODS = ("when", "forget", "failures")


class RunKeywords(TypedDict, Generic[K], total=False):
    """The options of `RunOptions` as keyword arguments of `Controller` and `Controller.keyed`."""

    workers: int
    deadline: float | None
    backoff: Backoff | None
    attempts: int | None
    on_error: Mapping[type[Exception], FailurePolicy]
    limiter: RateLimiter[K] | None
    spacing: float
    aging_step: float | None
    sync_timeout: float
    wait_for_kinds: bool
    drain: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(Generic[K]):
    """How a controller runs.

    Raises:
        ConfigurationError: a value that cannot work; the message names the controller and the option.
    """

    name: str
    """Unique in the manager; label of metrics and logs."""
    workers: int = 1
    """Reconciles that run at the same time, each for another key."""
    deadline: float | None = DEADLINE_SECONDS
    """Seconds after which a reconcile is cancelled at its next await; None for no limit."""
    backoff: Backoff | None = None
    """Delays between failed reconciles of one key; None for `Backoff()`."""
    attempts: int | None = None
    """Failures in a row after which a key is given up: it is not retried until something changes, and then once per
    change. A change of the object's spec (its generation) starts a new count. None for no limit."""
    on_error: Mapping[type[Exception], FailurePolicy] = field(default_factory=dict[type[Exception], FailurePolicy])
    """How errors of a class, and of its subclasses, are retried; the most specific class applies."""
    limiter: RateLimiter[K] | None = None
    """Rate limiter that replaces the backoff, for example `MaxOfLimiter(..., BucketLimiter(10, 100))`."""
    spacing: float = 0.0
    """Minimum seconds between the starts of two reconciles of one key."""
    aging_step: float | None = AGING_STEP_SECONDS
    """Seconds of waiting that raise a key's priority in the queue by one; None for strict priorities, with which keys
    of low priority can starve."""
    sync_timeout: float = SYNC_TIMEOUT_SECONDS
    """Seconds for the first lists of all watched kinds; after that the start fails with the server's error."""
    wait_for_kinds: bool = False
    """Wait for kinds that the server does not serve, at the start and after their removal, instead of failing: for
    optional CustomResourceDefinitions. Until then the controller is idle and the process is ready without it. Only for
    kinds of the manager's own cluster."""
    drain: float = 0.0
    """Seconds in which a graceful shutdown finishes running and ready keys before it cancels, at most half of the
    manager's graceful period; 0 cancels at once. The next start finds what was not finished."""

    def __post_init__(self) -> None:
        """Validates all options."""
        check_name(self.name)
        workers = cast("object", self.workers)
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            reject(f"controller {self.name}: workers={workers!r}, at least 1 is needed")
        check_seconds(self.name, "deadline", self.deadline, zero=False, none="no limit")
        self._check_limiter()
        check_attempts(f"controller {self.name}", self.attempts)
        check_policies(self.name, self.on_error)
        check_seconds(self.name, "spacing", self.spacing, zero=True)
        check_seconds(self.name, "aging_step", self.aging_step, zero=False, none="strict priorities")
        check_seconds(self.name, "sync_timeout", self.sync_timeout, zero=False)
        check_seconds(self.name, "drain", self.drain, zero=True)

    def _check_limiter(self) -> None:
        backoff = cast("object", self.backoff)
        if backoff is not None and self.limiter is not None:
            reject(f"controller {self.name}: give backoff= or limiter=, not both")
        if backoff is not None and not isinstance(backoff, Backoff):
            reject(f"controller {self.name}: backoff={backoff!r}: write backoff=Backoff(base=..., cap=...)")
        if self.limiter is not None and not all(
            callable(getattr(self.limiter, method, None)) for method in _LIMITER_METHODS
        ):
            methods = ", ".join(_LIMITER_METHODS)
            reject(f"controller {self.name}: limiter={self.limiter!r} has not all of {methods}: see RateLimiter")

    def rate_limiter(self, jitter: Jitter) -> RateLimiter[K]:
        """The limiter, or one made from the backoff."""
        return ExponentialLimiter[K](self.backoff, jitter=jitter) if self.limiter is None else self.limiter


def check_seconds(controller: str, option: str, value: object, *, zero: bool, none: str = "") -> None:
    """Raises ConfigurationError unless the value is a duration in seconds. `none`: what None means, if it is
    allowed."""
    if value is None and none:
        return
    hint = f"; use None for {none}" if none else ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        reject(f"controller {controller}: {option}={value!r} is not a number of seconds{hint}")
    if not (value >= 0 if zero else value > 0):
        least = "0 or more" if zero else "more than 0"
        reject(f"controller {controller}: {option}={value:g}: {least} seconds are needed{hint}")
