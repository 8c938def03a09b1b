"""`Controller`: what is reconciled, what triggers it, and the limits of a run. A declaration; the manager runs it.

    controller = (
        Controller(Memcached, converge, workers=4, deadline=120)
        .owns(Deployment, when=changed("generation", "status.readyReplicas"))
        .watches(Secret, to=referencing)
        .finalizes("cache.example.com/finalizer", clean_up)
    )

Everything that can be wrong with it is said when it is built, as `ConfigurationError`, not when it runs.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import Mapper
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.predicate import Predicate
from kaito.runtime.reconcile import Reconciler, TickFunction
from kaito.runtime.source import Channel
from kaito.runtime.workqueue import AGING_STEP_SECONDS, Backoff, RateLimiter

if TYPE_CHECKING:
    from kaito.runtime.controller.periodic import Periodic

R = TypeVar("R", bound=Resource)
W = TypeVar("W", bound=Resource)

DEADLINE_SECONDS = 300.0
"""A run is cancelled after this long. controller-runtime has no default; a stuck run then blocks a worker for ever."""

_FINALIZER = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)/([A-Za-z0-9][-A-Za-z0-9_.]*)"
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Owned:
    """A kind whose objects belong to the controller's kind by owner reference."""

    kind: type[Resource]
    when: Predicate | None
    every_owner: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind whose events are mapped to keys."""

    kind: type[Resource]
    to: Mapper[Any]
    when: Predicate | None


@final
class Controller(Generic[R]):
    """Keeps objects of one kind converging.

    Args:
        kind: the kind; events about its objects trigger runs for them.
        reconcile: the function that converges one object.
        name: unique in the manager; label of metrics and logs. The kind in lower case when left out.
        workers: runs at the same time, each for another object.
        deadline: seconds after which a run is cancelled at its next await; None for no limit.
        backoff: waits between failed runs of one object.
        when: which events about the kind itself count.
        limiter: replaces the backoff by a limiter of your own, for example `LongestOf(..., BucketLimiter(10, 100))`.
        spacing: least seconds between the starts of two runs of one object.
        aging_step: seconds of waiting worth one priority point in the queue; None lets low priorities starve.
        sync_timeout: seconds for the first lists of all watched kinds; then the start fails with the server's reason.

    Raises:
        ConfigurationError: a value that cannot work; the message names it.
    """

    def __init__(
        self,
        kind: type[R],
        reconcile: Reconciler[R],
        *,
        name: str = "",
        workers: int = 1,
        deadline: float | None = DEADLINE_SECONDS,
        backoff: Backoff | None = None,
        when: Predicate | None = None,
        limiter: RateLimiter[ObjectKey] | None = None,
        spacing: float = 0.0,
        aging_step: float | None = AGING_STEP_SECONDS,
        sync_timeout: float = 120.0,
    ) -> None:
        check_kind(kind, "Controller")
        self.kind = kind
        self.name: str = name or kind.kind.lower()
        check_common(self.name, workers=workers, deadline=deadline)
        check_function(reconcile, f"reconcile function of controller {self.name}")
        if backoff is not None and limiter is not None:
            message = f"controller {self.name}: give backoff= or limiter=, not both"
            raise ConfigurationError(message)
        if spacing < 0 or (aging_step is not None and aging_step <= 0) or sync_timeout <= 0:
            message = f"controller {self.name}: spacing=, aging_step= and sync_timeout= are positive numbers of seconds"
            raise ConfigurationError(message)
        self.reconcile = reconcile
        self.workers = workers
        self.deadline = deadline
        self.backoff: Backoff = backoff or Backoff()
        self.when = when
        self.limiter = limiter
        self.spacing = spacing
        self.aging_step = aging_step
        self.sync_timeout = sync_timeout
        self.owned: list[Owned] = []
        self.watched: list[Watched] = []
        self.channels: list[Channel[Any]] = []
        self.finalizers: dict[str, Reconciler[R]] = {}

    def owns(self, kind: type[Resource], *, when: Predicate | None = None, every_owner: bool = False) -> Self:
        """Also run when an object of this kind changes, for its owner of the controller's kind.

        Args:
            kind: the dependents' kind.
            when: which of their events count.
            every_owner: also for owner references without `controller: true`.

        Raises:
            ConfigurationError: the kind is owned already, or scopes forbid the ownership.
        """
        check_kind(kind, f"controller {self.name}: owns")
        if any(owned.kind.gvk() == kind.gvk() for owned in self.owned):
            message = f"controller {self.name} owns {kind.kind} twice"
            raise ConfigurationError(message)
        if self.kind.namespaced and not kind.namespaced:
            message = (
                f"controller {self.name}: {self.kind.kind} is namespaced and cannot own {kind.kind}, which is "
                f"cluster-scoped: the garbage collector would delete it. Use watches() with a label instead"
            )
            raise ConfigurationError(message)
        self.owned.append(Owned(kind, when, every_owner))
        return self

    def watches(self, kind: type[W], *, to: Mapper[W], when: Predicate | None = None) -> Self:
        """Also run for the keys that `to` names when an object of this kind changes.

        Args:
            kind: the watched kind.
            to: called with the object and a `View` of the cache, for the old and the new state.
            when: which events count.
        """
        check_kind(kind, f"controller {self.name}: watches")
        check_callable(to, f"controller {self.name}: watches({kind.kind}, to=...)")
        self.watched.append(Watched(kind, to, when))
        return self

    def receives(self, channel: Channel[Any]) -> Self:
        """Also run for the keys that come through a channel: events from outside the cluster."""
        self.channels.append(channel)
        return self

    def finalizes(self, finalizer: str, cleanup: Reconciler[R]) -> Self:
        """Clean up before an object goes.

        The finalizer is stored before the first run of the reconcile function, so that no side effect precedes it. For
        an object being deleted, cleanups run instead of the reconcile function, in the order they were declared;
        one that returns None is done and its finalizer is removed.

        Args:
            finalizer: its name, `domain/name`.
            cleanup: like a reconcile function; `Again` and errors keep the finalizer.

        Raises:
            ConfigurationError: a name the API server refuses, or one used twice.
        """
        if not _FINALIZER.fullmatch(finalizer):
            message = f"controller {self.name}: finalizer {finalizer!r} is not of the form domain/name"
            raise ConfigurationError(message)
        if finalizer in self.finalizers:
            message = f"controller {self.name}: finalizer {finalizer} is declared twice"
            raise ConfigurationError(message)
        check_function(cleanup, f"cleanup of finalizer {finalizer}")
        self.finalizers[finalizer] = cleanup
        return self

    @staticmethod
    def every(
        seconds: float,
        function: TickFunction,
        *,
        name: str,
        deadline: float | None = DEADLINE_SECONDS,
        backoff: Backoff | None = None,
    ) -> "Periodic":
        """A controller without a kind: one run at the start of leadership, then one every so many seconds.

        Args:
            seconds: between the end of a run and the start of the next; an `Again` says otherwise for once.
            function: what to run.
            name: unique in the manager.
            deadline: seconds after which a run is cancelled; None for no limit.
            backoff: waits after failures.

        Raises:
            ConfigurationError: a value that cannot work.
        """
        from kaito.runtime.controller.periodic import Periodic

        return Periodic(seconds, function, name=name, deadline=deadline, backoff=backoff)

    @property
    def kinds(self) -> Sequence[type[Resource]]:
        """Every kind whose events trigger runs, the controller's own first."""
        kinds: list[type[Resource]] = [self.kind]
        kinds += [owned.kind for owned in self.owned]
        kinds += [watched.kind for watched in self.watched]
        return list({kind.gvk(): kind for kind in kinds}.values())

    def __repr__(self) -> str:
        return f"<controller {self.name} of {self.kind.gvk()}>"


