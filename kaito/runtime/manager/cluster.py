"""`Cluster`: an API server with client, cache and events. Every manager has one, and may be given others.

    member = Cluster("member", kubeconfig=Path("member.yaml"))
    controller = Controller(Placement, reconcile).watches(ConfigMap, to=placements_of, cluster=member)
    Manager(settings, controllers=[controller], clusters=[member], lease="placer").run()

The manager starts the caches of all its clusters, waits for them and checks their health. Reconciles use `member.api`,
whose writes pass the same fence. The lease and the webhooks belong to the manager's own cluster.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Transport
from kaito.runtime.controller import CacheNeed, WatchedFields
from kaito.runtime.controller.arguments import check_name
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.assembly import ClusterServices, SharedServices, assemble, open_connection
from kaito.runtime.manager.cache_plan import CachePlan, check_live, check_watched_fields, plan_cache
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource


@final
class Cluster:
    """A cluster of a manager; others than its own are given to it as `clusters=[...]`.

    Args:
        name: unique in the manager, for readiness, logs and metrics. Empty for the manager's own cluster, which the
            manager makes from its settings.
        kubeconfig: its kubeconfig file.
        context: context of the kubeconfig; its current one by default.
        cache: kinds to cache, besides those that controllers watch there.
        live: kinds that `api` reads from its server each time.
        namespaces: namespaces to watch; all when empty.
        qps: client-side limit of requests per second; 0 or less leaves limiting to its API server.
        burst: requests allowed at once before the limit applies.
        transport: the network, instead of the kubeconfig. It is not closed.
        settings: connection settings, instead of the arguments `kubeconfig` to `burst`.

    Raises:
        ConfigurationError: neither or both of kubeconfig and transport, or a name that cannot be a label.
    """

    def __init__(
        self,
        name: str,
        *,
        kubeconfig: Path | None = None,
        context: str = "",
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        namespaces: Sequence[str] = (),
        qps: float = -1.0,
        burst: int = 0,
        transport: Transport | None = None,
        settings: Settings | None = None,
    ) -> None:
        if name or settings is None:
            check_name(name, "cluster")
        if settings is None and (kubeconfig is None) == (transport is None):
            message = f"cluster {name}: give kubeconfig= or transport=, and not both"
            raise ConfigurationError(message)
        self.name: str = name
        self.cached: Sequence[Cached] = list(cache)
        """The declarations of this cluster; controllers add theirs."""
        self.live: Sequence[type[Resource]] = list(live)
        self._settings = settings or Settings(
            kubeconfig=kubeconfig,
            context=context,
            namespaces=tuple(namespaces),
            kube_client_qps=qps,
            kube_client_burst=burst,
        )
        self._transport = transport
        self._services: ClusterServices | None = None

    @property
    def namespaces(self) -> Sequence[str]:
        """The watched namespaces; all when empty."""
        return self._settings.namespaces

    @property
    def is_own(self) -> bool:
        """Whether it is the manager's own cluster."""
        return not self.name

    def qualified(self, what: str) -> str:
        """`what` with the cluster's name, which the manager's own cluster does not have: `cache`, `cache-member`."""
        return what if self.is_own else f"{what}-{self.name}"

    # -- called by the manager ---------------------------------------------------------------------------------------

    def plan(self, needs: Mapping[str, Sequence[CacheNeed]]) -> Sequence[CachePlan]:
        """The kinds that its cache keeps, for the needs of each controller.

        Raises:
            ConfigurationError: declarations of one kind contradict each other.
        """
        argument = "Manager(cache=...)" if self.is_own else f"Cluster({self.name!r}, cache=...)"
        return plan_cache(self.cached, needs, cluster=self, namespaces=self.namespaces, argument=argument)

    def check(
        self, needs: Mapping[str, Sequence[CacheNeed]], watched_fields: Mapping[str, Sequence[WatchedFields]]
    ) -> None:
        """Raises ConfigurationError if its cache cannot satisfy the needs and the predicates of the controllers."""
        plans = self.plan(needs)
        check_live(self.live, plans)
        check_watched_fields(watched_fields, plans, cluster=self)

    async def connect(
        self, shared: SharedServices, needs: Mapping[str, Sequence[CacheNeed]], stack: AsyncExitStack
    ) -> ClusterServices:
        """Connects and assembles client and cache; no request is sent yet.

        Raises:
            ConfigurationError: no cluster configuration was found, or the cluster belongs to another manager.
        """
        if self._services is not None:
            message = f"cluster {self.name} belongs to a manager already: make another Cluster"
            raise ConfigurationError(message)
        connection = await open_connection(self._settings, self._transport, stack, shared.metrics)
        self._services = assemble(
            connection,
            self._settings,
            shared,
            self.plan(needs),
            defaults=[each for each in self.cached if each.is_default],
            live=self.live,
            cluster=self.name,
        )
        return self._services

    # -- for users; once the manager has started ---------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The live client, not fenced."""
        return self.services.client

    @property
    def cache(self) -> Cache:
        """The informers."""
        return self.services.cache

    @property
    def api(self) -> Api:
        """What reconciles use: reads return the process's own writes, and writes are fenced."""
        return self.services.api

    @property
    def services(self) -> ClusterServices:
        """All services.

        Raises:
            ConfigurationError: the manager has not started.
        """
        if self._services is None:
            remedy = "" if self.is_own else f", or was not given Manager(clusters=[...]) with {self.name}"
            message = f"{self._description} is not connected: its manager has not started{remedy}"
            raise ConfigurationError(message)
        return self._services

    @property
    def _description(self) -> str:
        return "the manager's own cluster" if self.is_own else f"cluster {self.name}"

    def __repr__(self) -> str:
        return f"<{self._description}>"
