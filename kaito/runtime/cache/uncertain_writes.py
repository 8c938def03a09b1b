"""Writes of this process whose outcome is not known: no answer came, the run was cancelled, the server failed.

Such a write may be stored, may never be, or may be stored in a moment. Reads that it concerns go to the server until
one that began `SETTLE_SECONDS` later has been answered; then the cache is used again as soon as it has reached the
version of that read.
"""

import math
from collections.abc import Iterator
from typing import Final, final

from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey

SETTLE_SECONDS: Final = 10.0
"""Time after which a write without an answer is done or never will be: kube-apiserver gives up the work of a request
whose connection ended, and what has reached etcd by then takes seconds at most."""

REMEMBERED: Final = 1024
"""Keys remembered; with more of them, their whole namespaces are in doubt."""


def all_of(namespace: str) -> ObjectKey:
    """Stands for every object of a namespace: of a write that names none (`generateName`, a deletion by selector)."""
    return ObjectKey(namespace, "")


@final
class UncertainWrites:
    """The keys in doubt of one shard, and since when."""

    def __init__(self) -> None:
        self._since: dict[ObjectKey, float] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def add(self, key: ObjectKey, *, settled: bool = False) -> None:
        """A write of the key ended without a known outcome; `settled` when it is done, and only its result unknown."""
        since = monotonic() - (SETTLE_SECONDS if settled else 0.0)
        self._since[key] = max(since, self._since.get(key, -math.inf))
        if len(self._since) > REMEMBERED:
            latest: dict[ObjectKey, float] = {}
            for each, when in self._since.items():
                place = all_of(each.namespace)
                latest[place] = max(when, latest.get(place, -math.inf))
            self._since = latest

    def concern(self, key: ObjectKey | None, namespace: str) -> bool:
        """Whether a read of the key, or a list of the namespace (empty: of all), is concerned."""
        if key is not None:
            return key in self._since or all_of(key.namespace) in self._since
        return any(not namespace or each.namespace == namespace for each in self._since)

    def settled(self, key: ObjectKey | None, namespace: str, began: float) -> Iterator[ObjectKey]:
        """Take out the keys that a read of the server which began then has settled."""
        for each, since in list(self._since.items()):
            read = each == key if key is not None else not namespace or each.namespace == namespace
            if read and began - since >= SETTLE_SECONDS:
                del self._since[each]
                yield each