def check_kind(kind: object, where: str) -> None:
    """Refuse what is not a kind."""
    if not (isinstance(kind, type) and issubclass(kind, Resource)) or not kind.kind or not kind.api_version:
        message = f"{where}: {kind!r} is not a kind: subclass Resource with api= and kind="
        raise ConfigurationError(message)


def check_common(name: str, *, workers: int, deadline: float | None) -> None:
    """Refuse names and numbers that cannot work."""
    if not _NAME.fullmatch(name):
        message = f"controller name {name!r}: lower case letters, digits, '-', '_' and '.' only"
        raise ConfigurationError(message)
    if workers < 1:
        message = f"controller {name}: workers={workers}, at least 1 is needed"
        raise ConfigurationError(message)
    if deadline is not None and deadline <= 0:
        message = f"controller {name}: deadline={deadline} seconds; use None for no limit"
        raise ConfigurationError(message)


def check_callable(function: object, what: str) -> None:
    """Refuse what cannot be called."""
    if not callable(function):
        message = f"{what} needs a function, not {function!r}"
        raise ConfigurationError(message)


def check_function(function: object, what: str) -> None:
    """Refuse what is not an async function of one argument."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    target = inner if inspect.isroutine(inner) else getattr(inner, "__call__", None)  # noqa: B004 - objects with async call
    if not callable(function) or not inspect.iscoroutinefunction(target):
        message = f"{what}: {function!r} is not an async function"
        raise ConfigurationError(message)
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        message = f"{what}: it takes exactly one argument, the request ({error})"
        raise ConfigurationError(message) from error
