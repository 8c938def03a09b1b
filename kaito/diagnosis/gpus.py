"""Finds the resources of GPUs among those of a node."""

from typing import Final

from kaito.api import labels
from kaito.models.partitions import MIG_RESOURCE
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Quantity

_WHOLE: Final = (labels.NVIDIA_GPU, labels.AMD_GPU, labels.NEURON_DEVICE)
_PARTS: Final = (MIG_RESOURCE, "nvidia.com/gpu.shared")
"""Prefixes of the resources of slices (strategy `mixed` of the device plugin) and of renamed time slices."""


def advertised_gpus(node: Node) -> list[str]:
    """Returns the names of the resources of which the node advertises at least one: whole GPUs, then parts of GPUs."""
    found = [name for name, quantity in node.status.capacity.items() if quantity > Quantity(0)]
    return [name for name in _WHOLE if name in found] + sorted(name for name in found if name.startswith(_PARTS))
