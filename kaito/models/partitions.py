"""Reduces the GPUs of existing nodes to the part of them that a Workspace uses (`resource.partition`).

Mode `accelerator` takes whole GPUs of a node. Mode `mig` takes one slice of a GPU with NVIDIA's Multi-Instance GPU,
which nodes advertise as the extended resource `nvidia.com/mig-<profile>` (strategy `mixed` of the device plugin).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from kaito.api.workspace import Partition
from kaito.models.errors import PlanError
from kaito.models.gpu import InstanceType

FIELD: Final = "resource.partition"

MIG_RESOURCE: Final = "nvidia.com/mig-"
"""Prefix of the extended resource of a MIG slice; the profile follows."""

_PROFILE: Final = re.compile(r"[1-7]g\.(?P<gigabytes>[1-9][0-9]{0,2})gb")
_MIB: Final = 2**20


class PartitionUnavailable(PlanError):
    """The nodes do not have the part of a GPU that the Workspace requests."""


def mig_resource(profile: str) -> str:
    """Returns the extended resource of a MIG profile, for example `nvidia.com/mig-1g.10gb`."""
    return f"{MIG_RESOURCE}{profile}"


def part_of(
    instance: InstanceType, partition: Partition, node_labels: Iterable[Mapping[str, str]] = ()
) -> InstanceType:
    """Returns what a Workspace with this partition uses of a node.

    Args:
        instance: all GPUs of a node.
        partition: the part.
        node_labels: labels of the nodes. With the strategy `mixed`, GPU feature discovery labels the memory of each MIG
            profile; without a label, the number of gigabytes in the name of the profile is taken.

    Raises:
        PartitionUnavailable: the nodes have fewer GPUs, or advertise parts of GPUs instead of whole ones.
    """
    if partition.mode == "mig":
        return _slice(instance, partition.profile or "", node_labels)
    count = partition.count or 1
    if instance.is_part:
        raise PartitionUnavailable(
            FIELD, f"requests whole GPUs, but {instance.name} is a part of a GPU: remove it; a pod uses one such part"
        )
    if count > instance.gpus:
        raise PartitionUnavailable(
            f"{FIELD}.count", f"is {count}, the nodes have {instance.gpus}: use at most {instance.gpus}"
        )
    return replace(instance, gpus=count)


def _slice(instance: InstanceType, profile: str, node_labels: Iterable[Mapping[str, str]]) -> InstanceType:
    found = _PROFILE.fullmatch(profile)
    if found is None:
        raise PartitionUnavailable(f"{FIELD}.profile", f"{profile!r} is not a MIG profile such as 1g.10gb")
    resource = mig_resource(profile)
    labeled = [int(text) for each in node_labels if (text := each.get(f"{resource}.memory", "")).isdecimal()]
    memory = min(labeled) * _MIB if labeled else int(found["gigabytes"]) * 10**9
    if memory > instance.memory_per_gpu:
        raise PartitionUnavailable(
            f"{FIELD}.profile", f"{profile!r} is larger than a GPU of the nodes ({instance}): choose a smaller profile"
        )
    return replace(
        instance,
        name=f"{instance.name} {profile}",
        gpus=1,
        memory_per_gpu=memory,
        is_part=True,
        resource=resource,
    )
