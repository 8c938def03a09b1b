"""What the Workspaces cost now, what of it is useless, and how the cost per hour developed."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, final

from kaito.console.views.costs import Cost
from kaito.console.views.json_values import Json, number, time_text
from kaito.runtime.meta import ObjectKey

_ZERO: Final = Decimal(0)

HISTORY_SECONDS: Final = 3600.0
"""Time that the history covers."""

SAMPLE_SECONDS: Final = 15.0
"""Interval of its values."""


@final
@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of the cloud."""

    family: str
    """Family of instance types."""
    used: int
    """vCPUs in use."""
    limit: int


@final
class History:
    """The cost per hour of each namespace in the last hour, in memory."""

    def __init__(self) -> None:
        self._samples: deque[tuple[datetime, dict[str, Decimal | None]]] = deque(
            maxlen=int(HISTORY_SECONDS / SAMPLE_SECONDS)
        )

    def record(self, now: datetime, costs: Iterable[tuple[ObjectKey, Cost]]) -> None:
        """Adds the present cost."""
        found: dict[str, Decimal | None] = {}
        for key, cost in costs:
            known = found.get(key.namespace, _ZERO)
            found[key.namespace] = known + cost.hourly if known is not None and cost.hourly is not None else None
        self._samples.append((now, found))

    def of(self, namespaces: Iterable[str]) -> list[tuple[str | None, float | None]]:
        """Returns the cost per hour of some namespaces over time; unknown while one of them is unknown."""
        chosen = set(namespaces)
        return [
            (time_text(at), number(_sum(sample.get(name, _ZERO) for name in chosen))) for at, sample in self._samples
        ]


def money(
    costs: Sequence[tuple[ObjectKey, Cost]],
    history: History,
    now: datetime,
    *,
    currency: str,
    quota: Sequence[Quota] | None,
) -> Json:
    """Returns the costs of some Workspaces.

    Amounts of other currencies than the most frequent one are left out and counted as unknown nodes.

    Args:
        costs: the cost of each Workspace.
        history: the cost per hour over time.
        now: the current time.
        currency: currency of the prices, while nothing costs.
        quota: the quotas of the cloud; None if they are unknown.
    """
    currencies = [cost.currency for _, cost in costs if cost.currency]
    currency = max(sorted(set(currencies)), key=currencies.count, default=currency)
    same = [(key, cost) for key, cost in costs if cost.currency in {"", currency}]
    by_namespace: dict[str, Decimal] = {}
    for key, cost in same:
        by_namespace[key.namespace] = by_namespace.get(key.namespace, _ZERO) + (cost.hourly or _ZERO)
    others = sum(len(cost.nodes) for _, cost in costs if cost.currency not in {"", currency})
    return {
        "hourly": number(sum((cost.hourly for _, cost in same if cost.hourly is not None), _ZERO)),
        "idleHourly": number(sum((cost.idle for _, cost in same if cost.idle is not None), _ZERO)),
        "accumulated": number(_sum(cost.accumulated(now) if cost.nodes or cost.record else _ZERO for _, cost in same)),
        "currency": currency,
        "unknownNodes": sum(cost.unknown_nodes for _, cost in same) + others,
        "byNamespace": [{"namespace": name, "hourly": number(by_namespace[name])} for name in sorted(by_namespace)],
        "useless": [
            {
                "node": node,
                "reason": cost.idle_reason,
                "hourly": number(cost.idle / len(cost.nodes)) if cost.idle is not None else None,
                "workspace": str(key),
            }
            for key, cost in same
            if cost.idle_reason
            for node in cost.nodes
        ],
        "history": history.of({key.namespace for key, _ in costs}),
        "quota": [asdict(each) for each in quota] if quota is not None else None,
    }


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Returns the sum; None if an amount is unknown."""
    total = _ZERO
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total
