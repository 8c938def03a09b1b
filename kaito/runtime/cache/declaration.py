"""`Cached` declares which objects of a kind are kept in memory, and which of their fields.

Passed to the manager (`cache=[Cached(Pod, labels="app", only="metadata")]`); a controller declares the kinds that it
watches. Reads of undeclared kinds fail, so that no call starts a cluster-wide watch unintentionally.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self, cast, final

from kaito.runtime.cache.index import Index
from kaito.runtime.cache.jsontext import Path, parse_path
from kaito.runtime.cache.options import (
    REST,
    CacheOptions,
    Labels,
    NamespaceOptions,
    ResolvedOptions,
    Transform,
    parse_options,
    resolve,
)
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Resource

Only = Literal["metadata"] | None

ALL_NAMESPACES: Final = (REST,)
"""For `namespaces=`: the whole cluster, also when the manager is restricted to some namespaces."""

DROPPED: Final = ("metadata.managedFields",)
"""Dropped from every object by default: about half of a typical object's size, and rarely read by operators."""

_BUILT_IN_DEFAULTS: Final = CacheOptions(labels="", fields="", drop=tuple(map(parse_path, DROPPED)))


@final
class Cached:
    """A kind kept in memory by one informer per namespace (one for the cluster when none is named).

    `Cached(Resource, ...)` sets the defaults of every kind of the cache; it caches no kind itself.

    Args:
        kind: The kind.
        namespaces: Only these; empty means the manager's namespaces, `ALL_NAMESPACES` the whole cluster. A mapping
            overrides options per namespace: `{"web": {"labels": "tier=front"}, "jobs": {}}`. Its entry `""` stands for
            all namespaces without an entry.
        labels: Only objects with these labels, selected by the server. An object that loses them counts as deleted.
            Here and below, None means the cache's default, and an empty value selects all objects.
        fields: A field selector, for example `status.phase=Running`. `metadata.namespace=x` uses the namespaced path.
        only: `"metadata"` fetches and keeps only metadata.
        indexes: Indexes for `list(index=...)`.
        drop: Paths removed before an object is stored; replaces the default `metadata.managedFields`.
        transform: Called once with every received object, as plain JSON without the dropped paths; its result is
            cached. It must not change name, namespace, UID or resourceVersion. If it raises, reads of the object fail.
            `drop` is much cheaper.
        relist: Interval in seconds (±10 %) of a full list even though the watch works; 0 (the default) disables it. For
            kinds that must not depend on the watch alone; each relist costs the server a full list.

    Raises:
        ConfigurationError: namespaces for a cluster-scoped kind, an index of another kind, two indexes of one name, or
            a path that is malformed or would remove the object's identity.
    """

    __slots__ = (
        "_by_namespace",
        "_defaults",
        "_options",
        "indexes",
        "is_plain",
        "kind",
        "namespaces",
        "only",
        "relist",
    )

    def __init__(
        self,
        kind: type[Resource],
        *,
        namespaces: Sequence[str] | Mapping[str, NamespaceOptions] = (),
        labels: Labels = None,
        fields: str | None = None,
        only: Only = None,
        indexes: Sequence[Index[Any]] = (),
        drop: Sequence[str] | None = None,
        transform: Transform | None = None,
        relist: float | None = None,
    ) -> None:
        _check_arguments(kind, only, indexes)
        self.kind: type[Resource] = kind
        self.only: Only = only
        self.indexes: tuple[Index[Any], ...] = tuple(indexes)
        self.relist: float | None = relist
        self._defaults: Cached | None = None
        if isinstance(namespaces, str):
            raise ConfigurationError(f"{self._name}: namespaces={namespaces!r}: a list of names, or a mapping")
        self._options, fixed = self._parse(labels, fields, drop, transform)
        self.namespaces: tuple[str, ...] = tuple(dict.fromkeys(namespaces)) or ((fixed,) if fixed else ())
        self._by_namespace: dict[str, CacheOptions] = {}
        for namespace, options in namespaces.items() if isinstance(namespaces, Mapping) else ():
            self._add_namespace(namespace, options)
        if fixed and self.namespaces != (fixed,):
            raise ConfigurationError(f"{self._name}: fields= and namespaces= name different namespaces")
        if not isinstance(namespaces, Mapping) and REST in self.namespaces and len(self.namespaces) > 1:
            raise ConfigurationError(f"{self._name}: namespaces= names both the whole cluster and single namespaces")
        self._check()
        self.is_plain: bool = not (self.namespaces or only or relist is not None) and self._options == CacheOptions()
        """Whether it sets no option besides indexes, as the declarations of watching controllers do."""

    def _parse(
        self, labels: Labels, fields: str | None, drop: Sequence[str] | None, transform: Transform | None
    ) -> tuple[CacheOptions, str]:
        try:
            return parse_options(labels, fields, drop, transform)
        except ValueError as error:
            raise ConfigurationError(f"{self._name}: drop: {error}") from error

    def _add_namespace(self, namespace: str, options: NamespaceOptions) -> None:
        unknown = options.keys() - NamespaceOptions.__annotations__.keys()
        if unknown:
            raise ConfigurationError(
                f"{self._name}: namespaces={{{namespace!r}: ...}}: unknown options {sorted(unknown)}"
            )
        self._by_namespace[namespace], fixed = self._parse(
            options.get("labels"), options.get("fields"), options.get("drop"), options.get("transform")
        )
        if fixed not in {"", namespace}:
            raise ConfigurationError(f"{self._name}: the fields of namespace {namespace!r} name another, {fixed!r}")

    def _check(self) -> None:
        if self.is_default:
            if self.only or self.indexes:
                raise ConfigurationError(f"{self._name}: only= and indexes= cannot be defaults of every kind")
        elif not self.kind.kind or not self.kind.api_version:
            raise ConfigurationError(f"{self.kind.__name__} has no kind: declare it with api= and kind=")
        if not self.kind.namespaced and any(self.namespaces):
            raise ConfigurationError(f"{self._name}: the kind is cluster-scoped, remove namespaces=")
        if self.relist is not None and self.relist < 0:
            raise ConfigurationError(f"{self._name}: relist={self.relist:g} must not be negative")
        names = [index.name for index in self.indexes]
        for index in self.indexes:
            if index.kind.gvk() != self.kind.gvk():
                raise ConfigurationError(f"{self._name}: {index!r} is an index of another kind")
            if names.count(index.name) > 1:
                raise ConfigurationError(f"{self._name}: two indexes are named {index.name!r}")

    @property
    def _name(self) -> str:
        return f"Cached({self.kind.kind or self.kind.__name__})"

    # Resolved options.

    @property
    def is_default(self) -> bool:
        """Whether it sets the defaults of every kind of the cache."""
        return self.kind is Resource

    @property
    def resolved(self) -> tuple[ResolvedOptions, ...]:
        """The resolved options, one entry per namespace; one for the whole cluster when none is named."""
        return tuple(
            resolve(self._merged(namespace), namespace, self.namespaces)
            for namespace in self.namespaces or ALL_NAMESPACES
        )

    @property
    def relist_seconds(self) -> float:
        """Time between full lists; 0 is never."""
        return self.relist or 0.0

    def _merged(self, namespace: str) -> CacheOptions:
        options = self._by_namespace.get(namespace, CacheOptions()).merged_with(self._options)
        if self._defaults is not None:
            options = options.merged_with(self._defaults._by_namespace.get(namespace, CacheOptions())).merged_with(
                self._defaults._options
            )
        return options.merged_with(_BUILT_IN_DEFAULTS)

    def keeps(self, path: Path) -> bool:
        """Whether a field is in the cached objects of every namespace, without considering transforms."""
        if self.only == "metadata" and path[0] != "metadata":
            return False
        return not any(each.drops(path) for each in self.resolved)

    def same_objects(self, other: Self) -> bool:
        """Whether both cache the same objects in the same form; indexes may differ."""
        return (set(self.resolved), self.only, self.relist_seconds) == (
            set(other.resolved),
            other.only,
            other.relist_seconds,
        )

    # Derived declarations.

    def with_indexes(self, more: Sequence[Index[Any]]) -> Self:
        """The same declaration with more indexes; known ones are not repeated.

        Raises:
            ConfigurationError: another index has the name of a known one.
        """
        other = copy.copy(self)
        other.indexes = (*self.indexes, *(index for index in more if index not in self.indexes))
        other._check()
        return other

    def with_defaults(self, defaults: Self | None, namespaces: Sequence[str]) -> Self:
        """The same declaration, completed with the defaults of the cache."""
        other = copy.copy(self)
        other._defaults = defaults
        if defaults is not None and other.relist is None:
            other.relist = defaults.relist
        if self.kind.namespaced and not self.namespaces:
            other.namespaces = (defaults.namespaces if defaults is not None else ()) or tuple(namespaces)
        return other

    def __repr__(self) -> str:
        own = self._options
        shown: dict[str, object] = {
            "namespaces": {name: _shown(self._by_namespace.get(name, CacheOptions())) for name in self.namespaces}
            if self._by_namespace
            else self.namespaces,
            **_shown(own),
            "only": self.only,
            "indexes": self.indexes,
            "relist": self.relist,
        }
        return ", ".join([self._name[:-1], *(f"{k}={v!r}" for k, v in shown.items() if v)]) + ")"


def _check_arguments(kind: object, only: object, indexes: object) -> None:
    """Raises ConfigurationError for arguments of a wrong type."""
    if not isinstance(kind, type) or not issubclass(kind, Resource):
        hint = f": pass the class {type(kind).__name__}" if isinstance(kind, Resource) else ""
        raise ConfigurationError(f"Cached() takes a kind, not {kind!r}{hint}")
    name = f"Cached({kind.kind or kind.__name__})"
    if only not in {None, "metadata"}:
        raise ConfigurationError(f"{name}: only= accepts 'metadata' or None, not {only!r}")
    if isinstance(indexes, Index):
        raise ConfigurationError(f"{name}: indexes= takes a list: write indexes=[{indexes!r}]")
    for index in cast("Sequence[object]", indexes):
        if not isinstance(index, Index):
            raise ConfigurationError(f"{name}: indexes= takes Index objects, not {index!r}")


def _shown(options: CacheOptions) -> dict[str, object]:
    drop = None if options.drop is None else [".".join(path) for path in options.drop]
    known = {"labels": options.labels, "fields": options.fields, "drop": drop, "transform": options.transform}
    return {name: value for name, value in known.items() if value is not None}
