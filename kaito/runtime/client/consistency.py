"""The seam between `Api` and the cache: cached reads, and the promise that a reader sees its own writes.

`Api` calls it, `kaito.runtime.cache` implements it; the protocol lives here because the cache stands above the client.
A write goes to the server inside `writing(kind, key)` and is reported by `wrote` or `deleted` before that scope ends.
A read first awaits `caught_up`: true means the cache holds at least what this process wrote before the read began,
false means the wait ran out (object outside the informer's selector, watch lagging) and `Api` reads live instead.
Reads themselves are synchronous: between `caught_up` and the read nothing else runs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from kaito.runtime.meta import LabelSelector, ObjectKey, Resource

R = TypeVar("R", bound=Resource)

Consistency = Literal["own-writes", "cached", "live"]
"""How fresh a read must be: never older than our own writes (default), whatever the cache holds, or the server's."""


@dataclass(frozen=True, slots=True)
class IndexKey(Generic[R]):
    """A question to an index, made by an `Index`: `by_workspace("phi")`."""

    kind: type[R]
    name: str
    """Name of the index, unique per kind."""
    values: tuple[str, ...]
    values_of: Callable[[R], Sequence[str]]
    """The index function, for answering the same question from a live list."""
    match: Literal["in", "notin", "prefix"] = "in"
    """Filed under one of `values`, under none of them, or under a value that begins with one of them."""

    def matches(self, obj: R) -> bool:
        """Whether the object is part of the answer."""
        return self.answered_by(self.values_of(obj))

    def answered_by(self, filed: Sequence[str]) -> bool:
        """Whether an object filed under these values is part of the answer."""
        if self.match == "prefix":
            return any(value.startswith(self.values) for value in filed)
        return any(value in filed for value in self.values) is (self.match == "in")


R_co = TypeVar("R_co", bound=Resource, covariant=True)


class Undecoded(Protocol[R_co]):
    """A cached object that has been selected and not yet decoded. It does not change any more, whatever the cache
    does."""

    def decode(self) -> R_co:
        """A new object, private to the caller."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """What an informer follows: the part of a kind that the cache knows, in one namespace (empty: all)."""

    namespace: str
    labels: str = ""
    """The `labelSelector` parameter."""
    fields: str = ""
    """The `fieldSelector` parameter."""


class Reader(Protocol):
    """The cache as `Api` sees it."""

    def declares(self, kind: type[Resource]) -> bool:
        """Whether an informer of the kind is declared, synced or not."""
        ...

    def get(self, kind: type[R], key: ObjectKey) -> R | None:
        """The cached object, private to the caller, or None.

        Raises:
            UndeclaredKind: nothing declares the kind, or the key is outside the declared namespaces.
            CacheNotSynced: the first list has not arrived.
        """
        ...

    def list(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[R] | None = None,
    ) -> list[R]:
        """The cached objects that match everything given, ordered by namespace and name.

        `owner` is the UID of an owner reference; `namespace` empty means every declared namespace. Raises as `get`.
        """
        ...

    def select(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[R] | None = None,
        with_unfiled: bool = False,
    ) -> Sequence[Undecoded[R]]:
        """As `list`, with the decoding left to the caller, who can let the loop turn between objects.

        `with_unfiled` adds objects that the index could not file; decoding one of them fails.
        """
        ...

    def scopes(self, kind: type[Resource], namespace: str = "") -> Sequence[Scope]:
        """What to ask the server for to get what the cache would show of the namespace (empty: of all it follows).

        Raises:
            UndeclaredKind: nothing declares the kind, or the namespace is outside the declared ones.
        """
        ...

    def version(self, kind: type[Resource], namespace: str = "") -> str:
        """The resourceVersion that lists of the namespace (empty: of everything kept) are at now; of several informers
        the last one's. Raises as `scopes`.
        """
        ...

    async def caught_up(
        self,
        kind: type[Resource],
        key: ObjectKey | None = None,
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[Any] | None = None,
    ) -> bool:
        """Wait until the cache reflects every own write begun before this call, for one key or a list.

        The other arguments are those of the list: objects that it shows neither before nor after are not waited for.
        Returns at once when nothing is pending; False when the wait ran out (2 seconds by default).
        """
        ...

    def writing(self, kind: type[Resource], key: ObjectKey) -> AbstractContextManager[None]:
        """Marks a write as under way; `caught_up` waits for it. Undeclared kinds are ignored.

        A scope that is left by an exception which leaves the outcome open (`errors.may_have_happened`) makes the reads
        that the write concerns go to the server. A key without a name stands for every object of the namespace.
        """
        ...

    def invalidate(self, kind: type[Resource], key: ObjectKey) -> None:
        """A write was done, and its result is not known: reads of the key go to the server until one has answered.

        A key without a name stands for its namespace. `writing` does the same for writes whose outcome is unknown.
        """
        ...

    def record_live_read(self, kind: type[Resource], key: ObjectKey, began: float, found: Resource | None) -> None:
        """The server was asked for the key, in a request that began then (of the loop's clock), and has this."""
        ...

    def record_live_list(self, kind: type[Resource], namespace: str, began: float, resource_version: str) -> None:
        """The server listed the namespace (empty: all), in a request that began then, at this version."""
        ...

    def record_write(
        self, kind: type[Resource], key: ObjectKey, resource_version: str, uid: str, result: Resource | None = None
    ) -> None:
        """A write succeeded: reads of the key must be at least at `resource_version`, and `result` if it is known.

        A version equal to the stored one (a no-op write) registers nothing.
        """
        ...

    def record_deletion(self, kind: type[Resource], key: ObjectKey, uid: str) -> None:
        """A delete completed (nothing left on the server): reads must not show that UID any more."""
        ...
