"""The caches of a manager's clusters: validated when a manager is made or a controller is added, made at the start."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import final

from kaito.runtime.cache import Cache
from kaito.runtime.controller import AnyController, CacheNeed
from kaito.runtime.manager.assembly import SharedServices
from kaito.runtime.manager.cache_plan import check_clusters
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.runnable_groups import RunnableGroups


@final
class Caches:
    """The caches of all clusters.

    Args:
        groups: the controllers, which need kinds.
        own: the manager's own cluster.
        others: the other clusters.
    """

    def __init__(self, groups: RunnableGroups, own: Cluster, others: Sequence[Cluster]) -> None:
        self._groups = groups
        self._own = own
        self.clusters: Sequence[Cluster] = [own, *others]
        """The manager's own cluster first."""
        self._connected: list[Cluster] = []

    def check(self, *added: AnyController) -> None:
        """Raise ConfigurationError if the caches cannot satisfy the controllers, those to be added included.

        Raises:
            ConfigurationError: declarations that contradict each other, an unknown cluster, a kind that is both cached
                and live, a predicate on fields that are not cached.
        """
        needs = self._needs(self._groups.needs(*added))
        check_clusters(self.clusters, needs)
        fields = {
            controller: [replace(each, cluster=each.cluster or self._own) for each in of_controller]
            for controller, of_controller in self._groups.watched_fields(*added).items()
        }
        for cluster in self.clusters:
            cluster.check(needs, fields)

    def _needs(self, needs: Mapping[str, Sequence[CacheNeed]]) -> Mapping[str, Sequence[CacheNeed]]:
        """The needs with their cluster: controllers that name none mean the manager's own."""
        return {
            controller: [replace(need, cluster=need.cluster or self._own) for need in of_controller]
            for controller, of_controller in needs.items()
        }

    async def connect(self, shared: SharedServices, stack: AsyncExitStack) -> None:
        """Connect all clusters and make their caches; no request is sent yet.

        Kinds of controllers that wait for them are left out: those controllers add them later.

        Raises:
            ConfigurationError: no configuration of a cluster was found, or it belongs to another manager.
        """
        needs = self._needs(self._groups.needs(waiting=False))
        for cluster in self.clusters:
            await cluster.connect(shared, needs, stack)
            self._connected.append(cluster)

    def by_cluster(self) -> Mapping[str, Cache]:
        """The caches by name of their cluster; empty before the start."""
        return {cluster.name: cluster.cache for cluster in self._connected}
