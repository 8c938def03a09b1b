"""Typed indexes: a function from an object to its index values.

Declared once with the kind (`Cached(Pod, indexes=[by_workspace])`) and called to build a query: `api.list(Pod,
index=by_workspace("phi"))`. Several values select objects with any of them, `by_workspace.notin("phi")` all others,
`by_workspace.prefix("team-")` values with that prefix. The owner index is built in and needs no declaration
(`owned_by=`).
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, final

from kaito.runtime.client.consistency import IndexKey
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)


@final
class Index(Generic[R]):
    """An index over the objects of a kind.

    Args:
        kind: The indexed kind.
        values: Returns the values of an object; without values it is not in the index. Must depend only on the object.
            If it raises, lists by the index fail instead of missing the object.
        name: Unique per kind.

    Raises:
        ConfigurationError: the name is empty.
    """

    __slots__ = ("kind", "name", "values")

    def __init__(self, kind: type[R], values: Callable[[R], Sequence[str]], *, name: str) -> None:
        if not name:
            raise ConfigurationError(f"an index of {kind.kind} needs a name")
        self.kind: type[R] = kind
        self.values: Callable[[R], Sequence[str]] = values
        self.name: str = name

    def __call__(self, *values: str) -> IndexKey[R]:
        """Queries for objects with one of the values (none given: no object)."""
        return IndexKey(self.kind, self.name, values, self.values)

    def notin(self, *values: str) -> IndexKey[R]:
        """Queries for objects with none of the values, including objects without values (as `notin` of labels)."""
        return IndexKey(self.kind, self.name, values, self.values, "notin")

    def prefix(self, *beginnings: str) -> IndexKey[R]:
        """Queries for objects with a value that has one of these prefixes."""
        return IndexKey(self.kind, self.name, beginnings, self.values, "prefix")

    def __repr__(self) -> str:
        return f"Index({self.kind.kind}, name={self.name!r})"
