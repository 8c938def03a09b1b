"""Computes what the nodes of a plan cost, from a price book."""

from dataclasses import dataclass
from decimal import Decimal
from typing import final

from kaito.prices.price import HOURS_PER_MONTH, CapacityType, Offering, Price, amount
from kaito.workspace.plan import Hardware


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a number of equal nodes."""

    nodes: int
    price: Price
    """Price of one node."""

    @property
    def per_hour(self) -> Decimal:
        """Cost of all nodes for an hour."""
        return self.price.per_hour * self.nodes

    @property
    def per_month(self) -> Decimal:
        """Cost of all nodes for a month of 730 hours."""
        return self.per_hour * HOURS_PER_MONTH

    def __str__(self) -> str:
        currency = self.price.currency
        return f"{amount(self.per_hour)} {currency} per hour, {amount(self.per_month)} {currency} per month"


def offering(hardware: Hardware, *, cloud: str, region: str, capacity_type: CapacityType | None = None) -> Offering:
    """Returns the offering of the planned nodes.

    Nodes that may be spot or on-demand count as on-demand, which is the higher price.
    """
    is_spot = hardware.capacity_types == ("spot",)
    return Offering(cloud, region, hardware.instance_type, capacity_type or ("spot" if is_spot else "on-demand"))
