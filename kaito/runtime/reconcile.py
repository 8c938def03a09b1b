"""What a reconcile function gets and what it may answer.

    async def converge(request: Request[Memcached]) -> Again | None: ...

The controller makes a `Request` for every run; a test makes one by hand and calls the function. The answers:

| answer                | what follows                                                            |
|-----------------------|-------------------------------------------------------------------------|
| `None`                | done: failures forgotten, next run when something changes               |
| `Again(after, why)`   | done for now: failures forgotten, next run after so many seconds        |
| raise `Terminal(...)` | logged and counted; no retry until something changes                    |
| any other exception   | logged and counted; retried with backoff, or after the server's `Retry-After` |
"""

import math
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.logging import BoundLogger, get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.workqueue.cause import Cause

if TYPE_CHECKING:
    from kaito.runtime.client.api import Api
    from kaito.runtime.client.status import StatusScope

__all__ = [
    "Again",
    "Cause",
    "KeyedFunction",
    "KeyedRequest",
    "PeriodicRequest",
    "Reconciler",
    "Request",
    "TickFunction",
]

R = TypeVar("R", bound=Resource)
K = TypeVar("K", bound=Hashable)


def _logger() -> BoundLogger:
    return get_logger("reconcile")


@dataclass(frozen=True, slots=True)
class Again:
    """Run once more after a while: something outside the cluster is awaited, or a condition needs polling.

    Raises:
        ValueError: a delay that is negative or not finite.
        TypeError: a delay or a priority that is no number.
    """

    after: float
    """Seconds."""
    why: str = ""
    """For the log, the trace and the queue dump."""
    priority: int | None = None
    """Priority of that run in the queue; None keeps that of this one. Changes have 0, the initial list -100."""

    def __post_init__(self) -> None:
        """Refuse what cannot be waited."""
        _check_number("after", self.after, (int, float))
        _check_number("priority", self.priority, (int, type(None)))
        if not 0 <= self.after < math.inf:
            message = f"Again(after={self.after}) must be a number of seconds, 0 or more"
            raise ValueError(message)


def _check_number(name: str, value: object, types: tuple[type, ...]) -> None:
    if not isinstance(value, types):
        message = f"Again({name}={value!r}) must be a number: {'seconds' if name == 'after' else 'a whole one'}"
        raise TypeError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[R]):
    """One run for one object."""

    key: ObjectKey
    """Namespace and name."""
    object: R
    """The object, from the cache, never older than what this process wrote. Frozen, private to this run."""
    api: "Api"
    """Reads and writes; fields are owned by `<manager's field manager>/<controller>`, and writes fail with `NotLeader`
    once the lease is lost."""
    log: BoundLogger = field(default_factory=_logger)
    """Carries controller, controllerKind, namespace, name and reconcileID."""
    causes: tuple[Cause, ...] = ()
    """Why it runs: information for people. Decide by the state of the cluster, causes may be merged or dropped."""
    attempt: int = 1
    """1, or one more than the failures since the last success."""
    clock: Clock = field(default_factory=SystemClock)
    """Wall time."""

    def status(self) -> "AbstractAsyncContextManager[StatusScope[R]]":
        """The scope of the one status write of this run; nothing is sent when nothing differs."""
        return self.api.status(self.object)

    def fence(self) -> None:
        """Raise `NotLeader` unless this process surely holds the lease; see `Api.fence`."""
        self.api.fence()

    def event(
        self,
        type: Literal["Normal", "Warning"],  # noqa: A002 - the API's word
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
        regarding: Resource | None = None,
    ) -> None:
        """Record an event about the object (or `regarding`). Never waits, never fails."""
        self.api.event(regarding if regarding is not None else self.object, type, reason, note, action=action)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicRequest:
    """One run of a periodic controller, which has no object."""

    api: "Api"
    """Reads and writes, as in `Request`."""
    log: BoundLogger = field(default_factory=_logger)
    """Carries controller and reconcileID."""
    attempt: int = 1
    """1, or one more than the failures since the last success."""
    clock: Clock = field(default_factory=SystemClock)
    """Wall time."""

    def fence(self) -> None:
        """Raise `NotLeader` unless this process surely holds the lease; see `Api.fence`."""
        self.api.fence()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest(Generic[K]):
    """One run of a keyed controller: for a key, without an object."""

    key: K
    """What to look at."""
    api: "Api"
    """Reads and writes, as in `Request`."""
    log: BoundLogger = field(default_factory=_logger)
    """Carries controller, name (the key as text) and reconcileID."""
    causes: tuple[Cause, ...] = ()
    """Why it runs; information for people."""
    attempt: int = 1
    """1, or one more than the failures since the last success."""
    clock: Clock = field(default_factory=SystemClock)
    """Wall time."""

    def fence(self) -> None:
        """Raise `NotLeader` unless this process surely holds the lease; see `Api.fence`."""
        self.api.fence()


Reconciler = Callable[[Request[R]], Awaitable[Again | None]]
"""A reconcile or cleanup function."""

TickFunction = Callable[[PeriodicRequest], Awaitable[Again | None]]
"""The function of a periodic controller."""

KeyedFunction = Callable[[KeyedRequest[K]], Awaitable[Again | None]]
"""The function of a keyed controller."""
