"""The table of prices in this package: a snapshot for plans without network and without a table of the user.

`data/azure.yaml` contains its source, and states that the source has no date. It contains regions of the United States
only. The spot prices are samples.
"""

from functools import cache
from importlib import resources

from kaito.prices.table import PriceTable, parse_table


@cache
def shipped_table() -> PriceTable:
    """Returns the table, read on first use."""
    text = resources.files("kaito.prices").joinpath("data", "azure.yaml").read_text(encoding="utf-8")
    return parse_table(text, "prices shipped with Kaito")
