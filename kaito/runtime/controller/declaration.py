"""`Controller`: which kind is reconciled, what triggers it, and the limits of a reconcile. The manager runs it.

    controller = (
        Controller(Memcached, reconcile, workers=4, deadline=120)
        .owns(Deployment, when=changed("generation", "status.readyReplicas"))
        .watches(Secret, to=referencing)
        .finalizes("cache.example.com/finalizer", clean_up)
    )

Every mistake in a declaration raises `ConfigurationError` where it is written, not when the controller runs.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, final

from kaito.runtime.cache import Cached, Index
from kaito.runtime.controller.arguments import (
    check_finalizer,
    check_function,
    check_kind,
    check_predicate,
    check_source,
    reject,
)
from kaito.runtime.controller.base import BaseController
from kaito.runtime.controller.cache_needs import AnyCluster, WatchedFields
from kaito.runtime.controller.failures import REPORT_AFTER, Failure
from kaito.runtime.controller.options import DEADLINE_SECONDS, RunKeywords, RunOptions, check_seconds
from kaito.runtime.controller.watched_kind import watched_kind
from kaito.runtime.handler import Handler, Mapper
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource
from kaito.runtime.predicate import Predicate, changed
from kaito.runtime.reconcile import KeyedFunction, PeriodicFunction, Reconciler, Request
from kaito.runtime.source import Channel, ChannelSource, Inbound, Polling, Source
from kaito.runtime.workqueue import Backoff

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only
    from kaito.runtime.controller.keyed import Keyed
    from kaito.runtime.controller.periodic import Periodic

R = TypeVar("R", bound=Resource)
W = TypeVar("W", bound=Resource)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class OwnedKind:
    """A kind whose objects belong to the controller's kind by owner reference."""

    kind: type[Resource]
    when: Predicate | None
    every_owner: bool


