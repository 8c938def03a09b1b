"""The argument and the result of a reconcile function.

    async def reconcile(request: Request[Memcached]) -> Again | None: ...

The controller builds a `Request` for every reconcile; a unit test builds one directly and calls the function. The
function's result decides what happens next:

| result                | effect                                                                        |
|-----------------------|-------------------------------------------------------------------------------|
| `None`                | failures are reset; next reconcile when something changes                     |
| `Again(after, why)`   | failures are reset; requeued after that many seconds                          |
| raise `Terminal(...)` | logged and counted; no retry until something changes                          |
| raise `Retry(...)`    | logged and counted as a failure; retried after its delay                      |
| any other exception   | logged and counted; retried with backoff, or after the server's `Retry-After` |

A function made of several steps may call `request.requeue_after(seconds, why)` in each of them instead of returning
`Again`; the earliest requeue is used.
"""

import math
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, final

from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.lifespan import state_of
from kaito.runtime.logging import BoundLogger, get_logger
from kaito.runtime.meta import ObjectKey, Resource, condition_of
from kaito.runtime.workqueue.cause import Cause

if TYPE_CHECKING:
    from kaito.runtime.client.api import Api
    from kaito.runtime.client.status import ConditionField, ConditionUpdate, StatusScope

__all__ = [
    "Again",
    "Cause",
    "KeyedFunction",
    "KeyedRequest",
    "PeriodicFunction",
    "PeriodicRequest",
    "Reconciler",
    "Request",
    "earliest",
]

R = TypeVar("R", bound=Resource)
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def _logger() -> BoundLogger:
    return get_logger("reconcile")


