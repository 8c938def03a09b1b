"""Accounts what the nodes of a Workspace cost since its creation: a pure function of the last account and the nodes.

The account is in `status.cost`: the nodes that exist with the time from which they are counted, and the sum of those
that do not exist any more. A node moves from the first to the second in the write that notices its end, so that a crash
before or after the write counts it once.

The end of a node is the time at which this process notices it. If the node ended while no controller ran, its end is
unknown, and the time of the last account is taken: the cost is then too low by at most the absence of the controller.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, Self, final

from kaito.api import Claim, Workspace
from kaito.api.workspace.cost import CostStatus, EndedCost, NodeCost
from kaito.prices.price import Price
from kaito.runtime.kinds import Node

_PLACES: Final = Decimal("0.000001")
_HOUR: Final = Decimal(3600)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A node that exists in the cloud."""

    name: str
    """Name of the claim."""
    since: datetime
    """When the node joined or the instance was ready, whichever was earlier."""
    price: Price | None
    """None if it is unknown."""


def started_at(claim: Claim, node: Node | None) -> datetime | None:
    """Returns when the claim's instance began to exist; None if it does not exist yet."""
    launched = claim.condition(claim.stages.launched)
    times = [
        launched.last_transition_time if launched is not None and launched.is_true else None,
        node.metadata.creation_timestamp if node is not None else None,
    ]
    known = [time for time in times if time is not None]
    if known:
        return min(known)
    return claim.metadata.creation_timestamp if claim.status.provider_id else None


@dataclass(slots=True)
class _Ended:
    """The sum of nodes that ended."""

    total: Decimal
    hours: Decimal
    unpriced: Decimal

    @classmethod
    def of(cls, ended: EndedCost) -> "_Ended":
        return cls(_decimal(ended.total), _decimal(ended.node_hours), _decimal(ended.unpriced_node_hours))

    def add(self, node: NodeCost, until: datetime) -> None:
        hours = hours_between(node.since, until)
        self.hours += hours
        if node.per_hour is None:
            self.unpriced += hours
        else:
            self.total += hours * _decimal(node.per_hour)

    def to_status(self) -> EndedCost:
        return EndedCost(
            total=_text(self.total), node_hours=_text(self.hours), unpriced_node_hours=_text(self.unpriced)
        )


def account(
    before: CostStatus | None, instances: Sequence[Instance], *, now: datetime, seen: Collection[str] = ()
) -> CostStatus | None:
    """Returns the account of the nodes until now; None while no node ever existed.

    Args:
        before: the last account.
        instances: the nodes that exist.
        now: the current time.
        seen: names of the claims that this process has seen: their end is noticed when it happens.
    """
    if before is None and not instances:
        return None
    last = before or CostStatus()
    currency = last.currency or next((i.price.currency for i in instances if i.price is not None), "")
    ended = _Ended.of(last.ended)
    present = {instance.name: instance for instance in instances}
    nodes: list[NodeCost] = []
    for node in last.nodes:
        instance = present.get(node.name)
        if instance is not None and not _is_new(instance, node, last):
            rate = _rate(instance, currency)
            if rate is None or rate == node.per_hour:
                nodes.append(node)  # also while the node's labels, and with them its price, cannot be read
            elif node.per_hour is None:
                nodes.append(node.evolve(per_hour=rate))
            else:
                ended.add(node, now)
                nodes.append(NodeCost(name=node.name, since=now, per_hour=rate))
            del present[node.name]
        else:
            noticed = instance is None and node.name in seen
            ended.add(node, now if noticed else max(last.updated_at or node.since, node.since))
    nodes += [NodeCost(name=i.name, since=i.since, per_hour=_rate(i, currency)) for i in present.values()]
    nodes.sort(key=lambda node: node.name)
    return _summary(last, nodes, ended, instances, currency=currency, now=now)


def _is_new(instance: Instance, node: NodeCost, last: CostStatus) -> bool:
    """Whether the instance is not the one that has its claim's name in the last account, because it began later.

    Its time is from the clock of the API server, which may be ahead of that of this process.
    """
    return last.updated_at is not None and instance.since > max(last.updated_at, node.since)


def _summary(
    last: CostStatus,
    nodes: list[NodeCost],
    ended: _Ended,
    instances: Sequence[Instance],
    *,
    currency: str,
    now: datetime,
) -> CostStatus:
    is_priced = all(node.per_hour is not None for node in nodes)
    prices = [i.price for i in instances if i.price is not None and i.price.currency == currency]
    sources = sorted({price.source for price in prices})
    dates = sorted({str(price.as_of) for price in prices if price.as_of is not None})
    return CostStatus(
        currency=currency,
        per_hour=_text(rate_of(nodes)) if is_priced else None,
        total=_text(ended.total + accrued(nodes, now)) if is_priced and not ended.unpriced else None,
        node_hours=_text(ended.hours + _hours(nodes, now)),
        source="; ".join(sources) or last.source,
        price_date=dates[0] if dates else last.price_date,
        updated_at=now,
        nodes=nodes,
        ended=ended.to_status(),
    )


