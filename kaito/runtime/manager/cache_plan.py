"""What each cache of a manager keeps: the manager's own declarations and the needs of its controllers, joined.

One informer serves the whole process, so a kind is kept in one form. What `Manager(cache=...)` says of a kind holds for
everybody; what one controller says must be what the others say too. Anything else would hand one of them a cache with
objects missing, and is refused, by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kaito.runtime.cache import Cached
from kaito.runtime.controller import CacheNeed, ClusterRef, WatchedFields
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import GroupVersionKind, Resource
from kaito.runtime.predicate import paths_of

_MANAGER: Final = "Manager(cache=...)"


@dataclass(frozen=True, slots=True)
class Declared:
    """A kind as it is kept."""

    cached: Cached
    who: str
    """Who said so, for messages."""
    pinned: bool
    """Kept as long as the cache runs; else as long as a controller needs it."""


def join(
    own: Sequence[Cached],
    controllers: Mapping[str, Sequence[CacheNeed]],
    *,
    cluster: ClusterRef | None = None,
    namespaces: Sequence[str] = (),
    where: str = _MANAGER,
) -> list[Declared]:
    """What the cache of one cluster keeps.

    Args:
        own: said for the whole cache; `Cached(Resource, ...)` sets defaults.
        controllers: what each controller needs, of any cluster.
        cluster: whose cache it is; None for the manager's own cluster.
        namespaces: those of declarations that name none.
        where: what `own` is called in messages.

    Raises:
        ConfigurationError: two declarations of one kind that contradict each other; both and the remedy are named.
    """
    defaults = next((each for each in own if each.is_default), None)
    kinds: dict[GroupVersionKind, Declared] = {}

    def same(one: Cached, other: Cached) -> bool:
        return one.with_defaults(defaults, namespaces).same_objects(other.with_defaults(defaults, namespaces))

    def is_plain(cached: Cached) -> bool:
        return same(cached, Cached(cached.kind))

    def add(new: Declared) -> None:
        gvk = new.cached.kind.gvk()
        known = kinds.get(gvk)
        if known is None:
            kinds[gvk] = new
        elif same(known.cached, new.cached) or (known.pinned and is_plain(new.cached)):
            kinds[gvk] = replace(known, cached=_with_indexes(known, new))
        elif known.pinned and new.pinned and is_plain(known.cached):
            kinds[gvk] = replace(new, cached=_with_indexes(new, known))
        else:
            raise _contradiction(known, new, where)

    for cached in own:
        if not cached.is_default:
            add(Declared(cached, where, pinned=True))
    for name, needs in controllers.items():
        for need in needs:
            if need.cluster is cluster:
                add(Declared(need.cached, f"controller {name}", pinned=False))
    return list(kinds.values())


def _with_indexes(kept: Declared, other: Declared) -> Cached:
    try:
        return kept.cached.with_indexes(other.cached.indexes)
    except ConfigurationError as error:
        message = f"{kept.who} and {other.who}: {error}"
        raise ConfigurationError(message) from error


def _contradiction(known: Declared, new: Declared, where: str) -> ConfigurationError:
    kind = new.cached.kind.kind
    if known.pinned:
        remedy = f"take the options away from {new.who}, or change what {where} says"
    else:
        remedy = f"say it once for all, in {where.replace('...', f'[Cached({kind}, ...)]')}, and nowhere else"
    return ConfigurationError(
        f"{known.who} keeps {known.cached!r}, {new.who} needs {new.cached!r}: one informer keeps one form of {kind} "
        f"for the whole process. To mend it, {remedy}"
    )


def check_live(live: Iterable[type[Resource]], kept: Iterable[Declared]) -> None:
    """Refuse kinds that are kept and read from the server each time at once.

    Raises:
        ConfigurationError: there is one.
    """
    keepers = {declared.cached.kind.gvk(): declared.who for declared in kept}
    for kind in live:
        who = keepers.get(kind.gvk())
        if who is not None:
            message = f"{kind.kind} is cached ({who} declares it) and live (live= names it): choose one"
            raise ConfigurationError(message)


def check_watched_fields(
    watched_fields: Mapping[str, Sequence[WatchedFields]],
    kept: Iterable[Declared],
    *,
    cluster: ClusterRef | None = None,
) -> None:
    """Refuse predicates that compare fields which the cache does not keep: they would never see a change.

    Raises:
        ConfigurationError: there is one.
    """
    kinds = {declared.cached.kind.gvk(): declared for declared in kept}
    for controller, looks in watched_fields.items():
        for look in looks:
            if look.cluster is not cluster or look.when is None:
                continue
            declared = kinds[look.kind.gvk()]
            for path in paths_of(look.when):
                if not declared.cached.keeps(path):
                    message = (
                        f"controller {controller}: {look.reader or f'when={look.when}'} looks at {'.'.join(path)}, "
                        f"which {declared.who} "
                        f"does not keep ({declared.cached!r})"
                    )
                    raise ConfigurationError(message)


def check_clusters(clusters: Sequence[ClusterRef], needs: Mapping[str, Sequence[CacheNeed]]) -> None:
    """Refuse two clusters of one name, and a watch of a cluster that the manager does not know.

    Raises:
        ConfigurationError: there is one.
    """
    names = [cluster.name for cluster in clusters]
    for name in names:
        if names.count(name) > 1:
            message = f"two clusters are named {name!r}: give one of them another name"
            raise ConfigurationError(message)
    for controller, needed in needs.items():
        for need in needed:
            if need.cluster is not None and not any(need.cluster is known for known in clusters):
                message = (
                    f"controller {controller} watches {need.cached.kind.kind} of cluster {need.cluster.name!r}, which "
                    f"the manager does not know: name it in Manager(clusters=[...])"
                )
                raise ConfigurationError(message)
