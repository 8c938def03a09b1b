"""What a node of the user's own has: its GPUs read from labels, as an `InstanceType` like those of the table.

NVIDIA's GPU feature discovery writes the labels. Without them the node's instance type label is looked up in the table.
"""

from collections.abc import Mapping

from kaito.api import labels
from kaito.models.gpu import Gpu, InstanceType
from kaito.models.instance_types import Cloud, find, gpu_named

_MIB = 2**20


def instance_type_of(node_labels: Mapping[str, str], cloud: Cloud = "azure") -> InstanceType | None:
    """The node's GPUs; None when neither feature discovery nor the table knows.

    Numbers that are not numbers count as absent labels.
    """
    name = node_labels.get(labels.INSTANCE_TYPE, "")
    product = node_labels.get(labels.GPU_PRODUCT, "")
    count, memory = _number(node_labels.get(labels.GPU_COUNT)), _number(node_labels.get(labels.GPU_MEMORY))
    if not (product and count and memory):
        return find(name, cloud)
    known = gpu_named(product)
    capability = _capability(node_labels) or (known.compute_capability if known else 0.0)
    gpu = Gpu(known.name if known else product, "nvidia", capability)
    return InstanceType(name or product, gpu, count, memory * _MIB)


def _capability(node_labels: Mapping[str, str]) -> float:
    major, minor = _number(node_labels.get(labels.CUDA_MAJOR)), _number(node_labels.get(labels.CUDA_MINOR))
    return major + minor / 10


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
