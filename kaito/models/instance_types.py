"""The table of GPU instance types: finds the GPUs of an instance type by its name, in any case.

Admission and sizing use the table. The gpu-provisioner reads the instance types that the cloud offers.
"""

import difflib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from kaito.models.errors import NoGpu, UnknownInstanceType
from kaito.models.gpu import GIB, Gpu, InstanceType, Vendor

Cloud = Literal["azure", "aws", "arc"]

FIELD: Final = "resource.instanceType"

_GPU_FAMILIES: Final[Mapping[Cloud, re.Pattern[str]]] = {
    "azure": re.compile(r"standard_n", re.IGNORECASE),
    "arc": re.compile(r"standard_n", re.IGNORECASE),
    "aws": re.compile(r"(p|g|gr|trn|inf|dl|vt)\d", re.IGNORECASE),
}
"""Prefix of the names of instance types with GPUs (Azure: N series; AWS: accelerated computing families)."""

_SIZES: Final[Mapping[Cloud, re.Pattern[str]]] = {
    "azure": re.compile(r"(standard|basic)_[a-z]+\d\S*", re.IGNORECASE),
    "arc": re.compile(r"standard_[a-z]+\d\S*", re.IGNORECASE),
    "aws": re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", re.IGNORECASE),
}
"""Form of the names of a cloud's instance types."""


class _GpuRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: str
    vendor: Vendor
    compute_capability: float | None = None


class _TypeRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: str
    gpu: str
    gpus: int
    memory_per_gpu: int
    nvme: bool = False
    legacy: bool = False
    aliases: list[str] = []


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    gpus: list[_GpuRow]
    instance_types: dict[Cloud, list[_TypeRow]]


@cache
def _tables() -> Mapping[Cloud, Mapping[str, InstanceType]]:
    text = resources.files("kaito.models").joinpath("data", "instance_types.yaml").read_text(encoding="utf-8")
    table = TypeAdapter(_Table).validate_python(yaml.safe_load(text))
    gpus = {row.name: Gpu(row.name, row.vendor, row.compute_capability) for row in table.gpus}
    return {
        cloud: MappingProxyType(
            {name.lower(): _instance_type(row, gpus[row.gpu]) for row in rows for name in _names(row)}
        )
        for cloud, rows in table.instance_types.items()
    }


def _names(row: _TypeRow) -> list[str]:
    """Returns the cloud's name, then aliases that other tables use."""
    return [row.name, *row.aliases]


def _instance_type(row: _TypeRow, gpu: Gpu) -> InstanceType:
    memory = row.memory_per_gpu * GIB
    return InstanceType(row.name, gpu, row.gpus, memory, nvme=row.nvme, legacy=row.legacy)


def instance_types(cloud: Cloud = "azure") -> tuple[InstanceType, ...]:
    """Returns every instance type of a cloud in the order of the table (current ones first)."""
    return tuple(dict.fromkeys(_tables()[cloud].values()))


def current(cloud: Cloud = "azure") -> list[InstanceType]:
    """Returns the instance types that can be recommended: current ones with NVIDIA GPUs, smallest GPU memory first."""
    offered = (i for i in instance_types(cloud) if not i.legacy and i.gpu.vendor == "nvidia")
    return sorted(offered, key=lambda i: (i.gpu_memory, i.gpus))


def find(name: str, cloud: Cloud = "azure") -> InstanceType | None:
    """Returns the instance type of a name or alias, in any case, or None."""
    return _tables()[cloud].get(name.strip().lower())


def get(name: str, cloud: Cloud = "azure") -> InstanceType:
    """Returns the instance type of a name or alias, in any case.

    Raises:
        NoGpu: the instance type has no GPU.
        UnknownInstanceType: the table does not contain it; the message contains similar names.
    """
    found = find(name, cloud)
    if found:
        return found
    if _SIZES[cloud].fullmatch(name) and not _GPU_FAMILIES[cloud].match(name):
        raise NoGpu(FIELD, f"{name!r} has no GPU: choose a GPU size, for example {_example(cloud)}")
    raise UnknownInstanceType(
        FIELD, f"{name!r} is not a known GPU instance type of {cloud}: {_did_you_mean(name, cloud)}"
    )


def cloud_name(name: str, cloud: Cloud = "azure") -> str:
    """Returns the cloud's name of an instance type, also for an alias; an unknown name is returned unchanged."""
    found = find(name, cloud)
    return found.name if found else name


def same_size(one: str, other: str) -> bool:
    """Whether two names are of the same instance type, regardless of case and aliases."""
    if one.strip().lower() == other.strip().lower():
        return True
    return any(find(one, cloud) is not None and find(one, cloud) == find(other, cloud) for cloud in _SIZES)


def has_gpu(name: str, cloud: Cloud = "azure") -> bool:
    """Whether an instance type has a GPU: by the table, else by the family in its name."""
    return find(name, cloud) is not None or bool(_GPU_FAMILIES[cloud].match(name))


def may_exist(name: str, cloud: Cloud = "azure") -> bool:
    """Whether the name has the form of the cloud's instance types, so that it may be one that the table lacks."""
    return bool(_SIZES[cloud].fullmatch(name))


def _example(cloud: Cloud) -> str:
    return next(i.name for i in instance_types(cloud) if not i.legacy and i.gpu.vendor == "nvidia")


def _did_you_mean(name: str, cloud: Cloud) -> str:
    table = _tables()[cloud]
    near = difflib.get_close_matches(name.lower(), table, n=3, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(table[key].name for key in near))}?"
    return f"choose one such as {_example(cloud)}"