def has_changed(before: CostStatus | None, after: CostStatus) -> bool:
    """Whether the accounts differ in more than the time that has passed."""
    if before is None:
        return True
    timeless = {"updated_at": None, "total": None, "node_hours": "0"}
    return before.evolve(**timeless) != after.evolve(**timeless)


@final
@dataclass(frozen=True, slots=True)
class Accrual:
    """The cost of a Workspace as a function of time, from an account."""

    ended: Decimal
    """Cost of the nodes that ended."""
    rates: tuple[tuple[datetime, Decimal], ...]
    """Start and price per hour of the nodes that exist."""

    @classmethod
    def of(cls, cost: CostStatus) -> Self | None:
        """Returns the accrual of an account; None if a price is or was unknown."""
        if cost.total is None or any(node.per_hour is None for node in cost.nodes):
            return None
        return cls(_decimal(cost.ended.total), _rates(cost.nodes))

    def total_at(self, now: datetime) -> Decimal:
        """Returns the cost until a time after the account."""
        return self.ended + _accrued(self.rates, now)


def total_at(cost: CostStatus, now: datetime) -> Decimal | None:
    """Returns the cost until a time after the account; None if a price is or was unknown."""
    accrual = Accrual.of(cost)
    return None if accrual is None else accrual.total_at(now)


def node_hours_at(cost: CostStatus, now: datetime) -> Decimal:
    """Returns the hours of all nodes until a time after the account."""
    return _decimal(cost.ended.node_hours) + _hours(cost.nodes, now)


def rate_of(nodes: Sequence[NodeCost]) -> Decimal:
    """Returns the cost per hour of the nodes whose price is known."""
    return sum((_decimal(node.per_hour) for node in nodes if node.per_hour is not None), Decimal(0))


def accrued(nodes: Sequence[NodeCost], now: datetime) -> Decimal:
    """Returns the cost until now of the nodes whose price is known."""
    return _accrued(_rates(nodes), now)


def _rates(nodes: Sequence[NodeCost]) -> tuple[tuple[datetime, Decimal], ...]:
    return tuple((node.since, _decimal(node.per_hour)) for node in nodes if node.per_hour is not None)


def _accrued(rates: Sequence[tuple[datetime, Decimal]], now: datetime) -> Decimal:
    return sum((hours_between(since, now) * rate for since, rate in rates), Decimal(0))


IdleReason = Literal["not-serving", "tuning-not-running", "tuning-finished", "deleting"]
"""Why nodes do nothing useful."""


def idle_share(workspace: Workspace) -> tuple[Decimal, IdleReason]:
    """Returns the share of a Workspace's nodes that do nothing useful now, 0 to 1, and why.

    Nodes of an inference Workspace are useful if the copy on them is ready. If copies share a node, a part of it is.
    """
    status = workspace.status
    if workspace.deleting:
        return Decimal(1), "deleting"
    if workspace.tuning is not None:
        is_finished = status.state in {"Succeeded", "Failed"}
        return Decimal(int(status.state != "Running")), "tuning-finished" if is_finished else "tuning-not-running"
    nodes = len(status.cost.nodes) if status.cost is not None else 0
    copies = max(status.replicas, 1)
    shared = 0 < status.target_node_count < copies
    per_copy = Decimal(status.target_node_count) / copies if shared else max(status.target_node_count // copies, 1)
    useful = min(status.ready_replicas * per_copy, Decimal(nodes))
    return Decimal(nodes - useful) / nodes if nodes else Decimal(0), "not-serving"


def _hours(nodes: Sequence[NodeCost], until: datetime) -> Decimal:
    return sum((hours_between(node.since, until) for node in nodes), Decimal(0))


def hours_between(since: datetime, until: datetime) -> Decimal:
    """Returns the hours between two times; 0 if the second is earlier."""
    return max(Decimal(str((until - since).total_seconds())), Decimal(0)) / _HOUR


def _rate(instance: Instance, currency: str) -> str | None:
    """Returns the price per hour; None if it is unknown, or in another currency than the account."""
    if instance.price is None or instance.price.currency != currency:
        return None
    return _text(instance.price.per_hour)


def _decimal(text: str | None) -> Decimal:
    """Reads an amount of the status; an amount that was edited to something else counts as 0."""
    try:
        found = Decimal(text or "0")
    except InvalidOperation:
        return Decimal(0)
    return found if found.is_finite() else Decimal(0)


def _text(value: Decimal) -> str:
    text = f"{value.quantize(_PLACES):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
