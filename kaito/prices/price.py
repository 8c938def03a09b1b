"""Types of prices: an offering, the price of one node per hour, and the answer of a price book."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, Literal, final

CapacityType = Literal["on-demand", "spot"]
"""`spot` nodes can be evicted at any time. Their price changes within hours."""

HOURS_PER_MONTH: Final = 730
"""Hours that Azure's price calculator counts as a month (365 days x 24 / 12)."""


@final
@dataclass(frozen=True, slots=True)
class Offering:
    """One kind of node that can be bought."""

    cloud: str
    region: str
    """Name of the cloud's region, such as `eastus`."""
    instance_type: str
    """The cloud's name of the instance type; compared without regard to case."""
    capacity_type: CapacityType = "on-demand"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Price of one node per hour, without discounts and taxes unless the user's table contains them."""

    per_hour: Decimal
    """More than 0."""
    currency: str
    """ISO 4217 code."""
    capacity_type: CapacityType
    source: str
    """Where the price was read, for people."""
    as_of: date | None = None
    """Day on which the source stated the price; None if the source states no day."""

    def __str__(self) -> str:
        return f"{amount(self.per_hour)} {self.currency} per hour"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Answer of a price book."""

    price: Price | None
    """None if no source contains a price."""
    notes: tuple[str, ...] = ()
    """Sources that could not be read, each with the reason."""


def amount(value: Decimal) -> str:
    """Formats an amount of money: cents, and four decimals for less than 1."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if 0 < value < 1 else f"{value:,.2f}"
