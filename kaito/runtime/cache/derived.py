"""`Derived`: a value of each cached object, computed once for each version of the object.

For values that are read from all objects again and again, such as gauges at a scrape. A read decodes only the objects
that changed since the last read; for the others it compares versions, which takes less than a microsecond.
"""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar, final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.entry import Entry, decode
from kaito.runtime.client.unreadable import log_skipped
from kaito.runtime.errors import UnreadableObject
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class _Known(NamedTuple, Generic[T]):
    uid: str
    resource_version: str
    values: tuple[T, ...]
    """One value; none if the object does not fit its model."""


@final
class Derived(Generic[R, T]):
    """A value of each cached object of a kind.

    Values of deleted objects are dropped at the next read. Objects that do not fit their model have no value, and each
    of their versions is logged once, as in lists.

    Args:
        kind: the kind.
        compute: returns the value of an object. It must depend only on the object, and the value must not be changed
            afterwards, because later reads return the same value. If it raises, the read raises that error, and the
            next read calls it again.
    """

    def __init__(self, kind: type[R], compute: Callable[[R], T]) -> None:
        self._kind = kind
        self._compute = compute
        self._known: dict[ObjectKey, _Known[T]] = {}

    def values(self, cache: Cache) -> Iterator[T]:
        """The values of all objects in the cache, in no order. Raises as `items`."""
        return (value for _, value in self.items(cache))

    def items(self, cache: Cache) -> Iterator[tuple[ObjectKey, T]]:
        """The keys and values of all objects in the cache, in no order.

        The cache is read at the call, not during the iteration. Every call should name the same cache: after another
        one, all values are computed again.

        Raises:
            UndeclaredKind: the cache does not declare the kind.
            CacheNotSynced: the first list has not arrived.
        """
        informer = cache.informer(self._kind)
        before, now = self._known, dict[ObjectKey, _Known[T]]()
        for shard in informer.shards(""):
            for entry in shard.store:
                header = entry.header
                known = before.get(header.key)
                if (
                    known is None
                    or known.resource_version != header.resource_version
                    or known.uid != header.uid
                    or not known.resource_version
                ):
                    known = self._computed(entry, metadata_only=informer.metadata_only)
                now[header.key] = known
        self._known = now
        return ((key, value) for key, known in now.items() for value in known.values)

    def _computed(self, entry: Entry, *, metadata_only: bool) -> _Known[T]:
        header = entry.header
        try:
            obj = decode(entry, self._kind, metadata_only=metadata_only)
        except UnreadableObject as error:
            log_skipped([error])
            return _Known(header.uid, header.resource_version, ())
        return _Known(header.uid, header.resource_version, (self._compute(obj),))
