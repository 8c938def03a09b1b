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
    compute_capability: float = 0.0


class _TypeRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    gpu: str
    gpus: int
    memory_per_gpu: int
    nvme: bool = False
    legacy: bool = False


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
        cloud: MappingProxyType(
            {
                row.name.lower(): InstanceType(
                    row.name, gpus[row.gpu], row.gpus, row.memory_per_gpu * GIB, nvme=row.nvme, legacy=row.legacy
                )
                for row in rows
            }
        )
        for cloud, rows in table.instance_types.items()
    }


def instance_types(cloud: Cloud = "azure") -> tuple[InstanceType, ...]:
    """Every instance type of a cloud that the table knows, in the table's order (current ones first)."""
    return tuple(_tables()[cloud].values())


def gpu_named(name: str) -> Gpu | None:
    """The GPU of that name, or of the product name that GPU feature discovery writes (`NVIDIA-A100-SXM4-80GB`).

    None when the table has no such GPU; callers then go by the node's other labels.
    """
    words = re.split(r"[-_ ]+", name.lower())
    known = {i.gpu for types in _tables().values() for i in types.values()}
    fitting = [gpu for gpu in known if set(gpu.name.lower().split()) <= set(words)]
    return max(fitting, key=lambda gpu: len(gpu.name), default=None)


def find(name: str, cloud: Cloud = "azure") -> InstanceType | None:
    """The instance type of that name in any case, or None."""
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


def may_exist(name: str, cloud: Cloud = "azure") -> bool:
    """Whether the name has the form of a GPU size, also one that the table does not know (newer than this release)."""
    return bool(_SIZES[cloud].fullmatch(name) and _GPU_FAMILIES[cloud].match(name))


def _example(cloud: Cloud) -> str:
    return next(i.name for i in instance_types(cloud) if not i.legacy and i.gpu.vendor == "nvidia")


def _did_you_mean(name: str, cloud: Cloud) -> str:
    table = _tables()[cloud]
    near = difflib.get_close_matches(name.lower(), table, n=3, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(table[key].name for key in near)}?"
    return f"choose one such as {_example(cloud)}"
