"""What the Workspaces of a simulation need and cost, as tables: the reference computes it without the planner."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from kaito.simulation.manifests import Object, section

A100: Final = "Standard_NC24ads_A100_v4"
V100: Final = "Standard_NC6s_v3"
A10: Final = "Standard_NV36ads_A10_v5"

REGION: Final = "eastus"
"""The region of the simulated cloud, whose prices the controllers read."""

SMALL: Final = "phi-3-mini-4k-instruct"
"""A model that runs on one node of each instance type."""
LARGE: Final = "phi-4"
"""A model of which a copy needs two nodes of A10, and that no V100 can run."""

NODES_PER_COPY: Final = {(LARGE, A10): 2, (LARGE, V100): 0}
"""Nodes of one copy by model and instance type, where it is not one; 0 if the instance type cannot run the model."""

SLICES: Final = {"2g.20gb": 3, "3g.40gb": 2}
"""Slices of the only GPU of an A100 node by profile, each for one copy."""

PRICES: Final = {
    (A100, "on-demand"): Decimal("3.673"),
    (A100, "spot"): Decimal("0.444433"),
    (V100, "on-demand"): Decimal("3.06"),
    (V100, "spot"): Decimal("0.3978"),
    (A10, "on-demand"): Decimal("3.2"),
    (A10, "spot"): Decimal("0.8"),
}
"""Price of a node per hour, in the currency of the limits."""

CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"


def sizes_of(workspace: Mapping[str, Any]) -> list[str]:
    """Returns the instance types of a Workspace in order; several if it has alternatives."""
    resource = section(workspace, "resource")
    return list(resource.get("instanceTypes") or [str(resource.get("instanceType") or "")])


def preset_of(workspace: Mapping[str, Any]) -> str:
    """Returns the name of the model; empty for a pod template."""
    given = section(workspace, "inference") or section(workspace, "tuning")
    return str(section(given, "preset").get("name") or "")


def nodes_per_copy(workspace: Mapping[str, Any], size: str) -> int:
    """Returns the nodes of one copy on an instance type; 0 if it cannot run the model."""
    return NODES_PER_COPY.get((preset_of(workspace), size), 1)


def copies_of(workspace: Mapping[str, Any]) -> int:
    """Returns the number of copies that a Workspace wants."""
    if "tuning" in workspace:
        return 1
    replicas = section(workspace, "spec").get("replicas")
    if replicas is not None:
        return int(replicas)
    return max(int(section(workspace, "resource").get("count") or 1), 1)


def nodes_on(workspace: Mapping[str, Any], size: str) -> int:
    """Returns the number of nodes that a Workspace needs on an instance type."""
    profile = str(section(workspace, "resource", "partition").get("profile") or "")
    shared = math.ceil(copies_of(workspace) / SLICES.get(profile, 1))
    return shared * max(nodes_per_copy(workspace, size), 1)


def usable_sizes(workspace: Mapping[str, Any]) -> list[str]:
    """Returns the instance types of a Workspace that can run its model."""
    return [size for size in sizes_of(workspace) if nodes_per_copy(workspace, size)]


def values_of(claim: Mapping[str, Any], label: str) -> Sequence[str]:
    """Returns the values that a requirement of a claim allows for a label."""
    requirements: list[Object] = list(section(claim, "spec").get("requirements") or [])
    found = next((each for each in requirements if each["key"] == label), Object())
    return list(found.get("values") or [])


def size_of(claim: Mapping[str, Any]) -> str:
    """Returns the instance type of a claim."""
    return next(iter(values_of(claim, INSTANCE_TYPE)), "")


def price_of(claim: Mapping[str, Any]) -> Decimal:
    """Returns the most that the node of a claim may cost per hour; 0 for an unknown instance type."""
    allowed = values_of(claim, CAPACITY_TYPE) or ["on-demand"]
    return max(PRICES.get((size_of(claim), each), Decimal(0)) for each in allowed)


def cheapest(workspace: Mapping[str, Any], size: str) -> Decimal:
    """Returns the lowest price per hour of all nodes of a Workspace on an instance type."""
    wanted = section(workspace, "resource").get("capacityType") or "on-demand"
    kind = "on-demand" if wanted == "on-demand" else "spot"
    return PRICES.get((size, kind), Decimal(0)) * nodes_on(workspace, size)