@final
class Controller(BaseController[ObjectKey], Generic[R]):
    """Reconciles the objects of one kind.

    Args:
        kind: the kind; events about its objects trigger reconciles of them.
        reconcile: the function that reconciles one object.
        name: unique in the manager; label of metrics and logs. The kind in lower case if not given.
        when: the events about the kind itself that count. The event that begins the deletion of an object with one of
            the controller's finalizers always counts.
        resync: interval in seconds (with a tenth of jitter) at which every object of the kind is queued again, at low
            priority, if `when` accepts it: nothing has changed, so `changed(...)` accepts it. No request is sent. 0
            turns it off. For a single object `Again` is better.
        cache: other kinds that reconciles read, or the form in which watched kinds are cached:
            `[Cached(Pod, indexes=[by_node])]`.
        options: `workers`, `deadline`, `backoff` and the other options of `RunOptions`.

    Raises:
        ConfigurationError: a value that cannot work; the message names it.
    """

    def __init__(
        self,
        kind: type[R],
        reconcile: Reconciler[R],
        *,
        name: str = "",
        when: Predicate | None = None,
        resync: float = 0.0,
        cache: Sequence[Cached] = (),
        **options: Unpack[RunKeywords[ObjectKey]],
    ) -> None:
        check_kind(kind, "Controller")
        super().__init__(RunOptions(name=name or kind.kind.lower(), **options), kind=kind, cache=cache)
        check_function(reconcile, f"reconcile function of controller {self.name}", kind=kind)
        check_predicate(self.name, when)
        check_seconds(self.name, "resync", resync, zero=True)
        self.kind = kind
        self.reconcile = reconcile
        self.when = when
        self.resync = resync
        self.owned: list[OwnedKind] = []
        self.sources: list[Source] = []
        self.pollings: list[Polling[R, Any]] = []
        self.inbound: list[Inbound] = []
        self.finalizers: dict[str, Reconciler[R]] = {}

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
        """Reconciles the owner, of the controller's kind, when an object of this kind changes.

        Args:
            kind: the dependents' kind.
            when: the events that count.
            every_owner: also for owner references without `controller: true`.
            labels: cache (and watch) only objects with these labels, as `Cached(kind, labels=...)` in `cache`.
            only: `"metadata"` caches nothing else of them.
            indexes: indexes that reconciles use to list them.
            optional: the kind may be missing; see `watches`.

        Raises:
            ConfigurationError: the kind is owned already, a namespaced kind cannot own it, or it is declared
                differently.
        """
        self._check_open("owns")
        check_kind(kind, f"controller {self.name}: owns")
        check_predicate(self.name, when)
        if any(owned.kind.gvk() == kind.gvk() for owned in self.owned):
            reject(f"controller {self.name} owns {kind.kind} twice")
        if self.kind.namespaced and not kind.namespaced:
            reject(
                f"controller {self.name}: {self.kind.kind} is namespaced and cannot own {kind.kind}, which is "
                f"cluster-scoped: the garbage collector would delete it. Use watches() with a label instead"
            )
        self._needs.add_kind(kind, labels=labels, only=only, indexes=indexes, optional=optional)
        self.owned.append(OwnedKind(kind, when, every_owner))
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
        cluster: AnyCluster | None = None,
        optional: bool = False,
    ) -> Self:
        """Reconciles the keys that `to` returns when an object of this kind changes.

        Args:
            kind: the watched kind.
            to: called with the object and a `View` of the cache, for the old and the new state.
            handler: instead of `to`, called with the whole event, the queue and the view: adds keys directly, with a
                priority or a delay for each (`kaito.runtime.handler`).
            when: the events that count.
            labels: cache (and watch) only objects with these labels, as `Cached(kind, labels=...)` in `cache`.
            only: `"metadata"` caches nothing else of them.
            indexes: indexes that reconciles use to list them.
            cluster: the cluster to watch, if not the manager's own. The view is of that cluster, too.
            optional: the kind may be missing. The watch starts when the server serves the kind and stops when it no
                longer does; the manager's start does not wait for it. Until then reads of the kind are rejected as
                undeclared.

        Raises:
            ConfigurationError: neither or both of `to` and `handler`, or the kind is declared differently.
        """
        self._check_open("watches")
        self.watched.append(watched_kind(self.name, kind, to=to, handler=handler, when=when, cluster=cluster))
        self._needs.add_kind(kind, labels=labels, only=only, indexes=indexes, cluster=cluster, optional=optional)
        return self

    def receives(self, source: Channel[Any] | Polling[R, Any] | Inbound | Source) -> Self:
        """Reconciles the keys of a source outside of the cluster.

        Args:
            source: a `Channel`, a `Polling` of the controller's kind, an `Inbound`, a `FunctionSource`, or another
                `kaito.runtime.source.Source`.

        Raises:
            ConfigurationError: the argument is not a source, is received twice, or polls another kind.
        """
        self._check_open("receives")
        check_source(self.name, source)
        match source:
            case Polling():
                if source.kind.gvk() != self.kind.gvk():
                    reject(f"controller {self.name} reconciles {self.kind.kind}: {source!r} polls another kind")
                if any(source.name == known.name for known in self.pollings):
                    reject(f"controller {self.name} receives two pollings named {source.name!r}: give one a name=")
                self.pollings.append(source)
            case Inbound():
                if source in self.inbound:
                    reject(f"controller {self.name} receives {source!r} twice")
                self.inbound.append(source)
            case Channel():
                self.sources.append(ChannelSource(source))
            case _:
                self.sources.append(source)
        return self

    def finalizes(self, finalizer: str, cleanup: Reconciler[R]) -> Self:
        """Calls a cleanup function before an object is deleted.

        The finalizer is stored before the first reconcile of an object, so that no side effect precedes it. For an
        object that is being deleted, cleanups run instead of the reconcile function, in the order of declaration; when
        one returns None, its finalizer is removed. No predicate hides the event that begins such a deletion.

        An object that carries the finalizer and leaves the cache's selection (`labels=`, `fields=` of its kind) is read
        live once a minute, so that its cleanup runs when it is deleted. A process that starts later does not know of
        such objects: select by something that does not change.

        Args:
            finalizer: its name, `domain/name`.
            cleanup: like a reconcile function; `Again`, `Request.requeue_after` and errors keep the finalizer.

        Raises:
            ConfigurationError: a name that the API server rejects, or that is declared twice.
        """
        self._check_open("finalizes")
        check_finalizer(self.name, finalizer)
        if finalizer in self.finalizers:
            reject(f"controller {self.name}: finalizer {finalizer} is declared twice")
        check_function(cleanup, f"cleanup of finalizer {finalizer}", kind=self.kind)
        self.finalizers[finalizer] = cleanup
        return self

    def reports_failures(
        self, function: Callable[[Request[R], Failure], Awaitable[None]], *, after: int = REPORT_AFTER
    ) -> Self:
        """Calls a function when a key fails repeatedly, when it is given up, and when it recovers.

        The function usually writes the status. It is called once for each of these stages, while no reconcile of the
        key runs, and gets the newest state of the object; an object that does not exist any more is not reported. If it
        raises, it is called again after the next attempt, for which the key is queued if nothing else is due.

        Args:
            function: called with a request and the `Failure`.
            after: failures in a row before the first report.

        Raises:
            ConfigurationError: the function does not fit, or there is one already.
        """
        self._report_failures(function, after)
        return self

    @staticmethod
    def every(
        seconds: float,
        function: PeriodicFunction,
        *,
        name: str,
        deadline: float | None = DEADLINE_SECONDS,
        backoff: Backoff | None = None,
        cache: Sequence[Cached] = (),
    ) -> "Periodic":
        """A controller without a kind: runs once when the process becomes the leader, then at an interval.

        Args:
            seconds: from the end of a run to the start of the next; an `Again` replaces it once.
            function: the function to run.
            name: unique in the manager.
            deadline: as in `RunOptions`.
            backoff: as in `RunOptions`.
            cache: the kinds that runs read.

        Raises:
            ConfigurationError: a value that cannot work.
        """
        from kaito.runtime.controller.periodic import Periodic

        return Periodic(seconds, function, RunOptions(name=name, deadline=deadline, backoff=backoff), cache=cache)

    @staticmethod
    def keyed(
        key: type[K],
        function: KeyedFunction[K],
        *,
        name: str,
        cache: Sequence[Cached] = (),
        **options: Unpack[RunKeywords[K]],
    ) -> "Keyed[K]":
        """A controller for things that are not objects of the cluster: tenants, pools, objects in several clusters.

        Args:
            key: type of the keys: hashable values, deduplicated by equality. A frozen dataclass is a good choice.
            function: reconciles a key; called with a `KeyedRequest`.
            name: unique in the manager.
            cache: the kinds that reconciles read.
            options: `workers`, `deadline`, `backoff` and the other options of `RunOptions`.

        Raises:
            ConfigurationError: a value that cannot work; the message names it.
        """
        from kaito.runtime.controller.keyed import Keyed

        return Keyed(key, function, RunOptions(name=name, **options), cache=cache)

    @property
    def watched_fields(self) -> Sequence[WatchedFields]:
        """The predicates, with the kinds whose fields they compare."""
        fields = [
            WatchedFields(self.kind, self.when),
            *(WatchedFields(owned.kind, owned.when) for owned in self.owned),
        ]
        if self.finalizers:  # without these fields in the cache the beginning of a deletion would not be noticed
            deletion = changed("finalizers", "deletionTimestamp")
            reader = f"finalizes({', '.join(map(repr, self.finalizers))})"
            fields.append(WatchedFields(self.kind, deletion, reader=reader))
        return [*fields, *(WatchedFields(watched.kind, watched.when, watched.cluster) for watched in self.watched)]

    def __repr__(self) -> str:
        return f"<controller {self.name} of {self.kind.gvk()}>"
