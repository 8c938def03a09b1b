"""`Keyed`: a controller whose keys are values of any type, for things that are not objects of the cluster.

Made by `Controller.keyed`. It works like every controller (queue, workers, deadline, backoff, metrics, leadership), but
no object is read before a reconcile and there are no finalizers.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from kaito.runtime.cache import Cached, Index
from kaito.runtime.controller.arguments import check_function, reject
from kaito.runtime.controller.base import BaseController
from kaito.runtime.controller.cache_needs import AnyCluster, WatchedFields
from kaito.runtime.controller.failures import REPORT_AFTER, Failure
from kaito.runtime.controller.options import RunOptions
from kaito.runtime.controller.watched_kind import watched_kind
from kaito.runtime.handler import KeyMapper
from kaito.runtime.meta import LabelSelector, Resource
from kaito.runtime.predicate import Predicate
from kaito.runtime.reconcile import KeyedFunction, KeyedRequest

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Resource)


@final
class Keyed(BaseController[K], Generic[K]):
    """Reconciles keys of one type. See `Controller.keyed`."""

    def __init__(
        self, key: type[K], function: KeyedFunction[K], options: RunOptions[K], *, cache: Sequence[Cached]
    ) -> None:
        super().__init__(options, cache=cache)
        _check_key(key, self.name)
        check_function(function, f"function of controller {self.name}", kind=None, keyed=True)
        self.key = key
        self.function = function

    def watches(
        self,
        kind: type[W],
        *,
        to: KeyMapper[W, K],
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
            to: called with the object and a `View` of the cache, for the old and the new state; returns a list of keys,
                one key, or None.
            when: the events that count.
            labels: cache (and watch) only objects with these labels.
            only: `"metadata"` caches nothing else of them.
            indexes: indexes that reconciles use to list them.
            cluster: the cluster or `ClusterSet` to watch, if not the manager's own.
            optional: the kind may be missing; see `Controller.watches`.

        Raises:
            ConfigurationError: an argument is not a kind, function or predicate, or the kind is declared differently.
        """
        self._check_open("watches")
        self.watched.append(watched_kind(self.name, kind, to=to, handler=None, when=when, cluster=cluster))
        self._needs.add_kind(kind, labels=labels, only=only, indexes=indexes, cluster=cluster, optional=optional)
        return self

    def reports_failures(
        self, function: Callable[[KeyedRequest[K], Failure], Awaitable[None]], *, after: int = REPORT_AFTER
    ) -> Self:
        """Calls a function when a key fails repeatedly, when it is given up, and when it recovers.

        As `Controller.reports_failures`, with a `KeyedRequest`.
        """
        self._report_failures(function, after)
        return self

    @property
    def watched_fields(self) -> Sequence[WatchedFields]:
        """The predicates, with the kinds whose fields they compare."""
        return [WatchedFields(watched.kind, watched.when, watched.cluster) for watched in self.watched]

    def __repr__(self) -> str:
        return f"<controller {self.name} of {self.key.__name__}>"


def _check_key(key: object, controller: str) -> None:
    if not isinstance(key, type):
        reject(f"controller {controller}: the key must be a type, not {key!r}")
    if issubclass(key, Resource):
        reject(f"controller {controller}: {key.__name__} is a kind: write Controller({key.__name__}, ...)")
    if key.__hash__ is None:  # pyright: ignore[reportUnnecessaryComparison] -- Python's mark of an unhashable type
        reject(f"controller {controller}: {key.__name__} cannot be a key, it is not hashable: @dataclass(frozen=True)")
