"""The price book: answers from the first source that contains a price."""

from dataclasses import dataclass
from typing import Protocol, final

from kaito.prices.azure_retail import Found, PricesUnavailable
from kaito.prices.price import CapacityType, Offering, Price, Quote
from kaito.prices.shipped import shipped_table
from kaito.prices.table import PriceTable


class LivingSource(Protocol):
    """A source of current prices, which may fail."""

    async def find(self, offering: Offering) -> Found:
        """Returns the price of an offering.

        Raises:
            PricesUnavailable: the source cannot be read.
        """
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """The user's table, then a living source, then the table of this package.

    The user's table may contain other currencies and negotiated prices, so it has precedence.
    """

    own: PriceTable | None = None
    living: LivingSource | None = None

    @property
    def currency(self) -> str:
        """Currency of limits: that of the user's table, else that of the table of this package."""
        table = self.own if self.own is not None and self.own.prices else shipped_table()
        return next(iter(table.prices.values())).currency

    def find_offline(self, offering: Offering) -> Price | None:
        """Returns a price from the tables, without the network."""
        found = self.own.find(offering) if self.own is not None else None
        return found or shipped_table().find(offering)

    async def find(self, offering: Offering) -> Quote:
        """Returns a price, and why a source could not be read."""
        if self.own is not None and (price := self.own.find(offering)) is not None:
            return Quote(price=price)
        notes: list[str] = []
        if self.living is not None:
            try:
                found = await self.living.find(offering)
            except PricesUnavailable as error:
                notes.append(str(error))
            else:
                notes += [found.note] if found.note else []
                if found.price is not None:
                    return Quote(price=found.price, notes=tuple(notes))
        return Quote(price=shipped_table().find(offering), notes=tuple(notes))

    def regions(self, cloud: str, instance_type: str, capacity_type: CapacityType = "on-demand") -> dict[str, Price]:
        """Returns the prices of an instance type by region, from the first table that contains it."""
        tables = (self.own, shipped_table()) if self.own is not None else (shipped_table(),)
        found = (table.regions(cloud, instance_type, capacity_type) for table in tables)
        return next((prices for prices in found if prices), dict[str, Price]())
