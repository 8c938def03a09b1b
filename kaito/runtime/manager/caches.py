"""The caches of a manager's clusters: validated when a manager is made or a controller is added, made at the start."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import final

from kaito.runtime.cache import Cache
from kaito.runtime.controller import AnyController, BaseClusterSet, CacheNeed
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.assembly import SharedServices
from kaito.runtime.manager.cache_plan import check_clusters
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.dynamic_clusters import DynamicClusters, HomeServices
from kaito.runtime.manager.runnable import Background
from kaito.runtime.manager.runnable_groups import RunnableGroups
from kaito.runtime.tasks import together


@final
class Caches:
    """The caches of all clusters.

    Args:
        groups: the controllers, which need kinds.
        own: the manager's own cluster.
        others: the other clusters.
    """

    def __init__(self, groups: RunnableGroups, own: Cluster, others: Sequence[Cluster | DynamicClusters]) -> None:
        self._groups = groups
        self._own = own
        self.clusters: Sequence[Cluster] = [own, *(each for each in others if isinstance(each, Cluster))]
        """The clusters that exist as long as the manager, its own first."""
        self._sets = [each for each in others if isinstance(each, DynamicClusters)]
        self._connected: list[Cluster] = []
        self._claimed: dict[str, str] = {}

    def check(self, *added: AnyController) -> None:
        """Raises ConfigurationError if the caches cannot satisfy the controllers, those to be added included.

        Raises:
            ConfigurationError: declarations that contradict each other, an unknown cluster, a kind that is both cached
                and live, a predicate on fields that are not cached.
        """
        needs = self._needs(self._groups.needs(*added))
        everything: list[Cluster | DynamicClusters] = [*self.clusters, *self._sets]
        check_clusters(everything, needs)
        fields = {
            controller: [replace(each, cluster=each.cluster or self._own) for each in of_controller]
            for controller, of_controller in self._groups.watched_fields(*added).items()
        }
        for cluster in everything:
            cluster.check(needs, fields)

    def _needs(self, needs: Mapping[str, Sequence[CacheNeed]]) -> Mapping[str, Sequence[CacheNeed]]:
        """The needs with their cluster: controllers that name none mean the manager's own."""
        return {
            controller: [replace(need, cluster=need.cluster or self._own) for need in of_controller]
            for controller, of_controller in needs.items()
        }

    async def connect(self, shared: SharedServices, stack: AsyncExitStack) -> None:
        """Connects the clusters that exist as long as the manager, and makes their caches; no request is sent yet.

        Kinds of controllers that wait for them are left out: those controllers add them later.

        Raises:
            ConfigurationError: no configuration of a cluster was found, or it belongs to another manager.
        """
        needs = self._needs(self._groups.needs(waiting=False))
        for cluster in self.clusters:
            await cluster.connect(shared, needs, stack)
            self._connected.append(cluster)

    async def start(
        self, shared: SharedServices, wait_elected: Callable[[], Awaitable[None]], sync_seconds: float
    ) -> None:
        """Starts the caches and waits for those that exist as long as the manager; starts to send events.

        Raises:
            CacheNotSynced: not within this time.
        """
        home = HomeServices(
            cluster=self._own,
            shared=shared,
            wait_elected=wait_elected,
            needs=lambda: self._needs(self._groups.needs()),
            claim=self._claim,
            release=self._release,
        )
        for cluster in self.clusters:
            self._groups.spawn("caches", Background(cluster.qualified("cache"), cluster.cache.run))
        for each in self._sets:
            self._groups.spawn("caches", Background(f"clusters-{each.name}", partial(each.run, home)))
        await together(*(cluster.cache.wait_synced(sync_seconds) for cluster in self.clusters))
        for cluster in self.clusters:
            self._groups.spawn("events", Background(cluster.qualified("recorder"), cluster.services.recorder.run))

    def by_cluster(self) -> Mapping[str, Cache]:
        """The caches that exist as long as the manager, by name of their cluster; empty before the start."""
        return {cluster.name: cluster.cache for cluster in self._connected}

    def with_sets(self) -> Mapping[str, Cache]:
        """All caches, by name of their cluster."""
        caches = dict(self.by_cluster())
        for each in self._sets:
            caches |= each.caches()
        return caches

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
        busy = [f"cache {name}: a handler has events" for name, cache in self.with_sets().items() if not cache.idle]
        return [*busy, *(phrase for each in self._sets for phrase in each.busy())]

    def _claim(self, name: str, owner: BaseClusterSet) -> None:
        """Reserves a name: it identifies the cluster in metrics, keys and logs."""
        fixed = {each.name for each in self.clusters} | {each.name for each in self._sets}
        taken = self._claimed.get(name) or (f"cluster {name}" if name in fixed else "")
        if taken:
            message = f"the name {name!r} is taken by {taken}: give the cluster another name"
            raise ConfigurationError(message)
        self._claimed[name] = f"set {owner.name}"

    def _release(self, name: str) -> None:
        self._claimed.pop(name, None)
