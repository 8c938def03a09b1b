"""`ClusterWatch`: the informers of one cluster with everything that is computed from them."""

import asyncio
from collections.abc import Callable
from typing import final

from kaito.console.board import Board
from kaito.console.cluster.kinds import cached_kinds
from kaito.console.cluster.reachability import Reachability
from kaito.console.cluster.situations import Situations
from kaito.console.views.json_values import Json
from kaito.console.views.money import SAMPLE_SECONDS, History, money
from kaito.runtime.cache import Cache
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock
from kaito.runtime.tasks import TaskScope
from kaito.workspace.costs import NodePrices


@final
class ClusterWatch:
    """Follows one cluster.

    Args:
        transport: the network, with the rights of the console.
        clock: the current time.
        namespaces: namespaces to follow; all if empty.
        prices: prices of nodes.
    """

    def __init__(
        self, transport: Transport, clock: Clock, *, namespaces: tuple[str, ...] = (), prices: NodePrices | None = None
    ) -> None:
        self.clock = clock
        self.prices: NodePrices = prices or NodePrices()
        self.cache: Cache = Cache(
            transport, cached_kinds(), namespaces=namespaces, clock=clock, user_agent="kaito-console"
        )
        self.situations: Situations = Situations(self.cache)
        self.board: Board = Board(self.cache, self.situations, self.prices, clock)
        self.reachability: Reachability = Reachability(self.cache, clock)
        self.history: History = History()
        self.board.subscribe()

    async def run(self) -> None:
        """Follows the cluster until canceled."""
        async with TaskScope("console") as scope:
            scope.spawn(self.cache.run(), name="cache")
            scope.spawn(self.reachability.run(), name="reachability")
            scope.spawn(self.board.run(), name="board")
            while True:
                await asyncio.sleep(SAMPLE_SECONDS)
                self.history.record(self.clock.now(), [(key, e.cost) for key, e in self.board.entries.items()])

    def money(self, visible: Callable[[str], bool]) -> Json:
        """Returns the costs of the visible namespaces."""
        costs = [(key, entry.cost) for key, entry in self.board.entries.items() if visible(key.namespace)]
        return money(costs, self.history, self.clock.now())
