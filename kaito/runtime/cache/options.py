"""Options of the cache for one kind in one namespace, and the order in which they are resolved.

`Cached` is written by users and holds `CacheOptions`; the informer makes one reflector and one shard of each
`ResolvedOptions`. An option that is not set is taken from the next of: the kind in that namespace, the kind, the cache
in that namespace, the cache (controller-runtime's order for `cache.ByObject` and the defaults of `cache.Options`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypedDict, final

from kaito.runtime.cache.jsontext import Path, parse_path
from kaito.runtime.client.path import label_query
from kaito.runtime.meta import LabelSelector

Labels = LabelSelector | Mapping[str, str] | str | None

Transform: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Returns the part of an object to cache, from plain JSON without the dropped paths; must keep its identity."""

REST: Final = ""
"""The key of all namespaces without an entry."""

_PROTECTED: Final = {
    ("metadata",),
    *(("metadata", name) for name in ("name", "namespace", "uid", "resourceVersion")),
}


class NamespaceOptions(TypedDict, total=False):
    """Options of one namespace in `Cached(namespaces={...})`; missing ones are the kind's."""

    labels: Labels
    fields: str | None
    drop: Sequence[str] | None
    transform: Transform | None


@final
@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Options that a declaration sets: None is unset, an empty value is set."""

    labels: str | None = None
    fields: str | None = None
    drop: tuple[Path, ...] | None = None
    transform: Transform | None = None

    def merged_with(self, general: "CacheOptions") -> "CacheOptions":
        """These options, with the unset ones taken from `general`."""
        return CacheOptions(
            general.labels if self.labels is None else self.labels,
            general.fields if self.fields is None else self.fields,
            general.drop if self.drop is None else self.drop,
            self.transform or general.transform,
        )


@final
@dataclass(frozen=True, slots=True)
class ResolvedOptions:
    """The final options of one namespace."""

    namespace: str
    """Empty: the whole cluster, or all namespaces without an entry (`fields` then excludes the others)."""
    labels: str = ""
    fields: str = ""
    drop: tuple[Path, ...] = ()
    transform: Transform | None = None

    @property
    def is_whole(self) -> bool:
        """Whether cached objects lack nothing but `managedFields`."""
        return self.transform is None and all(path[:2] == ("metadata", "managedFields") for path in self.drop)

    def drops(self, path: Path) -> bool:
        """Whether the field is not in the cached objects, transforms are not considered."""
        return any(path[: len(dropped)] == dropped for dropped in self.drop)


def parse_options(
    labels: Labels, fields: str | None, drop: Sequence[str] | None, transform: Transform | None
) -> tuple[CacheOptions, str]:
    """Parses the options; also returns the namespace that `fields` names, which is used in the path instead.

    Raises:
        ValueError: a path that is malformed or would remove the object's identity.
    """
    narrowed, namespace = (None, "") if fields is None else _split_namespace(fields)
    paths = None if drop is None else tuple(parse_path(path) for path in drop)
    for path in paths or ():
        if path in _PROTECTED:
            raise ValueError(f"{'.'.join(path)} is the object's identity")
    return CacheOptions(None if labels is None else label_query(labels), narrowed, paths, transform), namespace


def resolve(options: CacheOptions, namespace: str, others: Sequence[str]) -> ResolvedOptions:
    """The final options of a namespace; the rest of the cluster, without the `others`, shares one informer."""
    fields = [options.fields] if options.fields else []
    if namespace == REST:
        fields += [f"metadata.namespace!={other}" for other in others if other != REST]
    return ResolvedOptions(namespace, options.labels or "", ",".join(fields), options.drop or (), options.transform)


def _split_namespace(fields: str) -> tuple[str, str]:
    """Splits `metadata.namespace=x` off a field selector: RBAC may allow only the path of that namespace."""
    rest: list[str] = []
    namespace = ""
    for term in filter(None, fields.split(",")):
        name, _, value = term.replace("==", "=").partition("=")
        if name == "metadata.namespace":
            namespace = value
        else:
            rest.append(term)
    return ",".join(rest), namespace
