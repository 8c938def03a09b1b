"""Upper bounds of CPU and memory of a node, from the name of its instance type.

The preflight checks use them for pod templates: a request above the bound can never be scheduled on that instance type.
A bound is never lower than what the cloud offers, so that no pod that could run is rejected.
"""

import re
from typing import Final

from kaito.models.gpu import GIB
from kaito.models.instance_types import Cloud, cloud_name

_AZURE: Final = re.compile(r"standard_(?P<family>[a-z]+?)(?P<cpus>\d+)(-(?P<active>\d+))?(?![\d-])", re.IGNORECASE)
"""Azure's naming convention: family, number of vCPUs, and after a dash the active vCPUs of a constrained size."""

_AWS: Final = re.compile(r"[a-z][a-z0-9-]*\.(?P<times>\d*)xlarge", re.IGNORECASE)

AWS_CPUS_PER_XLARGE: Final = 4
"""vCPUs of an `xlarge`; an `8xlarge` has eight times as many (AWS, "Amazon EC2 instance type naming conventions")."""

GPU_SIZE_GIB_PER_CPU: Final = 24
"""Upper bound of the memory of Azure's N series in GiB per vCPU. The largest is 20 (ND96amsr A100 v4: 1,924 for 96)."""


def max_cpus(name: str, cloud: Cloud) -> int | None:
    """Returns the vCPUs of a node; None if the name does not contain their number."""
    name = cloud_name(name, cloud)
    if cloud == "aws":
        found = _AWS.fullmatch(name)
        return AWS_CPUS_PER_XLARGE * int(found["times"] or 1) if found else None
    found = _AZURE.match(name)
    return int(found["active"] or found["cpus"]) if found else None


def max_memory_bytes(name: str, cloud: Cloud) -> int | None:
    """Returns an upper bound of a node's memory in bytes; None if there is none for the instance type."""
    if cloud == "aws":
        return None
    found = _AZURE.match(cloud_name(name, cloud))
    if found is None or not found["family"].lower().startswith("n"):
        return None
    return int(found["cpus"]) * GPU_SIZE_GIB_PER_CPU * GIB
