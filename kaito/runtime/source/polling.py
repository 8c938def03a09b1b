"""`Polling`: a value outside of the cluster for each object of a kind, polled at a pace of its own.

    remote = Polling(Record, read_record, every=60, concurrency=8, timeout=10)
    controller = Controller(Record, reconcile).receives(remote)

    async def reconcile(request: Request[Record]) -> None:
        observed = remote.of(request)  # the cached value; a change of it triggers a reconcile

The leader polls. A result that equals the cached one does nothing. The declaration keeps no values: each manager has
its own cache of them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, Final, Generic, Protocol, TypeVar, cast, final

from kaito.runtime.cache.view import View
from kaito.runtime.clock import Clock
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.lifespan import State, state_of
from kaito.runtime.logging import BoundLogger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.reconcile import Request
from kaito.runtime.workqueue import Backoff

R = TypeVar("R", bound=Resource)
V = TypeVar("V")
T = TypeVar("T")

CONCURRENCY: Final = 4
TIMEOUT_SECONDS: Final = 10.0
BACKOFF: Final = Backoff(base=1.0, cap=300.0)
"""Delays of failed polls: external systems recover more slowly than an API server."""

Pace = float | Callable[[R], float | None]
"""Seconds between two polls of an object: for all, or for each; None does not poll the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest(Generic[R]):
    """One poll of one object."""

    object: R
    """The object from the cache."""
    view: View
    """Reads of the cache, for example of a Secret with credentials."""
    log: BoundLogger
    clock: Clock
    lifespan_state: State = None

    @property
    def key(self) -> ObjectKey:
        """Namespace and name of the object."""
        return self.object.key

    def lifespan(self, kind: type[T]) -> T:
        """Returns the state of the manager's lifespan, which has to be of this type.

        Raises:
            ConfigurationError: the manager has no lifespan, or it yields another type.
        """
        return state_of(self.lifespan_state, kind)


class PollCell(Protocol):
    """The cached value of one object, kept by the running source."""

    known: bool
    value: Any
    at: datetime | None
    error: Exception | None
    failures: int

    def set(self, value: object) -> None:
        """Replaces the value and discards the result of a poll in progress."""
        ...

    def refresh(self) -> None:
        """Polls now."""
        ...


@final
class Polled(Generic[V]):
    """What is known about the value of one object."""

    __slots__ = ("_cell",)

    def __init__(self, cell: PollCell | None) -> None:
        self._cell = cell

    @property
    def known(self) -> bool:
        """Whether a poll has succeeded for this generation of the object; until then `value` is None."""
        return self._cell is not None and self._cell.known

    @property
    def value(self) -> V | None:
        """The last value, also while later polls fail."""
        return cast("V | None", self._cell.value) if self._cell is not None else None

    @property
    def at(self) -> datetime | None:
        """Wall time of the last success, or of `set`."""
        return self._cell.at if self._cell is not None else None

    @property
    def error(self) -> Exception | None:
        """The error of the last poll; None after a success."""
        return self._cell.error if self._cell is not None else None

    @property
    def failures(self) -> int:
        """Failed polls in a row."""
        return self._cell.failures if self._cell is not None else 0

    def set(self, value: V) -> None:
        """Records what this process has just written, without a reconcile; a poll in progress is repeated."""
        if self._cell is not None:
            self._cell.set(value)

    def refresh(self) -> None:
        """Polls now, for example after a write whose result is not known. A change triggers a reconcile as usual."""
        if self._cell is not None:
            self._cell.refresh()

    def __repr__(self) -> str:
        return f"Polled({self.value!r}, failures={self.failures})" if self.known else "Polled(unknown)"


@final
class Polling(Generic[R, V]):
    """A value outside of the cluster for each object of a kind.

    Args:
        kind: the controller's kind.
        poll: reads the value; None is a value like others, for example for "does not exist". Values are compared with
            `==`, so a frozen dataclass is a good choice.
        every: seconds between two polls of an object (with a tenth of jitter), or a function of the object that returns
            them, or None to not poll it. A new generation of an object is polled at once, and its earlier value is
            dropped.
        timeout: seconds after which a poll is cancelled and counts as failed.
        concurrency: polls at the same time.
        backoff: delays after failed polls; `Retry` has its own.
        error_after: failed polls in a row after which the object is reconciled once, and again once when a poll
            succeeds, so that the status can report it; 0 for never.
        name: for logs and metrics; the function's name by default.

    Raises:
        ConfigurationError: a value that cannot work, or a function that is not async.
    """

    def __init__(
        self,
        kind: type[R],
        poll: Callable[[PollRequest[R]], Awaitable[V]],
        *,
        every: Pace[R] = 60.0,
        timeout: float = TIMEOUT_SECONDS,
        concurrency: int = CONCURRENCY,
        backoff: Backoff = BACKOFF,
        error_after: int = 0,
        name: str = "",
    ) -> None:
        call: object = getattr(poll, "__call__", None)  # noqa: B004 - objects with async call
        if not iscoroutinefunction(poll) and not iscoroutinefunction(call):
            message = f"polling of {kind.kind}: {poll!r} is not an async function"
            raise ConfigurationError(message)
        self.kind = kind
        self.poll = poll
        self.every = every
        self.timeout = timeout
        self.concurrency = concurrency
        self.backoff = backoff
        self.error_after = error_after
        self.name: str = name or getattr(poll, "__name__", "poll")
        _check_positive(self.name, "timeout", timeout)
        if not callable(every):
            _check_positive(self.name, "every", every)
        if concurrency < 1 or error_after < 0:
            message = f"polling {self.name}: concurrency={concurrency} and error_after={error_after}: 1 and 0 at least"
            raise ConfigurationError(message)

    def of(self, request: Request[R]) -> Polled[V]:
        """Returns what is known about the object of a reconcile, a clean-up or a failure report.

        Raises:
            ConfigurationError: the controller does not receive this polling.
        """
        cells = request.source_state.get(self)
        if cells is None:
            message = f"polling {self.name} is not a source of this controller: add .receives() with it"
            raise ConfigurationError(message)
        return Polled(cast("Mapping[ObjectKey, PollCell]", cells).get(request.key))

    def fixed(self, values: Mapping[ObjectKey, V]) -> Mapping[object, object]:
        """Returns `source_state=` of a `Request` that a unit test builds, with known values of objects.

        Request(key=record.key, object=record, api=api, source_state=remote.fixed({record.key: "192.0.2.1"}))
        """
        return {self: {key: _FixedCell(value) for key, value in values.items()}}

    def pace_of(self, obj: R) -> float | None:
        """Returns the seconds between two polls of the object, or None.

        Raises:
            ConfigurationError: the function of `every` returned something else.
        """
        if not callable(self.every):
            return self.every
        pace = self.every(obj)
        if pace is not None:
            _check_positive(self.name, "every", pace)
        return pace

    def __repr__(self) -> str:
        return f"Polling({self.kind.kind}, {self.name})"


@dataclass(slots=True)
class _FixedCell:
    """A value without a source."""

    value: Any
    known: bool = True
    at: datetime | None = None
    error: Exception | None = None
    failures: int = 0

    def set(self, value: object) -> None:
        self.value = value

    def refresh(self) -> None:
        """Does nothing: there is nothing to poll."""


def _check_positive(name: str, argument: str, seconds: object) -> None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < float("inf"):
        message = f"polling {name}: {argument}={seconds!r}: a number of seconds above 0 is needed"
        raise ConfigurationError(message)
