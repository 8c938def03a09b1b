"""Typed indexes: a function from an object to the values it is found under.

Declared once, beside the kind (`Cached(Pod, indexes=[by_workspace])`), and called to make a question:
`api.list(Pod, index=by_workspace("phi"))`. Several values ask for any of them, `by_workspace.notin("phi")` for all
others, `by_workspace.prefix("team-")` for values that begin so. The owner index is built in and needs no declaration
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
    """Objects of a kind filed by values of their own.

    Args:
        kind: The kind filed.
        values: From an object to its values; none means that it is not filed. Must depend on the object alone. One that
            raises leaves the object unfiled, and lists by the index then fail rather than miss it.
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
        """The question: which objects are filed under one of the values (of none given: no object)?"""
        return IndexKey(self.kind, self.name, values, self.values)

    def notin(self, *values: str) -> IndexKey[R]:
        """The question: which objects are filed under none of the values, or not at all (as `notin` of labels)?"""
        return IndexKey(self.kind, self.name, values, self.values, "notin")

    def prefix(self, *beginnings: str) -> IndexKey[R]:
        """The question: which objects are filed under a value that begins with one of these?"""
        return IndexKey(self.kind, self.name, beginnings, self.values, "prefix")

    def __repr__(self) -> str:
        return f"Index({self.kind.kind}, name={self.name!r})"
