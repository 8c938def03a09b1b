"""`ClusterWatch`: the informers of one cluster with everything that is computed from them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, final

from kaito.api import Workspace, labels
from kaito.console.board import FLUSH_SECONDS, Board
from kaito.console.cluster.kinds import cached_kinds
from kaito.console.cluster.reachability import Reachability
from kaito.console.cluster.situations import Situations
from kaito.console.stream import everything
from kaito.console.tuning import TuningMonitor
from kaito.console.views.json_values import Json
from kaito.console.views.money import SAMPLE_SECONDS, History, Quota, money
from kaito.planning.documents import InputError
from kaito.planning.installed import settings_of
from kaito.runtime.cache import Cache
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.kinds import Deployment, Namespace, Node
from kaito.runtime.meta import ObjectKey
from kaito.runtime.tasks import TaskScope
from kaito.workspace.costs import NodePrices
from kaito.workspace.settings import WorkspaceSettings

SYNC_SECONDS: Final = 3.0
"""Longest wait for the first lists."""

SETTINGS_SECONDS: Final = 2.0
"""Time for which the settings of the controller are kept; every row needs them."""

ReadQuota: TypeAlias = Callable[[], Awaitable[Sequence[Quota] | None]]

QUOTA_SECONDS: Final = 2.0
"""Interval at which quotas are read."""

MONEY_SECONDS: Final = 0.2
"""Time for which the costs of all namespaces are kept."""

_NAME_LABEL: Final = "app.kubernetes.io/name"


@final
class ClusterWatch:
    """Follows one cluster.

    Args:
        transport: the network, with the rights of the console.
        clock: the current time.
        namespaces: namespaces to follow; all if empty.
        prices: prices of nodes.
        controller: settings of the controller; by default those in its Deployment.
        direct_url: returns the address at which this machine reaches a Service, if there is one.
        is_in_cluster: whether addresses of pods can be reached.
        read_quota: reads the quotas of the cloud, if the console can; returns None if they are unknown.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        namespaces: tuple[str, ...] = (),
        prices: NodePrices | None = None,
        controller: WorkspaceSettings | None = None,
        direct_url: Callable[[ObjectKey], str | None] = lambda _: None,
        is_in_cluster: bool = False,
        read_quota: ReadQuota | None = None,
    ) -> None:
        self.clock = clock
        self.direct_url = direct_url
        self.prices: NodePrices = prices or NodePrices()
        self.cache: Cache = Cache(
            transport, cached_kinds(), namespaces=namespaces, clock=clock, user_agent="kaito-console"
        )
        self._controller = controller
        self._known: tuple[WorkspaceSettings, tuple[str, ...]] | None = None
        self._known_until = 0.0
        self._all_money: tuple[float, Json] | None = None
        self._read_quota = read_quota
        self._quota: Sequence[Quota] | None = None
        self.situations: Situations = Situations(self.cache, lambda: self.controller_settings()[0])
        self.tuning: TuningMonitor = TuningMonitor(
            self.cache, transport, clock, lambda key: self.board.mark([key]), is_in_cluster=is_in_cluster
        )
        self.board: Board = Board(self.cache, self.situations, self.prices, self.tuning, clock)
        self.reachability: Reachability = Reachability(self.cache, clock)
        self.history: History = History()
        self.board.subscribe()

    async def run(self) -> None:
        """Follows the cluster until canceled."""
        async with TaskScope("console") as scope:
            scope.spawn(self.cache.run(), name="cache")
            scope.spawn(self.reachability.run(), name="reachability")
            scope.spawn(self.board.run(), name="board")
            scope.spawn(self.tuning.run(), name="tuning")
            if self._read_quota is not None:
                scope.spawn(self._follow_quota(self._read_quota), name="quota")
            while True:
                await asyncio.sleep(SAMPLE_SECONDS)
                self.history.record(self.clock.now(), [(key, e.cost) for key, e in self.board.entries.items()])

    async def wait_synced(self) -> None:
        """Waits until the first lists have arrived and the rows are computed; for a short time at most.

        Pages that are opened while the console starts then show rows at once, also if a kind cannot be read.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS):
                for kind in (Workspace, Namespace):
                    await self.cache.informer(kind).wait_synced()
                while self.board.is_behind:  # noqa: ASYNC110 - the informer has no event for it
                    await asyncio.sleep(FLUSH_SECONDS / 4)

    def money(self, visible: Callable[[str], bool]) -> Json:
        """Returns the costs of the visible namespaces; those of all are kept for a moment, for all readers."""
        if visible is not everything:
            return self._money(visible)
        now = monotonic()
        if self._all_money is None or now >= self._all_money[0]:
            self._all_money = (now + MONEY_SECONDS, self._money(everything))
        return self._all_money[1]

    def _money(self, visible: Callable[[str], bool]) -> Json:
        costs = [(key, entry.cost) for key, entry in self.board.entries.items() if visible(key.namespace)]
        return money(costs, self.history, self.clock.now(), currency=self.prices.book.currency, quota=self._quota)

    async def _follow_quota(self, read: ReadQuota) -> None:
        while True:
            self._quota = await read()
            await asyncio.sleep(QUOTA_SECONDS)

    def controller_settings(self) -> tuple[WorkspaceSettings, tuple[str, ...]]:
        """Returns the settings of the controller in the cluster, and what is not known about them.

        Without a region in them, the region is that of the nodes, if they have one.
        """
        now = monotonic()
        if self._known is None or now >= self._known_until:
            found, notes = (self._controller, ()) if self._controller is not None else self._installed()
            found = found if found.region else found.model_copy(update={"region": self._region()})
            self._known, self._known_until = (found, notes), now + SETTINGS_SECONDS
        return self._known

    def _installed(self) -> tuple[WorkspaceSettings, tuple[str, ...]]:
        if not self.cache.informer(Deployment).synced:
            return WorkspaceSettings(), ("the settings of the controller are not known yet",)
        deployments = self.cache.list(Deployment)
        chosen = [each for each in deployments if each.labels.get(_NAME_LABEL) == "workspace-controller"]
        try:
            installed = settings_of(chosen)
        except InputError as error:
            return WorkspaceSettings(), (str(error),)
        return installed.invocation.workspace, installed.notes

    def _region(self) -> str:
        """Returns the region of the nodes; empty if they have none, or several."""
        if not self.cache.informer(Node).synced:
            return ""
        shards = self.cache.informer(Node).shards("")
        regions = {entry.header.labels.get(labels.REGION, "") for shard in shards for entry in shard.store} - {""}
        return regions.pop() if len(regions) == 1 else ""
