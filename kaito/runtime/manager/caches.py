"""The caches of a manager, one a cluster: what each is to keep, checked early and made at the start.

The manager asks for checks when it is made and when a controller joins, and for the parts when it starts.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.controller import AnyController, CacheNeed
from kaito.runtime.manager.assembly import Common, Network, Parts, make_parts
from kaito.runtime.manager.cache_plan import Declared, check_clusters, check_live, check_watched_fields, join
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.runnable_groups import Fleet
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource


@final
class Caches:
    """The caches of the manager's own cluster and of the further ones.

    Args:
        fleet: the controllers, who need kinds.
        settings: of the manager: namespaces and limits.
        own: what the manager declares itself.
        live: kinds read from the server each time.
        clusters: the further clusters.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: Settings,
        *,
        own: Sequence[Cached],
        live: Sequence[type[Resource]],
        clusters: Sequence[Cluster],
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._own = list(own)
        self._live = list(live)
        self._clusters = list(clusters)
        self.parts: Mapping[str, Parts] = {}
        """By cluster, the manager's own under the empty name; empty before the start."""

    def check(self, *more: AnyController) -> None:
        """Refuse what no cache could satisfy; `more` are about to join.

        Raises:
            ConfigurationError: declarations that contradict each other, an unknown cluster, a kind both cached and
                live, a predicate that looks at what is not kept.
        """
        needs = self._fleet.needs(*more)
        check_clusters(self._clusters, needs)
        for cluster in (None, *self._clusters):
            kept = self._declared(needs, cluster)
            check_live(self._live if cluster is None else cluster.live, kept)
            check_watched_fields(self._fleet.watched_fields(*more), kept, cluster=cluster)

    def _declared(self, needs: Mapping[str, Sequence[CacheNeed]], cluster: Cluster | None) -> Sequence[Declared]:
        if cluster is None:
            return join(self._own, needs, namespaces=self._settings.namespaces)
        where = f"Cluster({cluster.name!r}, cache=...)"
        return join(cluster.cached, needs, cluster=cluster, namespaces=cluster.namespaces, where=where)

    async def connect(self, network: Network, common: Common, stack: AsyncExitStack) -> Parts:
        """Make clients and caches of all clusters; nothing is followed yet. The parts of the manager's own cluster.

        Kinds of controllers that wait for them are left out: those controllers see to them.

        Raises:
            ConfigurationError: a cluster cannot be reached, or belongs to another manager.
        """
        needs = self._fleet.needs(waiting=False)
        own = make_parts(
            network,
            self._settings,
            common,
            self._declared(needs, None),
            defaults=[each for each in self._own if each.is_default],
            live=self._live,
        )
        further = {
            cluster.name: await cluster.connect(common, self._declared(needs, cluster), stack)
            for cluster in self._clusters
        }
        self.parts = {"": own, **further}
        return own

    def by_cluster(self) -> Mapping[str, Cache]:
        """The caches, the manager's own under the empty name; empty before the start."""
        return {name: parts.cache for name, parts in self.parts.items()}
