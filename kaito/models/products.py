"""Finds a GPU by its product name, as GPU feature discovery writes it into a node label."""

import re
from functools import cache
from importlib import resources
from typing import Final

import yaml
from pydantic import TypeAdapter

from kaito.models.gpu import Gpu
from kaito.models.instance_types import Cloud, instance_types

_BRANDS: Final = frozenset({"nvidia", "tesla", "geforce", "grid"})
"""Words of vendor and product line, which drivers do not always include."""

_CLOUDS: Final[tuple[Cloud, ...]] = ("azure", "aws", "arc")


def gpu_named(product: str) -> Gpu | None:
    """Returns the GPU of a product name such as `NVIDIA-A100-SXM4-80GB`.

    A GPU of the instance type table has the name of that table, which sizing uses. Returns None if no table contains
    the GPU; callers then use the node's other labels.
    """
    words = _words(product)
    fitting = [known for known in _known() if known <= words]
    best = max(fitting, key=len, default=None)
    return None if best is None else _known()[best]


def _words(product: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", product.lower())) - _BRANDS - {""}


@cache
def _known() -> dict[frozenset[str], Gpu]:
    """Returns GPUs by the words of their names; those of the instance types replace those of NVIDIA's lists."""
    text = resources.files("kaito.models").joinpath("data", "nvidia_gpus.yaml").read_text(encoding="utf-8")
    table = TypeAdapter(dict[float, list[str]]).validate_python(yaml.safe_load(text))
    products = {
        _words(name): Gpu(f"NVIDIA {name}", "nvidia", capability)
        for capability, names in table.items()
        for name in names
    }
    offered = {_words(i.gpu.name): i.gpu for cloud in _CLOUDS for i in instance_types(cloud)}
    return products | offered