@dataclass(frozen=True, slots=True)
class Again:
    """Requests a requeue after a delay, to wait for something outside the cluster or to poll a condition.

    Raises:
        ValueError: the delay is negative or not finite.
        TypeError: the delay is not a number, or the priority is not an integer.
    """

    after: float
    """Seconds."""
    why: str = ""
    """For the log, the trace and the queue dump."""
    priority: int | None = None
    """Priority of the next run in the queue; None keeps that of this run. Changes have 0, the initial list -100."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        _check_type("after", self.after, (int, float), "a number of seconds")
        _check_type("priority", self.priority, (int, type(None)), "an integer")
        if not 0 <= self.after < math.inf:
            message = f"Again.after must be a number of seconds, 0 or more, not {self.after}"
            raise ValueError(message)


def _check_type(name: str, value: object, types: tuple[type, ...], expected: str) -> None:
    if not isinstance(value, types):
        message = f"Again.{name} must be {expected}, not {value!r}"
        raise TypeError(message)


def earliest(first: Again | None, second: Again | None) -> Again | None:
    """The requeue with the shorter delay; the first one if both are equal."""
    if first is None or (second is not None and second.after < first.after):
        return second
    return first


@final
@dataclass(slots=True)
class _Requeue:
    """The earliest requeue that was requested during a reconcile."""

    requested: Again | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _BaseRequest:
    """The part of a request that does not depend on the sort of controller."""

    api: "Api"
    """Reads and writes; fields are owned by `<manager's field manager>/<controller>`, and writes fail with `NotLeader`
    once the lease is lost."""
    log: BoundLogger = field(default_factory=_logger)
    """Logs with the fields controller, reconcileID and, where they exist, controllerKind, namespace and name."""
    attempt: int = 1
    """1 plus the number of failures since the last success."""
    clock: Clock = field(default_factory=SystemClock)
    """Wall time."""
    lifespan_state: object = field(default=None, repr=False, compare=False)
    """What the manager's lifespan yielded, for `lifespan`; None without one."""
    source_state: Mapping[object, object] = field(default_factory=dict[object, object], repr=False, compare=False)
    """State of the controller's sources by their declaration, for `kaito.runtime.source.Polling.of`."""
    _requeue: _Requeue = field(default_factory=_Requeue, repr=False, compare=False)

    @property
    def requeue(self) -> Again | None:
        """The earliest requeue requested so far with `requeue_after` or `requeue_at`."""
        return self._requeue.requested

    def requeue_after(self, seconds: float, why: str = "") -> None:
        """Requests another reconcile after a delay, at most; a negative delay counts as 0.

        Can be called several times: the earliest requeue is used, and a result `Again` competes with it. The controller
        logs its reason. A reconcile that raises is retried with backoff instead. A cleanup function that requests a
        requeue has not finished, so the finalizer stays.
        """
        self._requeue.requested = earliest(self._requeue.requested, Again(max(seconds, 0.0), why))

    def requeue_at(self, moment: datetime, why: str = "") -> None:
        """Requests another reconcile at a moment of `clock`, at the latest."""
        self.requeue_after((moment - self.clock.now()).total_seconds(), why)

    def lifespan(self, kind: type[T]) -> T:
        """Returns the state of the manager's lifespan, which has to be of this type.

        Raises:
            ConfigurationError: the manager has no lifespan, or it yields another type.
        """
        return state_of(self.lifespan_state, kind)

    def fence(self) -> None:
        """Raises `NotLeader` unless this process holds the lease; see `Api.fence`."""
        self.api.fence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(_BaseRequest, Generic[R]):
    """One reconcile of one object."""

    key: ObjectKey
    """Namespace and name."""
    object: R
    """The object from the cache, at least as new as the last write of this process. Frozen, private to this run."""
    causes: tuple[Cause, ...] = ()
    """Why the key was queued, for logs only: causes are merged and may be dropped. Decide by the cluster's state."""

    def status(self) -> "AbstractAsyncContextManager[StatusScope[R]]":
        """Opens the scope of the object's status; on exit it sends one write if the status differs."""
        return self.api.status(self.object)

    def event(
        self,
        type: Literal["Normal", "Warning"],  # noqa: A002 - the API's word
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
        regarding: Resource | None = None,
    ) -> None:
        """Records an event about the object (or `regarding`). Never waits, never fails."""
        self.api.event(regarding if regarding is not None else self.object, type, reason, note, action=action)

    def event_on_change(
        self,
        update: "ConditionUpdate",
        *,
        on: "ConditionField" = "reason",
        type: Literal["Normal", "Warning"] | None = None,  # noqa: A002 - the API's word
        reason: str = "",
        note: str = "",
        action: str = "Reconcile",
    ) -> bool:
        """Records an event about a condition, unless `object` already has it: a repeated failure makes one event.

        `object` keeps the status that it had at the start of the reconcile, so the order of this call and of
        `StatusScope.set_condition` does not matter.

        Args:
            update: the condition as this reconcile computed it.
            on: what has to differ; see `ConditionUpdate.differs_from`.
            type: `Normal` for a condition that is True, else `Warning`, if not given.
            reason: the condition's reason if not given.
            note: the condition's message if not given.
            action: the action of the event.

        Returns:
            Whether an event was recorded, for the metric and the log line that belong to it.
        """
        if not update.differs_from(condition_of(self.object, update.type), on=on):
            return False
        event_type = type or ("Normal" if update.status == "True" else "Warning")
        self.event(event_type, reason or update.reason, note or update.message, action=action)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicRequest(_BaseRequest):
    """One run of a periodic controller, which has no object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest(_BaseRequest, Generic[K]):
    """One run of a keyed controller: for a key, without an object."""

    key: K
    """The key to reconcile."""
    causes: tuple[Cause, ...] = ()
    """Why the key was queued, for logs only."""


Reconciler = Callable[[Request[R]], Awaitable[Again | None]]
"""A reconcile or cleanup function."""

PeriodicFunction = Callable[[PeriodicRequest], Awaitable[Again | None]]
"""The function of a periodic controller."""

KeyedFunction = Callable[[KeyedRequest[K]], Awaitable[Again | None]]
"""The function of a keyed controller."""
