"""What a controller needs in caches: collected while it is declared, read by the manager and by `Running`.

Kinds are needed by being named (`owns`, `watches`) or in a certain form (`cache=[Cached(...)]`, `labels=`, `only=`).
A kind that is only named is content with any form; two forms within one controller are refused here, those of different
controllers by `kaito.runtime.manager.cache_plan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, final

from kaito.runtime.cache import Cache, Cached, Index
from kaito.runtime.controller.arguments import check_cached, refuse
from kaito.runtime.meta import GroupVersionKind, LabelSelector, Resource
from kaito.runtime.predicate import Predicate

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only


class Elsewhere(Protocol):
    """Another cluster that a controller may watch: `kaito.runtime.manager.Cluster`."""

    @property
    def name(self) -> str:
        """Unique in the manager."""
        ...

    @property
    def cache(self) -> Cache:
        """Its informers, once the manager has started."""
        ...


@dataclass(frozen=True, slots=True)
class Need:
    """What a controller needs in a cache."""

    cached: Cached
    """The kind, and how much of it."""
    cluster: Elsewhere | None = None
    """Whose cache; None for the manager's own cluster."""
    told: bool = False
    """Options were given; else the kind is only named, and whatever form others keep it in will do."""
    optional: bool = False
    """The kind may be missing: only watches that wait for it need it."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A predicate and what it looks at: the cache has to keep those fields."""

    kind: type[Resource]
    when: Predicate | None
    cluster: Elsewhere | None = None
    who: str = ""
    """What reads the fields, for the error message; the predicate `when` of a source when empty."""


@final
class Needs:
    """What one controller says it needs in caches, kind by kind, joined."""

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._needs: dict[tuple[str, GroupVersionKind], Need] = {}

    @property
    def all(self) -> Sequence[Need]:
        """One a kind and cluster, in the order they were named."""
        return list(self._needs.values())

    def name_kind(
        self,
        kind: type[Resource],
        *,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        cluster: Elsewhere | None = None,
        optional: bool = False,
    ) -> None:
        """The kind is needed; with options, in this form. Raises as `take`, and for an optional kind of a cluster."""
        if optional and cluster is not None:
            refuse(
                f"controller {self._controller}: watches({kind.kind}, optional=True) of cluster {cluster.name}: only "
                f"kinds of the manager's own cluster can be waited for"
            )
        told = labels is not None or only is not None or bool(indexes)
        self._join(Need(Cached(kind, labels=labels, only=only, indexes=indexes), cluster, told, optional))

    def take(self, cached: Sequence[Cached]) -> None:
        """The kinds are needed in these forms.

        Raises:
            ConfigurationError: one of them is not a declaration, or contradicts another.
        """
        check_cached(self._controller, cached)
        for each in cached:
            self._join(Need(each, told=True))

    def _join(self, new: Need) -> None:
        place = (new.cluster.name if new.cluster is not None else "", new.cached.kind.gvk())
        known = self._needs.get(place)
        if known is None:
            self._needs[place] = new
            return
        optional = known.optional and new.optional
        if new.told and not known.told:
            self._needs[place] = replace(new, optional=optional)
        elif not new.told:
            self._needs[place] = replace(known, optional=optional)
        elif known.cached.same_objects(new.cached):
            cached = known.cached.with_indexes(new.cached.indexes)
            self._needs[place] = replace(known, cached=cached, optional=optional)
        else:
            refuse(
                f"controller {self._controller}: {known.cached!r} and {new.cached!r} contradict each other: "
                f"one informer keeps one form of each object, so say it once"
            )
