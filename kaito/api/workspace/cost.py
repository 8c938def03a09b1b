"""`workspace.status.cost`: what the Workspace's nodes cost.

Amounts are decimal strings. An amount that is unknown is absent.
"""

from typing import Annotated

from pydantic import Field

from kaito.runtime.meta import Model, Time

Amount = Annotated[str, Field(json_schema_extra={"maxLength": 32})]
"""A decimal number, such as `12.3456`."""


class NodeCost(Model):
    """A node that exists and is paid for."""

    name: str
    """Name of the claim."""

    since: Time
    """Since when the node is counted at this price."""

    per_hour: Amount | None = None
    """Price of the node per hour; absent if it is unknown."""


class EndedCost(Model):
    """Nodes that do not exist any more."""

    total: Amount = "0"
    """Cost of the nodes whose price was known."""

    node_hours: Amount = "0"
    """Hours of all nodes."""

    unpriced_node_hours: Amount = "0"
    """Hours of the nodes whose price was unknown."""


class CostStatus(Model):
    """Cost of the nodes of the Workspace's claims, from the price table, without discounts and taxes.

    A node is counted from the moment it joins or its instance is ready until its claim does not exist. It is written
    with other changes of the status, and otherwise once an hour.
    """

    currency: str = ""
    """Currency of all amounts (ISO 4217); empty while no price is known."""

    per_hour: Amount | None = None
    """Cost of the nodes that exist now, Ready or not; absent if the price of one is unknown."""

    total: Amount | None = None
    """Cost from the creation of the Workspace until `updatedAt`; absent if the price of a node is or was unknown."""

    node_hours: Amount = "0"
    """Hours of all nodes until `updatedAt`."""

    source: str = ""
    """Where the prices were read."""

    price_date: str = ""
    """Day on which the source stated the prices; empty if it states none."""

    updated_at: Time | None = None
    """Time until which `total` and `nodeHours` are computed."""

    nodes: list[NodeCost] = Field(default_factory=list[NodeCost])
    """Nodes that exist, sorted by name."""

    ended: EndedCost = Field(default_factory=EndedCost)
    """Nodes that do not exist any more."""
