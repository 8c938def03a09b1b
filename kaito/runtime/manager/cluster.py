"""`Cluster`: another cluster than the manager's own, to watch, read and write. ClusterConfig, client, cache and events.

    member = Cluster("member", kubeconfig=Path("member.yaml"))
    controller = Controller(Placement, reconcile).watches(ConfigMap, to=placements_of, cluster=member)
    Manager(settings, controllers=[controller], clusters=[member], lease="placer").run()

Its caches are started, waited for and watched over like the manager's own; runs use `member.api`, whose writes pass the
same fence. It has no servers and no election: the lease is in the manager's own cluster.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Transport
from kaito.runtime.controller.arguments import check_name
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.assembly import Common, Parts, find_network, make_parts
from kaito.runtime.manager.cache_plan import Declared
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource


@final
class Cluster:
    """One more cluster of a manager; given to it as `clusters=[...]`.

    Args:
        name: unique in the manager; names it in readiness, logs and metrics.
        kubeconfig: its kubeconfig file.
        context: of the kubeconfig; its current one by default.
        cache: kinds to keep, besides those that controllers watch there.
        live: kinds that `api` reads from its server each time.
        namespaces: to watch; all when empty.
        qps: client-side limit of requests a second; 0 or less leaves limiting to its API server.
        burst: requests let through at once before the limit counts.
        transport: the network, instead of the kubeconfig. Not closed.

    Raises:
        ConfigurationError: neither a kubeconfig nor a transport, or both; a name that cannot be a label.
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
    ) -> None:
        check_name(name, "cluster")
        if (kubeconfig is None) == (transport is None):
            message = f"cluster {name}: give kubeconfig= or transport=, and not both"
            raise ConfigurationError(message)
        self.name: str = name
        self.cached: Sequence[Cached] = list(cache)
        """What was declared here; controllers add their own."""
        self.live: Sequence[type[Resource]] = list(live)
        self.namespaces: Sequence[str] = tuple(namespaces)
        self._settings = Settings(
            kubeconfig=kubeconfig,
            context=context,
            namespaces=tuple(namespaces),
            kube_client_qps=qps,
            kube_client_burst=burst,
        )
        self._transport = transport
        self._parts: Parts | None = None

    async def connect(self, common: Common, declared: Sequence[Declared], stack: AsyncExitStack) -> Parts:
        """Make client and cache; nothing is followed yet. Called by the manager at its start.

        Raises:
            ConfigurationError: there is no way to the cluster, or another manager has it.
        """
        if self._parts is not None:
            message = f"cluster {self.name} belongs to a manager already: make another Cluster"
            raise ConfigurationError(message)
        network = await find_network(self._settings, self._transport, stack, common.metrics)
        self._parts = make_parts(
            network,
            self._settings,
            common,
            declared,
            defaults=[each for each in self.cached if each.is_default],
            live=self.live,
            cluster=self.name,
        )
        return self._parts

    @property
    def client(self) -> Client:
        """The live client, not fenced. Once the manager has started."""
        return self._started.client

    @property
    def cache(self) -> Cache:
        """Its informers. Once the manager has started."""
        return self._started.cache

    @property
    def api(self) -> Api:
        """What runs use: reads see own writes, and writes are fenced. Once the manager has started."""
        return self._started.api

    @property
    def _started(self) -> Parts:
        if self._parts is None:
            message = f"cluster {self.name} is not connected: name it in Manager(clusters=[...]), and start the manager"
            raise ConfigurationError(message)
        return self._parts

    def __repr__(self) -> str:
        return f"<cluster {self.name}>"
