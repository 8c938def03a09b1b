"""The table of GPU instance types, and the answer to "what is in a Standard_NC6s_v3".

The table answers at admission and for sizing; what the cloud really sells is the gpu-provisioner's question, put to
the cloud. Names are looked up without regard to case and answered in the cloud's spelling.
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
"""Sizes with an accelerator begin so (Azure: only the N series has GPUs; AWS: the accelerated computing families)."""

_SIZES: Final[Mapping[Cloud, re.Pattern[str]]] = {
    "azure": re.compile(r"(standard|basic)_[a-z]+\d\S*", re.IGNORECASE),
    "arc": re.compile(r"standard_[a-z]+\d\S*", re.IGNORECASE),
    "aws": re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", re.IGNORECASE),
}
"""What a name of that cloud looks like at all."""


class _GpuRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    vendor: Vendor
    compute_capability: float | None = None


class _TypeRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    gpu: str
    gpus: int
    memory_per_gpu: int
    nvme: bool = False
    legacy: bool = False
    aliases: list[str] = []


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gpus: list[_GpuRow]
    instance_types: dict[Cloud, list[_TypeRow]]


@cache
def _tables() -> Mapping[Cloud, Mapping[str, InstanceType]]:
    text = resources.files("kaito.models").joinpath("data", "instance_types.yaml").read_text(encoding="utf-8")
    table = TypeAdapter(_Table).validate_python(yaml.safe_load(text))
    gpus = {row.name: Gpu(row.name, row.vendor, row.compute_capability) for row in table.gpus}
    return {
        cloud: MappingProxyType({name.lower(): _made(row, gpus[row.gpu]) for row in rows for name in _names(row)})
        for cloud, rows in table.instance_types.items()
    }


def _names(row: _TypeRow) -> list[str]:
    """The cloud's name first, then names that users may have from other tables."""
    return [row.name, *row.aliases]


def _made(row: _TypeRow, gpu: Gpu) -> InstanceType:
    memory = row.memory_per_gpu * GIB
    return InstanceType(row.name, gpu, row.gpus, memory, nvme=row.nvme, legacy=row.legacy)


def instance_types(cloud: Cloud = "azure") -> tuple[InstanceType, ...]:
    """Every instance type of a cloud that the table knows, in the table's order (current ones first)."""
    return tuple(dict.fromkeys(_tables()[cloud].values()))


def current(cloud: Cloud = "azure") -> list[InstanceType]:
    """The instance types that may be recommended, smallest GPU memory first: current ones with NVIDIA GPUs."""
    offered = (i for i in instance_types(cloud) if not i.legacy and i.gpu.vendor == "nvidia")
    return sorted(offered, key=lambda i: (i.gpu_memory, i.gpus))


def find(name: str, cloud: Cloud = "azure") -> InstanceType | None:
    """The instance type of that name or alias in any case, or None; its `name` is what the cloud calls it."""
    return _tables()[cloud].get(name.strip().lower())


def get(name: str, cloud: Cloud = "azure") -> InstanceType:
    """The instance type of that name in any case.

    Raises:
        NoGpu: the name is that of a size without a GPU.
        UnknownInstanceType: the table does not know it; the message has the nearest names.
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
    """What the cloud calls the size: for aliases and other spellings of a size of the table its name, else as given."""
    found = find(name, cloud)
    return found.name if found else name


def same_size(one: str, other: str) -> bool:
    """Whether two names are those of one size: letter case and aliases do not matter."""
    if one.strip().lower() == other.strip().lower():
        return True
    return any(find(one, cloud) is not None and find(one, cloud) == find(other, cloud) for cloud in _SIZES)


def has_gpu(name: str, cloud: Cloud = "azure") -> bool:
    """Whether a size of that name has a GPU: by the table, and by the family's name for sizes that it lacks."""
    return find(name, cloud) is not None or bool(_GPU_FAMILIES[cloud].match(name))


def may_exist(name: str, cloud: Cloud = "azure") -> bool:
    """Whether the name has the form of a size of that cloud: one without a GPU, or newer than this table."""
    return bool(_SIZES[cloud].fullmatch(name))


def _example(cloud: Cloud) -> str:
    return next(i.name for i in instance_types(cloud) if not i.legacy and i.gpu.vendor == "nvidia")


def _did_you_mean(name: str, cloud: Cloud) -> str:
    table = _tables()[cloud]
    near = difflib.get_close_matches(name.lower(), table, n=3, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(table[key].name for key in near))}?"
    return f"choose one such as {_example(cloud)}"
