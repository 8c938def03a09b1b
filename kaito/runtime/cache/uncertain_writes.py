"""Tracks writes of this process whose outcome is unknown: no response, a cancelled reconcile, a server error.

Such a write may be stored already, later, or never. Reads of the same object go to the server until a read that began
`SETTLE_SECONDS` after the write succeeds; then the cache is used again as soon as it has reached the version of that
read.
"""

import math
from collections.abc import Iterator
from typing import Final, final

from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey

SETTLE_SECONDS: Final = 10.0
"""Time after which a write without a response is either stored or never will be: kube-apiserver abandons a request
whose connection ended, and a write that has reached etcd by then completes within seconds."""

MAX_KEYS: Final = 1024
"""Maximum number of keys; beyond it, whole namespaces are uncertain."""


def all_of(namespace: str) -> ObjectKey:
    """The key of every object of a namespace, for writes without a name (`generateName`, a deletion by selector)."""
    return ObjectKey(namespace, "")


@final
class UncertainWrites:
    """The uncertain keys of one shard and the times of their writes."""

    def __init__(self) -> None:
        self._since: dict[ObjectKey, float] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def add(self, key: ObjectKey, *, settled: bool = False) -> None:
        """Records a write of unknown outcome; `settled` if it is stored and only its result is unknown."""
        since = monotonic() - (SETTLE_SECONDS if settled else 0.0)
        self._since[key] = max(since, self._since.get(key, -math.inf))
        if len(self._since) > MAX_KEYS:
            latest: dict[ObjectKey, float] = {}
            for each, when in self._since.items():
                place = all_of(each.namespace)
                latest[place] = max(when, latest.get(place, -math.inf))
            self._since = latest

    def concern(self, key: ObjectKey | None, namespace: str) -> bool:
        """Whether a read of the key, or a list of the namespace (empty: of all), must go to the server."""
        if key is not None:
            return key in self._since or all_of(key.namespace) in self._since
        return any(not namespace or each.namespace == namespace for each in self._since)

    def settled(self, key: ObjectKey | None, namespace: str, began: float) -> Iterator[ObjectKey]:
        """Removes and yields the keys that a live read which began at that time has settled."""
        for each, since in list(self._since.items()):
            read = each == key if key is not None else not namespace or each.namespace == namespace
            if read and began - since >= SETTLE_SECONDS:
                del self._since[each]
                yield each
