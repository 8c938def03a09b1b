"""`Controller`: what is reconciled, what triggers it, and the limits of a run. A declaration; the manager runs it.

    controller = (
        Controller(Memcached, converge, workers=4, deadline=120)
        .owns(Deployment, when=changed("generation", "status.readyReplicas"))
        .watches(Secret, to=referencing)
        .finalizes("cache.example.com/finalizer", clean_up)
    )

Everything that can be wrong with it is said when it is built, as `ConfigurationError`, not when it runs.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from kaito.runtime.cache import Cached, Index
from kaito.runtime.controller.arguments import (
    check_finalizer,
    check_function,
    check_kind,
    check_limits,
    check_open,
    check_predicate,
    check_seconds,
    check_source,
)
from kaito.runtime.controller.cache_needs import Elsewhere, Need, Needs, Sight
from kaito.runtime.controller.watching import Watched, watched
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.handler import Handler, Mapper
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource
from kaito.runtime.predicate import Predicate, changed
from kaito.runtime.reconcile import KeyedFunction, Reconciler, TickFunction
from kaito.runtime.source import Channel, ChannelSource, Source
from kaito.runtime.workqueue import AGING_STEP_SECONDS, Backoff, RateLimiter

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only
    from kaito.runtime.controller.keyed import Keyed
    from kaito.runtime.controller.periodic import Periodic

R = TypeVar("R", bound=Resource)
W = TypeVar("W", bound=Resource)
K = TypeVar("K", bound=Hashable)

DEADLINE_SECONDS = 300.0
"""A run is cancelled after this long. controller-runtime has no default; a stuck run then blocks a worker for ever."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A kind whose objects belong to the controller's kind by owner reference."""

    kind: type[Resource]
    when: Predicate | None
    every_owner: bool


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
        when: which events about the kind itself count. The beginning of the deletion of an object that carries one of
            the controller's finalizers always counts.
        limiter: replaces the backoff by a limiter of your own, for example `LongestOf(..., BucketLimiter(10, 100))`.
        spacing: least seconds between the starts of two runs of one object.
        aging_step: seconds of waiting worth one priority point in the queue; None lets low priorities starve.
        sync_timeout: seconds for the first lists of all watched kinds; then the start fails with the server's reason.
        resync: every so many seconds (give or take a tenth) every object of the kind is queued once more, at low
            priority, `when` permitting: nothing has changed, so `changed(...)` lets it pass. Nothing is fetched. 0 is
            never. For one object `Again` is better.
        cache: what else runs read, or how much of the watched kinds is kept: `[Cached(Pod, indexes=[by_node])]`.
        wait_for_kinds: kinds that the server does not serve are waited for instead of failing the start, also when they
            go away later: for CustomResourceDefinitions that somebody may install. Meanwhile the controller rests, and
            the process is ready without it. For kinds of the manager's own cluster.
        drain: a stop in order gives runs in hand and ready keys this many seconds before it cancels, half of the
            manager's graceful period at most; 0 cancels at once. What cannot be finished is found by the next start.

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
        resync: float = 0.0,
        cache: Sequence[Cached] = (),
        wait_for_kinds: bool = False,
        drain: float = 0.0,
    ) -> None:
        check_kind(kind, "Controller")
        self.kind = kind
        self.name: str = name or kind.kind.lower()
        check_limits(
            self.name,
            workers=workers,
            deadline=deadline,
            backoff=backoff,
            limiter=limiter,
            spacing=spacing,
            aging_step=aging_step,
            sync_timeout=sync_timeout,
        )
        check_function(reconcile, f"reconcile function of controller {self.name}", kind=kind)
        check_predicate(self.name, when)
        check_seconds(self.name, "resync", resync, zero=True)
        check_seconds(self.name, "drain", drain, zero=True)
        self.reconcile = reconcile
        self.workers = workers
        self.deadline = deadline
        self.backoff: Backoff = backoff or Backoff()
        self.when = when
        self.limiter = limiter
        self.spacing = spacing
        self.aging_step = aging_step
        self.sync_timeout = sync_timeout
        self.resync = resync
        self.wait_for_kinds = wait_for_kinds
        self.drain = drain
        self.owned: list[Owned] = []
        self.watched: list[Watched] = []
        self.sources: list[Source] = []
        self.finalizers: dict[str, Reconciler[R]] = {}
        self._needs = Needs(self.name)
        self._needs.name_kind(kind)
        self._needs.take(cache)
        self._built = False

    def owns(
        self,
        kind: type[Resource],
        *,
        when: Predicate | None = None,
        every_owner: bool = False,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        optional: bool = False,
    ) -> Self:
        """Also run when an object of this kind changes, for its owner of the controller's kind.

        Args:
            kind: the dependents' kind.
            when: which of their events count.
            every_owner: also for owner references without `controller: true`.
            labels: keep (and see) only objects with these labels, as `Cached(kind, labels=...)` in `cache` would say.
            only: `"metadata"` keeps nothing else of them.
            indexes: by which runs list them.
            optional: the kind may be missing: see `watches`.

        Raises:
            ConfigurationError: the kind is owned already, scopes forbid the ownership, or it is declared otherwise.
        """
        self._check_open("owns")
        check_kind(kind, f"controller {self.name}: owns")
        check_predicate(self.name, when)
        if any(owned.kind.gvk() == kind.gvk() for owned in self.owned):
            message = f"controller {self.name} owns {kind.kind} twice"
            raise ConfigurationError(message)
        if self.kind.namespaced and not kind.namespaced:
            message = (
                f"controller {self.name}: {self.kind.kind} is namespaced and cannot own {kind.kind}, which is "
                f"cluster-scoped: the garbage collector would delete it. Use watches() with a label instead"
            )
            raise ConfigurationError(message)
        self._needs.name_kind(kind, labels=labels, only=only, indexes=indexes, optional=optional)
        self.owned.append(Owned(kind, when, every_owner))
        return self

    def watches(
        self,
        kind: type[W],
        *,
        to: Mapper[W] | None = None,
        handler: Handler[W] | None = None,
        when: Predicate | None = None,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        cluster: Elsewhere | None = None,
        optional: bool = False,
    ) -> Self:
        """Also run for the keys that `to` names when an object of this kind changes.

        Args:
            kind: the watched kind.
            to: called with the object and a `View` of the cache, for the old and the new state.
            handler: instead of `to`, called with the whole event, the queue and the view: adds keys itself, with a
                priority or a delay of their own (`kaito.runtime.handler`).
            when: which events count.
            labels: keep (and see) only objects with these labels, as `Cached(kind, labels=...)` in `cache` would say.
            only: `"metadata"` keeps nothing else of them.
            indexes: by which runs list them.
            cluster: watch it there instead of in the manager's own cluster. The view is that cluster's too.
            optional: the kind may be missing. This watch then begins when the server serves it, and rests when it goes
                away; nobody waits for it. Until then reads of the kind are refused as undeclared.

        Raises:
            ConfigurationError: neither or both of `to` and `handler`, or the kind is declared otherwise.
        """
        self._check_open("watches")
        self.watched.append(watched(self.name, kind, to=to, handler=handler, when=when, cluster=cluster))
        self._needs.name_kind(kind, labels=labels, only=only, indexes=indexes, cluster=cluster, optional=optional)
        return self

    def _check_open(self, verb: str) -> None:
        check_open(self.name, verb, built=self._built)

    def seal(self) -> None:
        """The manager has read the declaration: changes would go unnoticed, and are refused from now on."""
        self._built = True

    def receives(self, source: Channel[Any] | Source) -> Self:
        """Also run for the keys that come from outside the cluster.

        Args:
            source: a `Channel`, a `FunctionSource`, or a source of your own (`kaito.runtime.source.Source`).

        Raises:
            ConfigurationError: something else.
        """
        self._check_open("receives")
        check_source(self.name, source)
        self.sources.append(ChannelSource(source) if isinstance(source, Channel) else source)
        return self

    def finalizes(self, finalizer: str, cleanup: Reconciler[R]) -> Self:
        """Clean up before an object goes.

        The finalizer is stored before the first run of the reconcile function, so that no side effect precedes it. For
        an object being deleted, cleanups run instead of the reconcile function, in the order they were declared;
        one that returns None is done and its finalizer is removed. No predicate hides the beginning of such a deletion.

        An object that carries the finalizer and leaves the selection of the cache (`labels=`, `fields=` of its kind) is
        asked for live once a minute, so that its clean-up runs when it is deleted. Such objects are not known to a
        process that starts later: select by something that does not change.

        Args:
            finalizer: its name, `domain/name`.
            cleanup: like a reconcile function; `Again` and errors keep the finalizer.

        Raises:
            ConfigurationError: a name the API server refuses, or one used twice.
        """
        self._check_open("finalizes")
        check_finalizer(self.name, finalizer)
        if finalizer in self.finalizers:
            message = f"controller {self.name}: finalizer {finalizer} is declared twice"
            raise ConfigurationError(message)
        check_function(cleanup, f"cleanup of finalizer {finalizer}", kind=self.kind)
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
        cache: Sequence[Cached] = (),
    ) -> "Periodic":
        """A controller without a kind: one run at the start of leadership, then one every so many seconds.

        Args:
            seconds: between the end of a run and the start of the next; an `Again` says otherwise for once.
            function: what to run.
            name: unique in the manager.
            deadline: seconds after which a run is cancelled; None for no limit.
            backoff: waits after failures.
            cache: the kinds that runs read.

        Raises:
            ConfigurationError: a value that cannot work.
        """
        from kaito.runtime.controller.periodic import Periodic

        return Periodic(seconds, function, name=name, deadline=deadline, backoff=backoff, cache=cache)

    @staticmethod
    def keyed(
        key: type[K],
        function: KeyedFunction[K],
        *,
        name: str,
        workers: int = 1,
        deadline: float | None = DEADLINE_SECONDS,
        backoff: Backoff | None = None,
        limiter: RateLimiter[K] | None = None,
        spacing: float = 0.0,
        sync_timeout: float = 120.0,
        cache: Sequence[Cached] = (),
        wait_for_kinds: bool = False,
        drain: float = 0.0,
    ) -> "Keyed[K]":
        """A controller for what is no object of the cluster: a tenant, a pool, an object in one of several clusters.

        Args:
            key: type of the keys: hashable values, equal ones are run once. A frozen dataclass is good.
            function: converges what a key stands for; called with a `KeyedRequest`.
            name: unique in the manager.
            workers: as in `Controller`; so are the other arguments.
            deadline: as in `Controller`.
            backoff: as in `Controller`.
            limiter: as in `Controller`.
            spacing: as in `Controller`.
            sync_timeout: as in `Controller`.
            cache: as in `Controller`.
            wait_for_kinds: as in `Controller`.
            drain: as in `Controller`.

        Raises:
            ConfigurationError: a value that cannot work; the message names it.
        """
        from kaito.runtime.controller.keyed import Keyed

        return Keyed(
            key,
            function,
            name=name,
            workers=workers,
            deadline=deadline,
            backoff=backoff,
            limiter=limiter,
            spacing=spacing,
            sync_timeout=sync_timeout,
            cache=cache,
            wait_for_kinds=wait_for_kinds,
            drain=drain,
        )

    @property
    def kinds(self) -> Sequence[type[Resource]]:
        """Every kind it needs of the manager's own cluster, its own first."""
        return [need.cached.kind for need in self.needs if need.cluster is None]

    @property
    def sights(self) -> Sequence[Sight]:
        """The predicates, with the kinds whose fields they look at."""
        sights = [Sight(self.kind, self.when), *(Sight(owned.kind, owned.when) for owned in self.owned)]
        if self.finalizers:  # of an object without these fields it cannot be known that a clean-up is due
            deletion = changed("finalizers", "deletionTimestamp")
            sights.append(Sight(self.kind, deletion, who=f"finalizes({', '.join(map(repr, self.finalizers))})"))
        return [*sights, *(Sight(watched.kind, watched.when, watched.cluster) for watched in self.watched)]

    @property
    def needs(self) -> Sequence[Need]:
        """What it needs in caches, one a kind and cluster, its own kind first."""
        return self._needs.all

    def __repr__(self) -> str:
        return f"<controller {self.name} of {self.kind.gvk()}>"
