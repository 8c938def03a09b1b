"""`ExpiringCache`: results that are used again for a time, such as those of reviews of tokens and rights."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from kaito.runtime.clock import monotonic

V = TypeVar("V")


@final
class ExpiringCache(Generic[V]):
    """Results with an expiry; the oldest one is evicted first.

    Args:
        capacity: largest number of results.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._results: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """Returns a result, unless it has expired."""
        expires_at, result = self._results.get(key, (0.0, None))
        return result if monotonic() < expires_at else None

    def put(self, key: Hashable, result: V, seconds: float) -> None:
        """Keeps a result for `seconds`."""
        self._results.pop(key, None)
        self._results[key] = (monotonic() + seconds, result)
        if len(self._results) > self._capacity:
            self._results.popitem(last=False)
