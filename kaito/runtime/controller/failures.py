"""Failures of keys: how errors are retried, which keys fail at present, and what a failure report receives.

`FailureHandler` records every failed reconcile in a `FailureTracker`, and decides from it on the next attempt;
`/debug/failures` and the gauges of failing keys show its content. A key without failures has no state here.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar, final

from kaito.runtime.controller.arguments import reject
from kaito.runtime.workqueue import Backoff

K = TypeVar("K", bound=Hashable)

FailureStage = Literal["failing", "given up", "recovered"]

REPORT_AFTER: Final = 3
"""Default number of failures in a row before a report: single conflicts and timeouts resolve themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """How errors of one class are retried; see `RunOptions.on_error`.

    Raises:
        ConfigurationError: `attempts` is not a positive integer, or a policy without retries has a backoff or a limit.
    """

    retry: bool = True
    """Whether the key is retried; without, the error is terminal, as `Terminal`."""
    backoff: Backoff | None = None
    """Delays between the attempts instead of the controller's. An error's own delay (`Retry`, `Retry-After`) precedes
    it."""
    attempts: int | None = None
    """Failures in a row after which the key is given up, instead of the controller's `attempts`."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_attempts("FailurePolicy", self.attempts)
        if not self.retry and (self.backoff is not None or self.attempts is not None):
            reject("FailurePolicy(retry=False) has no further attempts: remove backoff= and attempts=")


def check_attempts(where: str, attempts: object) -> None:
    """Raises ConfigurationError unless the value is a positive integer or None."""
    if attempts is None:
        return
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        reject(f"{where}: attempts={attempts!r}: at least 1 is needed, or None for no limit")


def check_policies(controller: str, policies: object) -> None:
    """Raises ConfigurationError unless the value maps classes of exceptions to policies."""
    if not isinstance(policies, Mapping):
        reject(f"controller {controller}: on_error={policies!r}: write on_error={{OSError: FailurePolicy(...)}}")
    for error, policy in policies.items():  # pyright: ignore[reportUnknownVariableType] -- checked here
        if not isinstance(error, type) or not issubclass(error, Exception):
            reject(f"controller {controller}: on_error: {error!r} is not a class of exceptions")
        if not isinstance(policy, FailurePolicy):
            reject(f"controller {controller}: on_error[{error.__name__}]={policy!r}: write FailurePolicy(...)")


_DEFAULT: Final = FailurePolicy()


def policy_of(error: BaseException, policies: Mapping[type[Exception], FailurePolicy]) -> FailurePolicy:
    """Returns the policy of the error's class, else of its nearest base class, else the default."""
    return next((policies[each] for each in type(error).__mro__ if each in policies), _DEFAULT)


@dataclass(frozen=True, slots=True)
class Failure:
    """The state of a failing key, as a failure report receives it."""

    stage: FailureStage
    """`failing` once the key has failed often enough, `given up` when it will not be retried, `recovered` after the
    next success."""
    attempts: int
    """Failures in a row, also those before a recovery."""
    message: str
    """The last error in one line."""
    since: datetime
    """Wall time of the first failure."""
    retry_in: float | None = None
    """Seconds until the next attempt; None if there is none."""
    error: Exception | None = None
    """The last error; None for a recovery."""

    @property
    def recovered(self) -> bool:
        """Whether the key has recovered."""
        return self.stage == "recovered"


@dataclass(frozen=True, slots=True)
class FailureReport:
    """A declared report."""

    function: Callable[[Any, Failure], Awaitable[None]]
    """Called with the controller's sort of request."""
    after: int


@dataclass(slots=True)
class FailureState:
    """What the tracker knows about a failing key."""

    since: datetime
    generation: int | None
    failures: int = 0
    """Failures since the last success."""
    of_generation: int = 0
    """Failures since the object's generation changed, to which the limit of attempts applies."""
    last: datetime | None = None
    message: str = ""
    given_up: bool = False
    reported: FailureStage | None = None
    """The stage that was reported last."""
    failed_reports: int = 0


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One row of the failure dump."""

    key: str
    failures: int
    since: datetime
    last: datetime | None
    given_up: bool
    reported: bool
    message: str


@final
class FailureTracker(Generic[K]):
    """The failing keys of one controller."""

    def __init__(self) -> None:
        self._states: dict[K, FailureState] = {}

    def record(self, key: K, message: str, *, now: datetime, generation: int | None) -> FailureState:
        """Counts a failure of the key. A generation other than that of the last failure restarts `of_generation`."""
        state = self._states.setdefault(key, FailureState(now, generation))
        if generation is not None and generation != state.generation:
            state.generation = generation
            state.of_generation = 0
        state.failures += 1
        state.of_generation += 1
        state.last = now
        state.message = message
        return state

    def get(self, key: K) -> FailureState | None:
        """Returns the state of a failing key."""
        return self._states.get(key)

    def recover(self, key: K) -> FailureState | None:
        """Drops the state of a key that succeeded, and returns it."""
        return self._states.pop(key, None)

    def matching(self, match: Callable[[K], bool]) -> list[K]:
        """Returns the failing keys that match."""
        return [key for key in self._states if match(key)]

    def keep(self, key: K, state: FailureState) -> None:
        """Keeps the state of a key whose recovery has not been reported."""
        self._states[key] = state

    def __len__(self) -> int:
        return len(self._states)

    @property
    def given_up(self) -> int:
        """Number of keys that are not retried."""
        return sum(state.given_up for state in self._states.values())

    def dump(self) -> list[FailureRow]:
        """Every failing key, the longest first."""
        rows = [
            FailureRow(
                str(key),
                state.failures,
                state.since,
                state.last,
                state.given_up,
                state.reported is not None,
                state.message,
            )
            for key, state in self._states.items()
        ]
        return sorted(rows, key=lambda row: row.since)
