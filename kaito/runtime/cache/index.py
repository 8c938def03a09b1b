"""Typed indexes: a function from an object to the values it is found under.

Declared once, beside the kind (`Cached(Pod, indexes=[by_workspace])`), and called to make a question:
`api.list(Pod, index=by_workspace("phi"))`. The owner index is built in and needs no declaration (`owned_by=`).
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

    def __call__(self, value: str) -> IndexKey[R]:
        """The question: which objects are filed under `value`?"""
        return IndexKey(self.kind, self.name, value, self.values)

    def __repr__(self) -> str:
        return f"Index({self.kind.kind}, name={self.name!r})"
