"""`BaseClusterSet`: what a controller uses of a set of clusters that changes while the manager runs.

Implemented by `kaito.runtime.clusters.ClusterSet`. A controller that watches a set has one source for it, which starts
and stops the watches of the single clusters.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any

from kaito.runtime.cache import Cached
from kaito.runtime.cache.view import View
from kaito.runtime.handler import Enqueue
from kaito.runtime.source import KindSource, StartedSource
from kaito.runtime.tasks import TaskScope

Discard = Callable[[Callable[[Any], bool]], None]
"""Drops the matching keys of a controller."""


class BaseClusterSet(ABC):
    """Clusters that come and go."""

    name: str
    """Unique among the clusters and sets of the manager."""

    @abstractmethod
    def start_source(
        self,
        source: KindSource[Any],
        cached: Cached,
        *,
        home: View,
        queue: Enqueue,
        discard: Discard,
        scope: TaskScope,
    ) -> StartedSource:
        """Delivers the events of a kind from every cluster of the set, and drops the keys of removed clusters.

        Args:
            source: the kind and its handler.
            cached: how much of it the controller needs.
            home: view of the manager's own cluster.
            queue: the controller's queue.
            discard: drops keys of the controller.
            scope: of the tasks.
        """


def cluster_of(key: Hashable) -> str:
    """Returns the cluster that a key names in its attribute `cluster`; empty if it has none."""
    name: object = getattr(key, "cluster", "")
    return name if isinstance(name, str) else ""
