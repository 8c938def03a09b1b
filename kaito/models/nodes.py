"""Determines the GPUs of existing nodes (`--node-api byo`) from their labels.

NVIDIA's GPU feature discovery sets the labels. Without them, the node's instance type is looked up in the table.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kaito.api import conditions, labels
from kaito.models.errors import PlanError
from kaito.models.gpu import Gpu, InstanceType
from kaito.models.instance_types import Cloud, find
from kaito.models.products import gpu_named

SELECTOR_FIELD: Final = "resource.labelSelector"

_MIB: Final = 2**20
_MOST_GPUS: Final = 1024
"""Upper bound for the number of GPUs of a node; a label with a larger number is ignored."""

_NAMES_SHOWN: Final = 5
"""Number of nodes that a message names for each GPU; further ones are counted."""


class MixedGpus(PlanError):
    """The nodes that the selector matches have different GPUs."""


class UnknownGpus(PlanError):
    """The GPUs of the nodes cannot be determined."""

    reason = conditions.UNKNOWN_INSTANCE_TYPE


def instance_type_of(node_labels: Mapping[str, str], cloud: Cloud = "azure") -> InstanceType | None:
    """Returns the node's GPUs; None if neither its labels nor the table contain them.

    Labels that are not integers are ignored, and so is an impossible number of GPUs. An unknown GPU has the compute
    capability None. A time slice has its part of the memory of the GPU; without the number of time slices, the GPUs are
    not known.
    """
    name = node_labels.get(labels.INSTANCE_TYPE, "")
    product = node_labels.get(labels.GPU_PRODUCT, "")
    count, memory = _number(node_labels.get(labels.GPU_COUNT)), _number(node_labels.get(labels.GPU_MEMORY))
    if not (product and 0 < count <= _MOST_GPUS and memory):
        return find(name, cloud)
    shares = _number(node_labels.get(labels.GPU_REPLICAS)) if _is_shared(product) else 1
    if shares < 1:
        return None
    is_part = _is_part(product)
    if is_part:
        count = 1
    known = gpu_named(product)
    capability = _capability(node_labels) or (known.compute_capability if known else None)
    gpu = Gpu(known.name if known else product, "nvidia", capability)
    return InstanceType(name or product, gpu, count, memory * _MIB // shares, is_part=is_part, shares=shares)


def uniform_instance_type(nodes: Mapping[str, Mapping[str, str]], cloud: Cloud = "azure") -> InstanceType | None:
    """Returns the instance type that a Workspace is planned for, from the labels of all nodes that it may use.

    All nodes must have the same GPU product, because a pod may be placed on any of them, and command and number format
    are planned once. If they differ in number or memory of their GPUs, the smallest number and memory are planned.
    Nodes without GPUs are ignored.

    Args:
        nodes: labels by node name.
        cloud: the cloud of the instance types.

    Returns:
        None if there are no nodes.

    Raises:
        MixedGpus: the nodes have different products; the message contains the nodes of each.
        UnknownGpus: the GPUs of none of the nodes can be determined.
    """
    if not nodes:
        return None
    seen = {name: instance_type_of(found, cloud) for name, found in sorted(nodes.items())}
    known = {name: instance for name, instance in seen.items() if instance is not None}
    if not known:
        is_shared = any(_is_shared(found.get(labels.GPU_PRODUCT, "")) for found in nodes.values())
        more = f", and {labels.GPU_REPLICAS} for time slices" if is_shared else ""
        wanted = f"{labels.GPU_PRODUCT}, {labels.GPU_COUNT} and {labels.GPU_MEMORY}{more}"
        raise UnknownGpus(
            SELECTOR_FIELD,
            f"cannot determine the GPUs of nodes {_shown(list(seen))}: install GPU feature discovery, or set the node "
            f"labels {wanted}",
        )
    kinds = _by_product(known, nodes)
    if len(kinds) > 1:
        listed = "; ".join(f"{kind} on {_shown(names)}" for kind, names in sorted(kinds.items()))
        raise MixedGpus(
            SELECTOR_FIELD,
            f"matches nodes with different GPUs: {listed}: narrow the selector to one product, for example with the "
            f"node label {labels.GPU_PRODUCT}",
        )
    found = list(known.values())
    capabilities = [i.gpu.compute_capability for i in found if i.gpu.compute_capability is not None]
    least = min(found, key=lambda instance: instance.gpu_memory)
    return replace(
        least,
        gpu=replace(least.gpu, compute_capability=min(capabilities, default=None)),
        gpus=min(instance.gpus for instance in found),
        memory_per_gpu=min(instance.memory_per_gpu for instance in found),
        shares=max(instance.shares for instance in found),
    )


def _by_product(known: Mapping[str, InstanceType], nodes: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Groups node names by GPU product.

    A node without the product label is grouped with the labeled nodes of the same GPU.
    """
    kinds: dict[str, list[str]] = {}
    product_of_gpu: dict[str, str] = {}
    for labeled in (True, False):
        for name, instance in known.items():
            product = nodes[name].get(labels.GPU_PRODUCT, "")
            if bool(product) is not labeled:
                continue
            kind = product or product_of_gpu.get(instance.gpu.name, instance.gpu.name)
            product_of_gpu.setdefault(instance.gpu.name, kind)
            kinds.setdefault(kind, []).append(name)
    return kinds


def _shown(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _is_part(product: str) -> bool:
    """Whether the node advertises partitions of GPUs: MIG slices (`...-MIG-3g.20gb`) or time slices (`...-SHARED`).

    Engines cannot divide a model over partitions, so a pod uses one.
    """
    words = product.upper().split("-")
    return "MIG" in words or "SHARED" in words


def _is_shared(product: str) -> bool:
    """Whether the node advertises time slices of GPUs."""
    return "SHARED" in product.upper().split("-")


def _capability(node_labels: Mapping[str, str]) -> float | None:
    """Returns the compute capability from the labels; None without them."""
    major, minor = _number(node_labels.get(labels.CUDA_MAJOR)), _number(node_labels.get(labels.CUDA_MINOR))
    return major + minor / 10 if major else None


def _number(text: str | None) -> int:
    return int(text) if text and len(text) <= 9 and text.isascii() and text.isdigit() else 0
