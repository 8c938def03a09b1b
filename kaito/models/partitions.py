"""Reduces the GPUs of nodes to the part of them that a Workspace uses (`resource.partition`).

Mode `accelerator` takes whole GPUs of an existing node. Mode `mig` takes one slice of a GPU with NVIDIA's
Multi-Instance GPU, which nodes advertise as the extended resource `nvidia.com/mig-<profile>` (strategy `mixed` of the
device plugin). The GPUs of a new node are all divided by the same profile, and each slice serves one copy of the model.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, final

from kaito.api.workspace import Partition
from kaito.models import instance_types
from kaito.models.errors import PlanError
from kaito.models.gpu import GIB, InstanceType

MigStrategy = Literal["single", "mixed"]
"""How the device plugin advertises slices: as `nvidia.com/gpu`, or each profile as a resource of its own."""

FIELD: Final = "resource.partition"
PROFILE_FIELD: Final = f"{FIELD}.profile"

MIG_RESOURCE: Final = "nvidia.com/mig-"
"""Prefix of the extended resource of a MIG slice; the profile follows."""

_PROFILE: Final = re.compile(r"[1-7]g\.(?P<gigabytes>[1-9][0-9]{0,2})gb")
_MIB: Final = 2**20


@final
@dataclass(frozen=True, slots=True)
class _Sizes:
    """The MIG profiles of a GPU that AKS divides it by."""

    gpu: str
    """Name of the GPU in the table of instance types."""
    memory_gib: int
    """Memory of the GPU in the table of instance types."""
    eighth_gib: float
    """Memory of one of the eight parts of the memory, as `nvidia-smi mig -lgip` prints it for the profile 1g."""
    profiles: tuple[str, str, str, str, str]
    """Names of the profiles with 1, 2, 3, 4 and 7 of the seven parts of the processors."""


_SIZES: Final = (
    _Sizes("NVIDIA A100", 40, 4.75, ("1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")),
    _Sizes("NVIDIA A100", 80, 9.5, ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")),
    _Sizes("NVIDIA H100", 80, 9.5, ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")),
    _Sizes("NVIDIA H100", 94, 10.75, ("1g.12gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb")),
    _Sizes("NVIDIA H200", 141, 16.0, ("1g.18gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb")),
)
"""NVIDIA's MIG user guide, supported profiles. Larger profiles have at least the memory of their eighths."""

_AKS_PROFILES: Final = (("MIG1g", 7, 1), ("MIG2g", 3, 2), ("MIG3g", 2, 4), ("MIG4g", 1, 4), ("MIG7g", 1, 8))
"""`gpuInstanceProfile` of AKS, the slices of a GPU that it creates, and the eighths of the memory of each."""

_CONFIDENTIAL: Final = "standard_ncc"
"""Prefix of the instance types with confidential GPUs, which cannot be divided."""


class PartitionUnavailable(PlanError):
    """The nodes do not have the part of a GPU that the Workspace requests."""


def mig_resource(profile: str) -> str:
    """Returns the extended resource of a MIG profile, for example `nvidia.com/mig-1g.10gb`."""
    return f"{MIG_RESOURCE}{profile}"


def divided(instance: InstanceType, partition: Partition, strategy: MigStrategy = "single") -> InstanceType:
    """Returns what one copy uses of a new node of Azure whose GPUs are divided.

    Args:
        instance: the instance type with whole GPUs.
        partition: the part, of mode `mig`.
        strategy: of the device plugin, which determines the extended resource of a slice.

    Raises:
        PartitionUnavailable: the GPUs cannot be divided, or do not have the profile.
    """
    profile = partition.profile or ""
    key = (instance.gpu.name, instance.memory_per_gpu // GIB)
    sizes = next((each for each in _SIZES if (each.gpu, each.memory_gib) == key), None)
    if sizes is None or instance.name.lower().startswith(_CONFIDENTIAL):
        message = f"is {profile!r}, but the GPUs of {instance.name} cannot be divided: remove {FIELD}"
        raise PartitionUnavailable(PROFILE_FIELD, f"{message}, or choose an instance type with A100, H100 or H200")
    if profile not in sizes.profiles:
        message = f"is {profile!r}, which the GPUs of {instance.name} do not have"
        raise PartitionUnavailable(PROFILE_FIELD, f"{message}: use one of {', '.join(sizes.profiles)}")
    name, slices, eighths = _AKS_PROFILES[sizes.profiles.index(profile)]
    return replace(
        instance,
        name=f"{instance.name} {profile}",
        gpus=1,
        memory_per_gpu=int(sizes.eighth_gib * eighths * GIB),
        is_part=True,
        resource=mig_resource(profile) if strategy == "mixed" else "",
        slices=slices * instance.gpus,
        profile=name,
    )


def slices_by_type(names: Iterable[str], partition: Partition | None) -> dict[str, int]:
    """Returns the slices of a new node of Azure by its instance type, for those types that have the profile.

    Args:
        names: instance types.
        partition: the part; without the mode `mig`, no type has slices.
    """
    found: dict[str, int] = {}
    if partition is None or partition.mode != "mig":
        return found
    for name in names:
        with suppress(PlanError):
            found[name] = divided(instance_types.get(name), partition).slices
    return found


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
        raise PartitionUnavailable(PROFILE_FIELD, f"{profile!r} is not a MIG profile such as 1g.10gb")
    resource = mig_resource(profile)
    labeled = [int(text) for each in node_labels if (text := each.get(f"{resource}.memory", "")).isdecimal()]
    memory = min(labeled) * _MIB if labeled else int(found["gigabytes"]) * 10**9
    if memory > instance.memory_per_gpu:
        raise PartitionUnavailable(
            PROFILE_FIELD, f"{profile!r} is larger than a GPU of the nodes ({instance}): choose a smaller profile"
        )
    return replace(
        instance,
        name=f"{instance.name} {profile}",
        gpus=1,
        memory_per_gpu=memory,
        is_part=True,
        resource=resource,
    )
