"""`Cached`: which objects of a kind are kept in memory, and how much of each.

Given to the manager (`cache=[Cached(Pod, labels="app", only="metadata")]`); a controller that watches a kind declares
it by doing so. Reads of anything undeclared fail, so no call starts a cluster-wide watch by surprise.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

from kaito.runtime.cache.index import Index
from kaito.runtime.cache.jsontext import Path, parse_path
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import LabelSelector, Resource

Labels = LabelSelector | Mapping[str, str] | str | None
Only = Literal["metadata"] | None

ALL_NAMESPACES: Final = ("",)
"""For `namespaces=`: the whole cluster, also when the manager is restricted to some namespaces."""

DROPPED: Final = ("metadata.managedFields",)
"""Dropped from every object unless told otherwise: half of a typical object's size, read by nobody here."""

_PROTECTED: Final = {
    ("metadata",),
    *(("metadata", name) for name in ("name", "namespace", "uid", "resourceVersion")),
}


@final
class Cached:
    """A kind kept in memory by one informer per namespace (one for the cluster when none is named).

    Args:
        kind: The kind.
        namespaces: Only these; empty means the manager's namespaces, `ALL_NAMESPACES` the whole cluster.
        labels: Only objects with these labels, selected by the server. An object that loses them counts as deleted.
        fields: A field selector, for example `status.phase=Running`. `metadata.namespace=x` uses the namespaced path.
        only: `"metadata"` fetches and keeps nothing but metadata.
        indexes: Indexes for `list(index=...)`.
        drop: Paths removed before an object is stored; replaces the default `metadata.managedFields`.

    Raises:
        ConfigurationError: namespaces for a cluster-scoped kind, an index of another kind, two indexes of one name, or
        a
            path that is malformed or would remove the object's identity.
    """

    __slots__ = ("drop", "fields", "indexes", "kind", "labels", "namespaces", "only")

    def __init__(
        self,
        kind: type[Resource],
        *,
        namespaces: Sequence[str] = (),
        labels: Labels = None,
        fields: str | None = None,
        only: Only = None,
        indexes: Sequence[Index[Any]] = (),
        drop: Sequence[str] = DROPPED,
    ) -> None:
        self.kind: type[Resource] = kind
        self.labels: str = selector_text(labels)
        narrowed, fixed = _split_namespace(fields or "")
        self.fields: str = narrowed
        self.namespaces: tuple[str, ...] = tuple(dict.fromkeys(namespaces)) or ((fixed,) if fixed else ())
        if fixed and self.namespaces != (fixed,):
            raise ConfigurationError(f"Cached({kind.kind}): fields= and namespaces= name different namespaces")
        self.only: Only = only
        self.indexes: tuple[Index[Any], ...] = tuple(indexes)
        try:
            self.drop: tuple[Path, ...] = tuple(parse_path(path) for path in drop)
        except ValueError as error:
            raise ConfigurationError(f"Cached({kind.kind}): drop: {error}") from error
        self._check()

    def _check(self) -> None:
        name = f"Cached({self.kind.kind})"
        if not self.kind.kind or not self.kind.api_version:
            raise ConfigurationError(f"{self.kind.__name__} names no kind: declare it with api= and kind=")
        if not self.kind.namespaced and any(self.namespaces):
            raise ConfigurationError(f"{name}: the kind is cluster-scoped, namespaces= cannot restrict it")
        if "" in self.namespaces and len(self.namespaces) > 1:
            raise ConfigurationError(f"{name}: namespaces= names the whole cluster and single namespaces at once")
        names = [index.name for index in self.indexes]
        for index in self.indexes:
            if index.kind.gvk() != self.kind.gvk():
                raise ConfigurationError(f"{name}: {index!r} is an index of another kind")
            if names.count(index.name) > 1:
                raise ConfigurationError(f"{name}: two indexes are named {index.name!r}")
        for path in self.drop:
            if path in _PROTECTED:
                raise ConfigurationError(f"{name}: drop: {'.'.join(path)} is the object's identity")

    def keeps(self, path: Path) -> bool:
        """Whether a field is in the cached objects, as far as the declaration can tell."""
        if self.only == "metadata" and path[0] != "metadata":
            return False
        return not any(path[: len(dropped)] == dropped for dropped in self.drop)

    def same_objects(self, other: "Cached") -> bool:
        """Whether both keep the same objects in the same form; indexes may differ."""
        return (self.namespaces, self.labels, self.fields, self.only, self.drop) == (
            other.namespaces,
            other.labels,
            other.fields,
            other.only,
            other.drop,
        )

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing but the kind, as the declarations of watching controllers do."""
        return self.same_objects(Cached(self.kind))

    def with_indexes(self, more: Sequence[Index[Any]]) -> "Cached":
        """The same declaration with more indexes; known ones are not repeated.

        Raises:
            ConfigurationError: another index has the name of a known one.
        """
        return self._replaced(indexes=(*self.indexes, *(index for index in more if index not in self.indexes)))

    def in_namespaces(self, namespaces: Sequence[str]) -> "Cached":
        """The same declaration, restricted to the namespaces."""
        return self._replaced(namespaces=namespaces)

    def _replaced(
        self, *, indexes: Sequence[Index[Any]] | None = None, namespaces: Sequence[str] | None = None
    ) -> "Cached":
        copy = Cached.__new__(Cached)
        for name in Cached.__slots__:
            setattr(copy, name, getattr(self, name))
        if indexes is not None:
            copy.indexes = tuple(indexes)
        if namespaces is not None:
            copy.namespaces = tuple(namespaces)
        copy._check()
        return copy

    def __repr__(self) -> str:
        said = {
            "namespaces": self.namespaces,
            "labels": self.labels,
            "fields": self.fields,
            "only": self.only,
            "indexes": self.indexes,
        }
        return ", ".join([f"Cached({self.kind.kind}", *(f"{k}={v!r}" for k, v in said.items() if v)]) + ")"


def selector_text(labels: Labels) -> str:
    """The `labelSelector` parameter for any of the accepted forms; empty selects everything."""
    if labels is None:
        return ""
    if isinstance(labels, str):
        return labels
    if isinstance(labels, LabelSelector):
        return str(labels)
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _split_namespace(fields: str) -> tuple[str, str]:
    """A field selector without `metadata.namespace=x`, and that namespace: it goes into the path instead (RBAC)."""
    rest: list[str] = []
    namespace = ""
    for term in filter(None, fields.split(",")):
        name, _, value = term.replace("==", "=").partition("=")
        if name == "metadata.namespace":
            namespace = value
        else:
            rest.append(term)
    return ",".join(rest), namespace
