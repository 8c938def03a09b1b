"""`Derived`: a value of each cached object, computed once for each version of the object.

For values that are read from many objects again and again, such as gauges at a scrape or the sum of a namespace. A read
decodes only the objects that changed since the last read; for the others it takes the value that the store remembers.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, final

from kaito.runtime.cache.cache import Cache, Selected
from kaito.runtime.client.decoding import compute
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


@final
class Derived(Generic[R, T]):
    """A value of each cached object of a kind.

    `values` and `items` read all objects of a cache, and `Api.values` those of a list. The value of an object is
    dropped when the object changes or is deleted. Objects that do not fit their model have no value, and each of their
    versions is logged once, as in lists.

    Args:
        kind: the kind.
        compute: returns the value of an object. It must depend only on the object, and the value must not be changed
            afterwards, because later reads return the same value. If it raises, the read raises that error, and the
            next read calls it again.
    """

    def __init__(self, kind: type[R], compute: Callable[[R], T]) -> None:
        self.kind: type[R] = kind
        self.compute: Callable[[R], T] = compute

    def values(self, cache: Cache) -> Iterator[T]:
        """The values of all objects in the cache, in no order. Raises as `items`."""
        return (value for _, value in self.items(cache))

    def items(self, cache: Cache) -> Iterator[tuple[ObjectKey, T]]:
        """The keys and values of all objects in the cache, in no order.

        The cache is read at the call, not during the iteration.

        Raises:
            UndeclaredKind: the cache does not declare the kind.
            CacheNotSynced: the first list has not arrived.
        """
        informer = cache.informer(self.kind)
        found: list[tuple[ObjectKey, T]] = []
        for shard in informer.shards(""):
            store = shard.store
            memory: dict[ObjectKey, tuple[T, ...]] = store.memory(self)
            for entry in store:
                key = entry.header.key
                known = memory.get(key)
                if known is None:
                    known = memory[key] = compute(self, Selected(entry, self.kind, store, informer.metadata_only))
                found += [(key, value) for value in known]
        return iter(found)
