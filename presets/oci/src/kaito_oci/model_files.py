"""Selects the files of a model that an engine loads, checks them and reads their facts.

Used by `model_artifact` and `hub`. A model has a config.json, a tokenizer and weights as safetensors. Copies of the
weights in other formats (`*.bin`, `*.gguf`, `original/`, `metal/`) are left out: they double the size and no engine of
Kaito loads them.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any, Final

from kaito_oci.errors import NotAModel
from kaito_oci.json_values import is_list, is_object

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
LOADED: Final = (
    CONFIG,
    "generation_config.json",
    "*_config.json",  # tokenizer, preprocessor, quantization
    "configuration*.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.tiktoken",
    "tekken.json",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
    "*.jinja",
    "*.py",  # the model's code, for trust_remote_code
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Patterns of file names in the root of the directory."""
MAX_HEADER_BYTES: Final = 100_000_000
"""Limit of the safetensors format for the header of a file."""
MAX_JSON_BYTES: Final = 64 * 2**20
_BITS: Final = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8}
_NAMES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3"}
_LICENSE: Final = re.compile(r"^license:\s*[\"']?([A-Za-z0-9.+_-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model directory."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What config.json and the headers of the weights contain."""

    architecture: str
    dtype: str
    """Number format of most of the weights."""
    quantization: str
    """Quantization method; empty for none."""
    parameters: int
    """Number of stored weights; packed weights of a quantized model count once for each stored number."""
    context: int
    """Maximum context length in tokens; 0 if config.json has none."""
    weights_bytes: int
    size: int
    """Bytes of all files."""


def wanted_names(names: Collection[str]) -> list[str]:
    """Returns the names that an engine loads, sorted.

    Raises:
        NotAModel: config.json or the weights are missing; the message names the remedy.
    """
    found = sorted(name for name in names if "/" not in name and any(fnmatchcase(name, each) for each in LOADED))
    weights = [name for name in found if name.endswith(".safetensors")]
    if CONFIG not in found:
        raise NotAModel(f"{CONFIG} is missing: expected the directory of a model in the format of transformers")
    if not weights:
        others = [name for name in names if name.endswith((".bin", ".pth", ".gguf", ".pt"))]
        remedy = f"; convert {others[0]} with transformers' save_pretrained" if others else ""
        raise NotAModel(f"the model has no weights as safetensors{remedy}")
    if any(name.startswith("model") for name in weights):
        # A second copy in the format of Mistral's own engine.
        found = [name for name in found if not fnmatchcase(name, "consolidated*.safetensors*")]
    return found


def model_files(directory: Path) -> list[ModelFile]:
    """Returns the files of a model directory that an engine loads; links are followed.

    Raises:
        NotAModel: the directory is not a model, or a file of it is missing, damaged or not readable.
    """
    if not directory.is_dir():
        raise NotAModel(f"{directory} is not a directory")
    names = wanted_names([path.name for path in directory.iterdir() if path.is_file()])
    if INDEX in names:
        shards = _shards(directory / INDEX)
        missing = sorted(shards - set(names))
        if missing:
            raise NotAModel(
                f"{directory}: {', '.join(missing[:5])} missing, named in {INDEX}; download the model again"
            )
        names = [name for name in names if name in shards or not name.endswith(".safetensors")]
    return [ModelFile(name, directory / name, (directory / name).stat().st_size) for name in names]


def model_facts(directory: Path, files: Collection[ModelFile]) -> ModelFacts:
    """Reads config.json and the headers of the weights.

    Raises:
        NotAModel: a file is damaged; the message names it.
    """
    config = read_json(directory / CONFIG)
    text = config.get("text_config")  # multi-modal models
    inner = text if is_object(text) else config
    architectures = config.get("architectures")
    quantization = config.get("quantization_config")
    bits: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for file in files:
        if file.name.endswith(".safetensors"):
            for dtype, count in _tensors(file):
                numbers[dtype] += count
                bits[dtype] += count * _BITS.get(dtype, 8)
    weights = sum(file.size for file in files if file.name.endswith(".safetensors"))
    dtype = bits.most_common(1)[0][0] if bits else ""
    return ModelFacts(
        architecture=str(architectures[0]) if is_list(architectures) and architectures else "",
        dtype=_NAMES.get(dtype, dtype.lower()),
        quantization=str(quantization.get("quant_method", "")) if is_object(quantization) else "",
        parameters=sum(numbers.values()),
        context=_whole(inner.get("max_position_embeddings")),
        weights_bytes=weights,
        size=sum(file.size for file in files),
    )


def model_card_license(directory: Path) -> str:
    """Returns the license that the front matter of README.md names; empty if there is none."""
    card = directory / "README.md"
    try:
        with card.open("rb") as file:
            head = file.read(64 * 1024).decode("utf-8", "replace")
    except OSError:
        return ""
    parts = head.split("---", 2)
    found = _LICENSE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1] if found else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _shards(index: Path) -> set[str]:
    weight_map = read_json(index).get("weight_map")
    if not is_object(weight_map) or not weight_map:
        raise NotAModel(f"{index} has no weight_map; download the model again")
    return {str(name) for name in weight_map.values()}


def _tensors(file: ModelFile) -> list[tuple[str, int]]:
    """Returns number format and number of elements of each tensor of a safetensors file."""
    try:
        with file.path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, file.size - 8):
                raise NotAModel(f"{file.path} is not a complete safetensors file; download it again")
            header: Any = json.loads(opened.read(length))
        tensors = _entries(header, file)
        end = max((_whole(entry["data_offsets"][1]) for entry in tensors), default=0)
        found = [(str(entry["dtype"]), prod(map(int, entry["shape"]))) for entry in tensors]
    except OSError as error:
        raise NotAModel(f"{file.path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotAModel(f"{file.path} is not a safetensors file: {error}; download it again") from error
    if 8 + length + end != file.size:
        raise NotAModel(
            f"{file.path} has {file.size} bytes, its header describes {8 + length + end}; download it again"
        )
    return found


def _entries(header: Any, file: ModelFile) -> list[Mapping[str, Any]]:
    if not is_object(header):
        raise NotAModel(f"{file.path} is not a safetensors file; download it again")
    return [entry for name, entry in header.items() if name != "__metadata__"]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a model.

    Raises:
        NotAModel: the file is missing, too large or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise NotAModel(f"{path} is larger than {MAX_JSON_BYTES} bytes")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise NotAModel(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotAModel(f"{path} is not JSON: {error}") from error
    if not is_object(document):
        raise NotAModel(f"{path} is not a JSON object")
    return document
