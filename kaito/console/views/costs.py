"""What the nodes of one Workspace cost, from its status, or from the nodes that exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, final

from kaito.api.workspace import CostStatus
from kaito.diagnosis import Situation
from kaito.workspace.cost_ledger import account, idle_share, rate_of, total_at
from kaito.workspace.costs import NodePrices

_ZERO: Final = Decimal(0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one Workspace. Amounts that are unknown are None."""

    currency: str = ""
    hourly: Decimal | None = None
    """Cost per hour of the nodes that exist; 0 without nodes."""
    idle: Decimal | None = None
    """The part of it for nodes that do nothing useful."""
    idle_reason: str = ""
    """Why nodes do nothing useful; empty if all do."""
    unknown_nodes: int = 0
    """Nodes whose price is unknown."""
    record: CostStatus | None = None
    """The account of the controller, from which the cost so far is computed; None if there is none."""
    nodes: Sequence[str] = ()
    """Names of the claims of the nodes."""

    def accumulated(self, now: datetime) -> Decimal | None:
        """Returns the cost since the creation of the Workspace."""
        return total_at(self.record, now) if self.record is not None else None


def cost_of(situation: Situation, prices: NodePrices) -> Cost:
    """Returns the cost of a Workspace's nodes.

    The controller records it in the status. Without a record, as with upstream Kaito, the nodes that exist count.
    """
    workspace = situation.workspace
    record = workspace.status.cost
    found = record
    if found is None and situation.claims:
        nodes = {node.name: node for node in situation.nodes}
        instances = prices.instances(situation.claims, nodes, situation.settings)
        found = account(None, instances, now=situation.now)
    if found is None:
        return Cost(hourly=_ZERO, idle=_ZERO)
    unknown = sum(node.per_hour is None for node in found.nodes)
    hourly = rate_of(found.nodes) if not unknown else None
    share, reason = idle_share(workspace)
    return Cost(
        currency=found.currency,
        hourly=hourly,
        idle=hourly * share if hourly is not None and record is not None else None,
        idle_reason=reason if share and found.nodes and record is not None else "",
        unknown_nodes=unknown,
        record=record,
        nodes=[node.name for node in found.nodes],
    )
