"""The interface between `Api` and the cache: cached reads with read-your-writes consistency.

`Api` uses it and `kaito.runtime.cache` implements it; it is defined here because the cache depends on the client.

Kubernetes does not guarantee read-your-writes: the API server confirms a write before the watch event reaches the
informer, so that a reconcile which starts in between reads the object as it was before its own write. It would create
the same dependents again, or update with a stale resourceVersion and fail with a conflict. kube-controller-manager
avoids this with expectations per controller; here, every cached read waits for the writes of the process instead.

A write is sent inside `writing(kind, key)`, and `record_write` or `record_deletion` reports its result before that
scope ends: readers know of a write from before it is sent until the cache contains it. A read first awaits `caught_up`.
True means that the cache contains at least the writes that began before the read. False means that the wait timed out,
because the object is outside the informer's selector or the watch lags behind; `Api` then reads live. The read after
`caught_up` is synchronous, so that no other task runs between the two.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from kaito.runtime.errors import UnreadableObject
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource

R = TypeVar("R", bound=Resource)

Consistency = Literal["own-writes", "cached", "live"]
"""Consistency of a read: not older than this process's writes (default), any cached state, or a live read."""


@dataclass(frozen=True, slots=True)
class IndexKey(Generic[R]):
    """Query of an index, created by calling an `Index`: `by_owner("cache")`."""

    kind: type[R]
    name: str
    """Name of the index, unique per kind."""
    values: tuple[str, ...]
    values_of: Callable[[R], Sequence[str]]
    """The index function, for filtering a live list by the same query."""
    match: Literal["in", "notin", "prefix"] = "in"
    """Selects objects that have one of `values`, none of them, or a value with one of them as prefix."""

    def matches(self, obj: R) -> bool:
        """Whether the query selects the object."""
        return self.answered_by(self.values_of(obj))

    def answered_by(self, filed: Sequence[str]) -> bool:
        """Whether the query selects an object with these index values."""
        if self.match == "prefix":
            return any(value.startswith(self.values) for value in filed)
        return any(value in filed for value in self.values) is (self.match == "in")


R_co = TypeVar("R_co", bound=Resource, covariant=True)
T_co = TypeVar("T_co", covariant=True)


class Undecoded(Protocol[R_co]):
    """Selected cached object that is not decoded yet. Later updates of the cache do not change it."""

    def decode(self) -> R_co:
        """Decodes a new object, which the caller owns."""
        ...

    def known(self, holder: object) -> Any:
        """Returns what `remember` stored for this version of the object; None if nothing."""
        ...

    def remember(self, holder: object, value: Any) -> None:
        """Stores a value of this version of the object, which `known` returns until the object changes."""
        ...


class Derivation(Protocol[R, T_co]):
    """A value of each object of a kind, which is computed once for each version of the object."""

    @property
    def kind(self) -> type[R]:
        """The kind."""
        ...

    def compute(self, obj: R, /) -> T_co:
        """Returns the value of an object. It depends only on the object, and is not changed afterwards."""
        ...


class Aggregate(Protocol[R]):
    """What a reader computes from all objects of a kind, and adjusts when one of them changes (`Api.update_aggregate`).

    A cache passes it changes of every declared namespace; it is used with one cache only.
    """

    @property
    def kind(self) -> type[R]:
        """The kind."""
        ...

    def put(self, key: ObjectKey, obj: R | UnreadableObject) -> None:
        """Receives a new version of an object, or why it cannot be decoded."""
        ...

    def remove(self, key: ObjectKey) -> None:
        """Receives that an object does not exist; it may be unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects of a kind that an informer watches, in one namespace (empty: all)."""

    namespace: str
    labels: str = ""
    """The `labelSelector` parameter."""
    fields: str = ""
    """The `fieldSelector` parameter."""


class Reader(Protocol):
    """Read access to the cache, as `Api` needs it."""

    def declares(self, kind: type[Resource]) -> bool:
        """Whether an informer of the kind is declared, synced or not."""
        ...

    def get(self, kind: type[R], key: ObjectKey) -> R | None:
        """Gets a copy of the cached object, or None.

        Raises:
            UndeclaredKind: The kind is not declared, or the key is outside the declared namespaces.
            CacheNotSynced: The first list is not complete.
        """
        ...

    def appliers(self, kind: type[Resource], key: ObjectKey) -> frozenset[str]:
        """Returns the field managers that have applied fields of the cached object; empty if they are unknown.

        Raises the errors of `get`.
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
        """Lists the cached objects that match all arguments, ordered by namespace and name.

        `owner` is the UID of an owner reference; an empty `namespace` means every declared namespace. Raises the errors
        of `get`.
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
        """Lists as `list`, but undecoded, so that the caller can yield to the event loop between objects.

        `with_unfiled` adds objects on which the index function failed; decoding one of them fails.
        """
        ...

    def pass_changes(self, aggregate: Aggregate[Any], *, limit: int) -> bool:
        """Passes at most `limit` of the changes since the last call to an aggregate; whether there are more of them.

        The first call passes every object. Raises the errors of `get`.
        """
        ...

    def require(self, kind: type[Resource], key: ObjectKey, resource_version: str) -> bool:
        """Requires that reads of the key are at least at this version, which a live read returned.

        False if they cannot be compared with it, or the kind is not declared.
        """
        ...

    def scopes(self, kind: type[Resource], namespace: str = "") -> Sequence[Scope]:
        """Returns the live requests that are equivalent to a cached list of the namespace (empty: all declared).

        Raises:
            UndeclaredKind: The kind or the namespace is not declared.
        """
        ...

    def version(self, kind: type[Resource], namespace: str = "") -> str:
        """Returns the resourceVersion of cached lists of the namespace (empty: all); with several informers, the last
        one's. Raises the errors of `scopes`."""
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
        """Waits until the cache contains every write of this process that began before this call, for one key or a
        list.

        The other arguments are those of the list: writes of objects that the list contains neither before nor after are
        ignored. Returns at once if no write is pending, and False if the wait timed out (2 s by default).
        """
        ...

    def writing(self, kind: type[Resource], key: ObjectKey) -> AbstractContextManager[None]:
        """Records that a write is in progress; `caught_up` waits for it.

        Undeclared kinds are ignored. If the scope ends with an exception after which the write may have happened
        (`errors.may_have_happened`), the reads that it affects go to the server. A key without a name means every
        object of the namespace.
        """
        ...

    def invalidate(self, kind: type[Resource], key: ObjectKey) -> None:
        """Records a write with unknown result: reads of the key go to the server until one of them succeeds.

        A key without a name means its namespace. `writing` does the same for writes whose outcome is unknown.
        """
        ...

    def record_live_read(self, kind: type[Resource], key: ObjectKey, began: float, found: Resource | None) -> None:
        """Records the result of a live read of the key that began at that time (loop clock)."""
        ...

    def record_live_list(self, kind: type[Resource], namespace: str, began: float, resource_version: str) -> None:
        """Records a live list of the namespace (empty: all) that began at that time, at this version."""
        ...

    def record_write(
        self, kind: type[Resource], key: ObjectKey, resource_version: str, uid: str, result: Resource | None = None
    ) -> None:
        """Records a successful write: reads of the key must be at least at `resource_version`; `result` if it is known.

        A no-op write keeps the resourceVersion: the server sends no watch event, so there is nothing to wait for.
        """
        ...

    def record_deletion(self, kind: type[Resource], key: ObjectKey, uid: str) -> None:
        """Records a completed deletion: reads must not return that UID."""
        ...
