"""`DynamicClusters`: what the manager runs of a set of clusters that changes while it runs.

Implemented by `kaito.runtime.clusters.ClusterSet`. The manager's start and its readiness do not depend on the
clusters of a set: one that cannot be reached affects only itself.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from kaito.runtime.cache import Cache
from kaito.runtime.controller import BaseClusterSet, CacheNeed, WatchedFields
from kaito.runtime.manager.assembly import SharedServices
from kaito.runtime.manager.cluster import Cluster


@dataclass(frozen=True, slots=True)
class HomeServices:
    """What a set uses of its manager."""

    cluster: Cluster
    """The manager's own cluster."""
    shared: SharedServices
    wait_elected: Callable[[], Awaitable[None]]
    """Waits until elected work runs in this process."""
    needs: Callable[[], Mapping[str, Sequence[CacheNeed]]]
    """What each controller needs in caches."""
    claim: Callable[[str, BaseClusterSet], None]
    """Reserves the name of a cluster for a set; raises ConfigurationError if it is taken."""
    release: Callable[[str], None]
    """Gives the name of a cluster back."""


class DynamicClusters(BaseClusterSet):
    """Clusters that come and go."""

    @abstractmethod
    def check(
        self, needs: Mapping[str, Sequence[CacheNeed]], watched_fields: Mapping[str, Sequence[WatchedFields]]
    ) -> None:
        """Raises ConfigurationError if the caches cannot satisfy the needs and the predicates of the controllers."""

    @abstractmethod
    async def run(self, home: HomeServices) -> None:
        """Runs the clusters until cancelled."""

    @abstractmethod
    def caches(self) -> Mapping[str, Cache]:
        """The caches by name of their cluster."""

    @abstractmethod
    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
