"""Plans what each cache of a manager keeps: the cluster's own declarations merged with the needs of the controllers.

One informer serves the whole process, so a kind is cached in one form. A declaration of the manager or of a cluster
applies to all controllers; the explicit form of one controller must be the form of the others, too. Otherwise one of
them would get a cache with objects missing: that raises `ConfigurationError` with the two declarations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kaito.runtime.cache import Cached
from kaito.runtime.controller import AnyCluster, CacheNeed, WatchedFields
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import GroupVersionKind, Resource
from kaito.runtime.predicate import paths_of


@dataclass(frozen=True, slots=True)
class CachePlan:
    """A kind as it is cached."""

    cached: Cached
    declared_by: str
    """The argument or the controller, for messages."""
    pinned: bool
    """Cached as long as the cache runs; otherwise as long as a controller needs it."""


def plan_cache(
    declared: Sequence[Cached],
    controllers: Mapping[str, Sequence[CacheNeed]],
    *,
    cluster: AnyCluster,
    namespaces: Sequence[str],
    argument: str,
) -> list[CachePlan]:
    """The kinds that the cache of one cluster keeps.

    Args:
        declared: declared for the whole cache; `Cached(Resource, ...)` sets defaults.
        controllers: the needs of each controller, in any cluster.
        cluster: the cluster of the cache.
        namespaces: those of declarations without namespaces.
        argument: the argument that `declared` was given as, for messages.

    Raises:
        ConfigurationError: two declarations of one kind contradict each other; the message contains both and a remedy.
    """
    defaults = next((each for each in declared if each.is_default), None)
    plans: dict[GroupVersionKind, CachePlan] = {}

    def same(one: Cached, other: Cached) -> bool:
        return one.with_defaults(defaults, namespaces).same_objects(other.with_defaults(defaults, namespaces))

    def is_plain(cached: Cached) -> bool:
        return same(cached, Cached(cached.kind))

    def add(new: CachePlan) -> None:
        gvk = new.cached.kind.gvk()
        known = plans.get(gvk)
        if known is None:
            plans[gvk] = new
        elif same(known.cached, new.cached) or (known.pinned and is_plain(new.cached)):
            plans[gvk] = replace(known, cached=_with_indexes(known, new))
        elif known.pinned and new.pinned and is_plain(known.cached):
            plans[gvk] = replace(new, cached=_with_indexes(new, known))
        else:
            raise _contradiction(known, new, argument)

    for cached in declared:
        if not cached.is_default:
            add(CachePlan(cached, argument, pinned=True))
    for name, needs in controllers.items():
        for need in needs:
            if need.cluster is cluster:
                add(CachePlan(need.cached, f"controller {name}", pinned=False))
    return list(plans.values())


def _with_indexes(plan: CachePlan, other: CachePlan) -> Cached:
    try:
        return plan.cached.with_indexes(other.cached.indexes)
    except ConfigurationError as error:
        message = f"{plan.declared_by} and {other.declared_by}: {error}"
        raise ConfigurationError(message) from error


def _contradiction(known: CachePlan, new: CachePlan, argument: str) -> ConfigurationError:
    kind = new.cached.kind.kind
    if known.pinned:
        remedy = f"remove the options of {new.declared_by}, or change {argument}"
    else:
        remedy = f"declare it once for all, in {argument.replace('...', f'[Cached({kind}, ...)]')}, and not elsewhere"
    return ConfigurationError(
        f"{known.declared_by} keeps {known.cached!r}, {new.declared_by} needs {new.cached!r}: one informer keeps one "
        f"form of {kind} for the whole process. To fix it, {remedy}"
    )


def check_live(live: Iterable[type[Resource]], plans: Iterable[CachePlan]) -> None:
    """Raises ConfigurationError if a kind is both cached and reads from the server each time."""
    cached = {plan.cached.kind.gvk(): plan.declared_by for plan in plans}
    for kind in live:
        declared_by = cached.get(kind.gvk())
        if declared_by is not None:
            message = f"{kind.kind} is cached ({declared_by} declares it) and live (live= names it): choose one"
            raise ConfigurationError(message)


def check_watched_fields(
    watched_fields: Mapping[str, Sequence[WatchedFields]], plans: Iterable[CachePlan], *, cluster: AnyCluster
) -> None:
    """Raises ConfigurationError if a predicate compares fields that the cache drops: it would never see a change."""
    by_kind = {plan.cached.kind.gvk(): plan for plan in plans}
    for controller, of_controller in watched_fields.items():
        for watched in of_controller:
            if watched.cluster is not cluster or watched.when is None:
                continue
            plan = by_kind[watched.kind.gvk()]
            for path in paths_of(watched.when):
                if not plan.cached.keeps(path):
                    message = (
                        f"controller {controller}: {watched.reader or f'when={watched.when}'} looks at "
                        f"{'.'.join(path)}, which {plan.declared_by} does not keep ({plan.cached!r})"
                    )
                    raise ConfigurationError(message)


def check_clusters(clusters: Sequence[AnyCluster], needs: Mapping[str, Sequence[CacheNeed]]) -> None:
    """Raises ConfigurationError if two clusters have one name, or a controller watches a cluster that is not listed."""
    names = [cluster.name for cluster in clusters]
    for name in names:
        if names.count(name) > 1:
            message = f"two clusters are named {name!r}: give one of them another name"
            raise ConfigurationError(message)
    for controller, of_controller in needs.items():
        for need in of_controller:
            if need.cluster is not None and not any(need.cluster is known for known in clusters):
                message = (
                    f"controller {controller} watches {need.cached.kind.kind} of cluster {need.cluster.name!r}, which "
                    f"the manager does not know: add it to Manager(clusters=[...])"
                )
                raise ConfigurationError(message)
