"""`Keyed`: a controller whose keys are values of your own, for what is no object of the cluster.

Made by `Controller.keyed`. Everything that holds for a controller holds for it (queue, workers, deadline, backoff,
metrics, leadership), except that nobody reads an object first and that there are no finalizers.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from kaito.runtime.cache import Cached, Index
from kaito.runtime.controller.arguments import check_function, check_limits, check_open, check_seconds, refuse
from kaito.runtime.controller.cache_needs import Elsewhere, Need, Needs, Sight
from kaito.runtime.controller.watching import Watched, watched
from kaito.runtime.handler import KeyMapper
from kaito.runtime.meta import LabelSelector, Resource
from kaito.runtime.predicate import Predicate
from kaito.runtime.reconcile import KeyedFunction
from kaito.runtime.workqueue import Backoff, RateLimiter

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Resource)


@final
class Keyed(Generic[K]):
    """Keeps what the keys stand for converging. See `Controller.keyed`."""

    def __init__(
        self,
        key: type[K],
        function: KeyedFunction[K],
        *,
        name: str,
        workers: int,
        deadline: float | None,
        backoff: Backoff | None,
        limiter: RateLimiter[K] | None,
        spacing: float,
        sync_timeout: float,
        cache: Sequence[Cached],
        wait_for_kinds: bool,
        drain: float,
    ) -> None:
        check_limits(
            name,
            workers=workers,
            deadline=deadline,
            backoff=backoff,
            limiter=limiter,
            spacing=spacing,
            aging_step=None,
            sync_timeout=sync_timeout,
        )
        check_seconds(name, "drain", drain, zero=True)
        _check_key(key, name)
        check_function(function, f"function of controller {name}", kind=None, visits=True)
        self.key = key
        self.function = function
        self.name = name
        self.workers = workers
        self.deadline = deadline
        self.backoff: Backoff = backoff or Backoff()
        self.limiter = limiter
        self.spacing = spacing
        self.sync_timeout = sync_timeout
        self.wait_for_kinds = wait_for_kinds
        self.drain = drain
        self.watched: list[Watched] = []
        self._needs = Needs(name)
        self._needs.take(cache)
        self._built = False

    def watches(
        self,
        kind: type[W],
        *,
        to: KeyMapper[W, K],
        when: Predicate | None = None,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        cluster: Elsewhere | None = None,
        optional: bool = False,
    ) -> Self:
        """Run for the keys that `to` names when an object of this kind changes.

        Args:
            kind: the watched kind.
            to: called with the object and a `View` of the cache, for the old and the new state; returns a list of keys,
                one key, or None.
            when: which events count.
            labels: keep (and see) only objects with these labels.
            only: `"metadata"` keeps nothing else of them.
            indexes: by which runs list them.
            cluster: watch it there instead of in the manager's own cluster.
            optional: the kind may be missing: see `Controller.watches`.

        Raises:
            ConfigurationError: something that is no kind, function or predicate, or the kind is declared otherwise.
        """
        check_open(self.name, "watches", built=self._built)
        self.watched.append(watched(self.name, kind, to=to, handler=None, when=when, cluster=cluster))
        self._needs.name_kind(kind, labels=labels, only=only, indexes=indexes, cluster=cluster, optional=optional)
        return self

    def seal(self) -> None:
        """The manager has read the declaration: changes would go unnoticed, and are refused from now on."""
        self._built = True

    @property
    def kinds(self) -> Sequence[type[Resource]]:
        """Every kind it needs of the manager's own cluster."""
        return [need.cached.kind for need in self.needs if need.cluster is None]

    @property
    def needs(self) -> Sequence[Need]:
        """What it needs in caches, one a kind and cluster."""
        return self._needs.all

    @property
    def sights(self) -> Sequence[Sight]:
        """The predicates, with the kinds whose fields they look at."""
        return [Sight(watched.kind, watched.when, watched.cluster) for watched in self.watched]

    def __repr__(self) -> str:
        return f"<controller {self.name} of {self.key.__name__}>"


def _check_key(key: object, controller: str) -> None:
    if not isinstance(key, type):
        refuse(f"controller {controller}: keys are of a type of yours, not {key!r}")
    if issubclass(key, Resource):
        refuse(f"controller {controller}: {key.__name__} is a kind: write Controller({key.__name__}, ...)")
    if key.__hash__ is None:  # pyright: ignore[reportUnnecessaryComparison] -- Python's way to say unhashable
        refuse(f"controller {controller}: {key.__name__} cannot be a key, it is not hashable: @dataclass(frozen=True)")
