"""Selects the files that the engine loads, from the names and sizes of a repository's files.

vLLM loads the safetensors files in the root of the repository: those that the index names, or all of them without an
index. Copies in other folders (`original/`, `metal/`), other formats and Mistral's own format beside that of
transformers are not loaded and do not count.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, final

from kaito.api.json_values import json_list, json_object
from kaito.models.facts.errors import NoSafetensors, NotAModel

CONFIG: Final = "config.json"
MISTRAL_CONFIG: Final = "params.json"
INDEX: Final = "model.safetensors.index.json"
MISTRAL_INDEX: Final = "consolidated.safetensors.index.json"
QUANTIZATION: Final = "hf_quant_config.json"

_SUFFIX: Final = ".safetensors"
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
_OTHER_FORMATS: Final = {
    ".gguf": "GGUF",
    ".bin": "PyTorch (.bin)",
    ".pth": "PyTorch (.pth)",
    ".pt": "PyTorch (.pt)",
    ".onnx": "ONNX",
    ".h5": "Keras",
    ".msgpack": "Flax",
    ".nemo": "NeMo",
}


@final
@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Files of weights that the engine loads."""

    names: tuple[str, ...]
    size: int
    """Bytes of all of them."""
    is_mistral_format: bool = False
    """Whether only Mistral's own format exists (`params.json` and `consolidated*.safetensors`)."""


def index_of(names: Collection[str]) -> str:
    """Returns the name of the index that decides which files are loaded; empty for none."""
    if CONFIG in names:
        return INDEX if INDEX in names else ""
    return MISTRAL_INDEX if MISTRAL_INDEX in names else ""


def indexed_files(content: bytes, name: str) -> list[str]:
    """Returns the names of the files in an index.

    Args:
        content: of the index.
        name: of the index, for the message.

    Raises:
        NotAModel: it is not JSON.
    """
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotAModel(f"has a {name} that is not JSON") from error
    return sorted({str(file) for file in json_object(json_object(document).get("weight_map")).values()})


def select_weights(sizes: Mapping[str, int], indexed: Collection[str] = ()) -> WeightFiles:
    """Returns the files that the engine loads.

    Args:
        sizes: bytes by path of every file of the repository.
        indexed: the files that the index names; empty without an index.

    Raises:
        NotAModel: the repository is not a model in a format that the engine reads, or a file is missing.
        NoSafetensors: it is, without safetensors.
    """
    _check_kind(sizes)
    is_mistral = CONFIG not in sizes
    found = sorted(name for name in sizes if "/" not in name and name.endswith(_SUFFIX))
    consolidated = [name for name in found if name.startswith("consolidated")]
    plain = [name for name in found if name not in consolidated and not name.startswith("adapter_")]
    names = consolidated if is_mistral or not plain else plain
    if indexed:
        missing = sorted(set(indexed) - set(sizes))
        if missing:
            raise NotAModel(f"has an index that names {missing[0]}, which the repository does not contain")
        names = [name for name in names if name in set(indexed)] or sorted(set(indexed))
    if not names:
        raise NoSafetensors(_without_safetensors(sizes))
    _check_shards(names)
    empty = [name for name in names if sizes[name] <= 0]
    if empty:
        raise NotAModel(f"has {empty[0]} without a size")
    return WeightFiles(tuple(names), sum(sizes[name] for name in names), is_mistral)


def _check_kind(sizes: Mapping[str, int]) -> None:
    if CONFIG in sizes:
        return
    if "adapter_config.json" in sizes:
        raise NotAModel("is an adapter: name its base model here, and the adapter in inference.adapters")
    if "model_index.json" in sizes:
        raise NotAModel("is a pipeline of diffusers, which generates no text: use inference.template")
    if MISTRAL_CONFIG in sizes and any(name.startswith("consolidated") for name in sizes):
        return
    if any(name.endswith(".gguf") for name in sizes):
        raise NoSafetensors(_without_safetensors(sizes))
    raise NotAModel(f"has no {CONFIG}: choose a repository in the format of transformers")


def _check_shards(names: Collection[str]) -> None:
    """Checks that no part of a divided model is missing."""
    totals: dict[str, set[int]] = {}
    expected: dict[str, int] = {}
    for name in names:
        found = _SHARD.fullmatch(name)
        if found:
            totals.setdefault(found["stem"], set()).add(int(found["number"]))
            expected[found["stem"]] = int(found["total"])
    for stem, numbers in totals.items():
        if len(numbers) < expected[stem]:
            raise NotAModel(f"has {len(numbers)} of {expected[stem]} files {stem}-*.safetensors")


def _without_safetensors(sizes: Mapping[str, int]) -> str:
    formats = sorted({text for name in sizes for suffix, text in _OTHER_FORMATS.items() if name.endswith(suffix)})
    known = f" but {' and '.join(formats)}" if formats else ""
    return (
        f"has no safetensors files{known}: choose a repository with safetensors, or convert it with transformers' "
        "save_pretrained"
    )


def count_tensors(header: Mapping[str, Any]) -> Counter[str]:
    """Returns the numbers by format in the header of a safetensors file; entries of another form are left out."""
    counts: Counter[str] = Counter()
    for name, entry in header.items():
        shape = json_list(json_object(entry).get("shape"))
        if name != "__metadata__" and all(isinstance(each, int) and each >= 0 for each in shape):
            counts[str(json_object(entry).get("dtype", ""))] += prod(shape)
    return counts
