"""The figures of a Workspace that metrics report: a pure function of the object.

Phases follow from `status.state`, so that a Workspace that is still starting is not counted as an error.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self, final

from kaito.api import Workspace
from kaito.workspace.cost_ledger import Accrual, IdleReason, idle_share, rate_of
from kaito.workspace.start_figures import cache_tokens, peak_bytes

_PHASES = {
    "Ready": "succeeded",
    "ScaledToZero": "succeeded",
    "Succeeded": "succeeded",
    "Failed": "error",
    "NotReady": "error",
}


def phase(workspace: Workspace) -> str:
    """Returns upstream's phase: `deleting`, `succeeded`, `error` or `pending`."""
    if workspace.deleting:
        return "deleting"
    return _PHASES.get(workspace.status.state or "", "pending")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CostFigures:
    """What the nodes of a Workspace cost; amounts are those of the nodes with a known price."""

    currency: str
    unpriced: int
    """Number of nodes whose price is unknown."""
    per_hour: float
    idle_per_hour: float
    """The part of `per_hour` of nodes that do nothing useful."""
    idle_reason: IdleReason
    accrual: Accrual | None
    """None if the total is unknown."""

    @classmethod
    def of(cls, workspace: Workspace) -> Self | None:
        """Returns the figures; None for a Workspace that never had nodes."""
        cost = workspace.status.cost
        if cost is None:
            return None
        rate, (share, reason) = rate_of(cost.nodes), idle_share(workspace)
        return cls(
            currency=cost.currency,
            unpriced=sum(node.per_hour is None for node in cost.nodes),
            per_hour=float(rate),
            idle_per_hour=float(rate * share),
            idle_reason=reason,
            accrual=Accrual.of(cost),
        )

    def total_at(self, now: datetime) -> Decimal | None:
        """Returns the cost until a time after the account; None if a price is or was unknown."""
        return None if self.accrual is None else self.accrual.total_at(now)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFigures:
    """The figures of a Workspace."""

    namespace: str
    name: str
    phase: str
    preset: str
    """Preset of an inference Workspace; empty for others."""
    cache_tokens: tuple[tuple[str, int], ...]
    """Source and number of the tokens that fit into the key-value cache of a copy."""
    peak_bytes: tuple[tuple[str, int], ...]
    """Source and bytes of the memory of a GPU without the key-value cache."""
    cost: CostFigures | None

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """Returns the figures."""
        return cls(
            namespace=workspace.namespace,
            name=workspace.name,
            phase=phase(workspace),
            preset=workspace.preset_name if workspace.inference else "",
            cache_tokens=tuple(cache_tokens(workspace.status.performance)),
            peak_bytes=tuple(peak_bytes(workspace.status.performance)),
            cost=CostFigures.of(workspace),
        )
