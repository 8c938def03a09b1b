"""Maps `resource.capacityType` to the capacity types that new nodes of a Workspace may have."""

from collections.abc import Mapping
from typing import Final

from kaito.api import Workspace
from kaito.api.workspace import CapacityTypeChoice
from kaito.prices.price import CapacityType

_CHOICES: Final[Mapping[CapacityTypeChoice, tuple[CapacityType, ...]]] = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-preferred": ("spot", "on-demand"),
}


def capacity_types(workspace: Workspace) -> tuple[CapacityType, ...]:
    """Returns the capacity types in the order in which they are tried; empty if the Workspace does not name any."""
    chosen = workspace.resource.capacity_type
    return () if chosen is None else _CHOICES[chosen]
