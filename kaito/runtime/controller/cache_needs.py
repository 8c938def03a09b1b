"""What a controller needs in caches: collected by its declaration, read by the manager and by `RunningController`.

A kind is needed either because the declaration names it (`owns`, `watches`) or in an explicit form
(`cache=[Cached(...)]`, `labels=`, `only=`). A kind that is only named accepts any form. Two explicit forms within one
controller are rejected here, those of different controllers by `kaito.runtime.manager.cache_plan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final

from kaito.runtime.cache import Cache, Cached, Index
from kaito.runtime.controller.arguments import check_cached, reject
from kaito.runtime.controller.cluster_sets import BaseClusterSet
from kaito.runtime.meta import GroupVersionKind, LabelSelector, Resource
from kaito.runtime.predicate import Predicate

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only


class ClusterRef(Protocol):
    """A cluster that a controller may watch: `kaito.runtime.manager.Cluster`."""

    @property
    def name(self) -> str:
        """Unique in the manager."""
        ...

    @property
    def cache(self) -> Cache:
        """Its informers, once the manager has started."""
        ...


AnyCluster: TypeAlias = ClusterRef | BaseClusterSet
"""A cluster, or a set of clusters that changes while the manager runs."""


@dataclass(frozen=True, slots=True)
class CacheNeed:
    """A kind that a controller needs in a cache."""

    cached: Cached
    """The kind, and how much of it."""
    cluster: AnyCluster | None = None
    """The cluster whose cache it is; None for the manager's own."""
    explicit: bool = False
    """Whether options were given; otherwise the kind is only named, and any form in the cache will do."""
    optional: bool = False
    """Whether the kind may be missing: only watches that wait for it need it."""


@dataclass(frozen=True, slots=True)
class WatchedFields:
    """The fields that a predicate compares: the cache has to keep them."""

    kind: type[Resource]
    when: Predicate | None
    cluster: AnyCluster | None = None
    reader: str = ""
    """What compares the fields, for the error message; the predicate `when` of a source when empty."""


@final
class CacheNeeds:
    """The needs of one controller, merged for each kind and cluster."""

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._needs: dict[tuple[str, GroupVersionKind], CacheNeed] = {}

    @property
    def all(self) -> Sequence[CacheNeed]:
        """One entry for each kind and cluster, in the order of declaration."""
        return list(self._needs.values())

    def add_kind(
        self,
        kind: type[Resource],
        *,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        cluster: AnyCluster | None = None,
        optional: bool = False,
    ) -> None:
        """Adds a kind, in an explicit form if there are options.

        Raises:
            ConfigurationError: an earlier form differs, or the kind is optional and of another cluster.
        """
        if optional and cluster is not None:
            reject(
                f"controller {self._controller}: watches({kind.kind}, optional=True) of cluster {cluster.name}: only "
                f"kinds of the manager's own cluster can be waited for"
            )
        explicit = labels is not None or only is not None or bool(indexes)
        self._merge(CacheNeed(Cached(kind, labels=labels, only=only, indexes=indexes), cluster, explicit, optional))

    def add_declared(self, cached: Sequence[Cached]) -> None:
        """Adds kinds in an explicit form.

        Raises:
            ConfigurationError: one of them is not a declaration, or differs from an earlier form.
        """
        check_cached(self._controller, cached)
        for each in cached:
            self._merge(CacheNeed(each, explicit=True))

    def _merge(self, new: CacheNeed) -> None:
        place = (new.cluster.name if new.cluster is not None else "", new.cached.kind.gvk())
        known = self._needs.get(place)
        if known is None:
            self._needs[place] = new
            return
        optional = known.optional and new.optional
        if new.explicit and not known.explicit:
            self._needs[place] = replace(new, optional=optional)
        elif not new.explicit:
            self._needs[place] = replace(known, optional=optional)
        elif known.cached.same_objects(new.cached):
            cached = known.cached.with_indexes(new.cached.indexes)
            self._needs[place] = replace(known, cached=cached, optional=optional)
        else:
            reject(
                f"controller {self._controller}: {known.cached!r} and {new.cached!r} contradict each other: one "
                f"informer keeps one form of each object, so declare it once"
            )
