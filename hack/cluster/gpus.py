"""Advertises GPUs that the node does not have, so that pods which request them are scheduled.

kubelet keeps extended resources that it does not manage; the labels are those of NVIDIA's GPU feature discovery.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.cluster.cluster import Cluster

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpus:
    """GPUs of a node; the default product has no vLLM plan, so that models run with transformers, on a CPU.

    Args:
        count: Number of GPUs.
        product: Product name as GPU feature discovery writes it.
        memory_mib: Memory of each GPU.
    """

    count: int = 4
    product: str = "Tesla-V100-PCIE-16GB"
    memory_mib: int = 16384


def advertise(cluster: "Cluster", node: str, gpus: Gpus = Gpus()) -> None:
    """Writes the GPUs into the status and the labels of a node."""
    quantity = {RESOURCE: str(gpus.count)}
    status = {"status": {"capacity": quantity, "allocatable": quantity}}
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    labels = {
        f"{RESOURCE}.product": gpus.product,
        f"{RESOURCE}.count": str(gpus.count),
        f"{RESOURCE}.memory": str(gpus.memory_mib),
    }
    words = [f"{key}={value}" for key, value in labels.items()]
    cluster.kubectl("label", "node", node, "--overwrite", *words)
