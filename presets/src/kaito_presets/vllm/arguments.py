"""Computes the command line of vLLM from flags, model, hardware and adapters.

Used by `main`. Sources of the rules: the wrapper and the workspace controller of upstream Kaito v0.12, and vLLM's
engine arguments. Guarantees that a flag of the user or the operator is never overridden (except that a GPU without
bfloat16 gets float16), and that equal inputs give equal command lines.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_presets.environment import check_readable
from kaito_presets.errors import AdapterError, ConfigurationError
from kaito_presets.json_values import is_list
from kaito_presets.serving.adapters import Adapter
from kaito_presets.vllm.hardware import Gpu

GIB: Final = 2**30
RESERVED_RANK: Final = 64
"""Rank for which memory is reserved if adapters change while the engine runs; `max-lora-rank` overrides it."""
RESERVED_ADAPTERS: Final = 4
"""Adapters for which GPU memory is reserved then; `max-loras` overrides it."""
MAX_ADAPTERS: Final = 20
"""Adapters and former versions in the memory of the pod; a Workspace has at most ten adapters."""
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for --max-lora-rank. With its default of 16, it rejects larger adapters."""
RESERVED_BYTES: Final = 600 * 2**20
"""GPU memory left to other processes (upstream's wrapper)."""
MAX_UTILIZATION: Final = 0.95
FALLBACK_UTILIZATION: Final = 0.84
"""Memory utilization when nothing can be measured (upstream's operator)."""
FIRST_BFLOAT16_CAPABILITY: Final = (8, 0)
"""Compute capability of NVIDIA Ampere; older GPUs do not support bfloat16."""
ACTIVATION_BYTES: Final = int(2.3 * GIB)
"""Activations, CUDA graphs and memory outside torch (upstream's node estimator)."""
WEIGHT_FACTOR: Final = 1.02
"""Memory of the loaded weights relative to their files (upstream's node estimator)."""
MIN_CONTEXT_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class ModelProperties:
    """Properties of a model directory; 0 or empty if unknown."""

    weight_bytes: int = 0
    context_tokens: int = 0
    cache_bytes_per_token: int = 0
    attention_heads: int = 0
    dtype: str = ""


def read_model(source: str) -> ModelProperties:
    """Reads the properties of a model directory.

    They are unknown for a Hugging Face id, whose files vLLM downloads later.

    Raises:
        ConfigurationError: `config.json` is not JSON.
        ModelLoadError: a file cannot be read.
    """
    folder = Path(source)
    check_readable(folder)
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return ModelProperties()
    except ValueError as error:
        raise ConfigurationError(f"{folder}/config.json: {error}") from error
    config: dict[str, Any] = document.get("text_config") or document
    heads = int(config.get("num_attention_heads") or 0)
    hidden = int(config.get("hidden_size") or 0)
    head_size = int(config.get("head_dim") or (hidden // heads if heads else 0))
    cache_heads = int(config.get("num_key_value_heads") or heads)
    return ModelProperties(
        weight_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        context_tokens=int(config.get("max_position_embeddings") or 0),
        cache_bytes_per_token=2 * cache_heads * head_size * int(config.get("num_hidden_layers") or 0) * 2,
        attention_heads=heads,
        dtype=str(config.get("torch_dtype") or config.get("dtype") or ""),
    )


def engine_flags(
    given: Mapping[str, Any],
    *,
    model: ModelProperties,
    gpus: Sequence[Gpu],
    nodes: int,
    adapters: Sequence[Adapter],
    adapter_paths: Mapping[str, Path],
    adapters_change: bool = False,
) -> dict[str, Any]:
    """Computes all flags of the engine; `given` flags take precedence over computed ones.

    Raises:
        ConfigurationError: the model does not fit the GPUs.
        AdapterError: the rank of an adapter exceeds vLLM's limit.
    """
    flags: dict[str, Any] = {"uvicorn-log-level": "error"}
    flags |= _parallelism(model, gpus, nodes)
    if gpus:
        flags["gpu-memory-utilization"] = _utilization(gpus)
        if gpus[0].capability < FIRST_BFLOAT16_CAPABILITY and given.get("dtype", "auto") in ("auto", "bfloat16"):
            given = {**given, "dtype": "float16"}  # the GPU does not support bfloat16
    if "lora-modules" not in given and (adapters or adapters_change):
        flags |= _lora(adapters, adapter_paths, change=adapters_change)
    flags |= given
    if "max-model-len" not in flags and (length := estimate_context(model, gpus, flags)):
        flags["max-model-len"] = length
    return flags


def _parallelism(model: ModelProperties, gpus: Sequence[Gpu], nodes: int) -> dict[str, Any]:
    """Selects replicas for a small model, tensor parallelism for a large one, pipeline stages over nodes."""
    count = len(gpus)
    if count <= 1 and nodes == 1:
        return {}
    total = sum(gpu.total_bytes for gpu in gpus)
    if nodes == 1 and model.weight_bytes and model.weight_bytes * count * 2 < total:
        return {"data-parallel-size": count, "tensor-parallel-size": 1}
    width = max(1, count)
    if model.attention_heads:
        # vLLM requires that the tensor parallel size divides the number of attention heads.
        width = max(size for size in range(1, width + 1) if model.attention_heads % size == 0)
    flags: dict[str, Any] = {"tensor-parallel-size": width}
    if nodes > 1:
        flags["pipeline-parallel-size"] = nodes
    return flags


def _utilization(gpus: Sequence[Gpu]) -> float:
    share = min((gpu.free_bytes - RESERVED_BYTES) / gpu.total_bytes for gpu in gpus)
    if share <= 0:
        return FALLBACK_UTILIZATION
    return min(MAX_UTILIZATION, math.floor(share * 100) / 100)


def _lora(adapters: Sequence[Adapter], paths: Mapping[str, Path], *, change: bool) -> dict[str, Any]:
    """Computes the flags for adapters; if they change while the engine runs, memory for further ones is reserved."""
    ranks = {adapter.rank: adapter.name for adapter in adapters}
    widest = max(ranks, default=0)
    rank = next((rank for rank in LORA_RANKS if rank >= max(widest, RESERVED_RANK if change else 0)), None)
    if rank is None:
        raise AdapterError(ranks[widest], f"rank {widest} exceeds vLLM's limit of {LORA_RANKS[-1]}")
    flags: dict[str, Any] = {"enable-lora": True, "max-lora-rank": rank}
    if change:
        flags["max-loras"] = max(len(adapters), RESERVED_ADAPTERS)
        # vLLM keeps further adapters in the memory of the pod, and swaps them when requests need them.
        flags["max-cpu-loras"] = max(len(adapters), MAX_ADAPTERS)
    else:
        flags["max-loras"] = len(adapters)
    if adapters:
        flags["lora-modules"] = [f"{adapter.name}={paths[adapter.name]}" for adapter in adapters]
    return flags


def estimate_context(model: ModelProperties, gpus: Sequence[Gpu], flags: Mapping[str, Any]) -> int | None:
    """Estimates the context length that fits into the GPUs.

    Returns None, so that vLLM decides, if the model is unknown, there is no GPU, or the whole context fits.

    Raises:
        ConfigurationError: the memory left by the weights is not enough for the shortest context.
    """
    if not (model.context_tokens and model.cache_bytes_per_token and gpus):
        return None
    shards = int(flags.get("tensor-parallel-size", 1)) * int(flags.get("pipeline-parallel-size", 1))
    memory = min(gpu.total_bytes for gpu in gpus) * float(flags.get("gpu-memory-utilization", FALLBACK_UTILIZATION))
    free = memory - ACTIVATION_BYTES - WEIGHT_FACTOR * model.weight_bytes / shards
    tokens = int(free * shards / model.cache_bytes_per_token)
    if tokens >= model.context_tokens:
        return None
    if tokens < MIN_CONTEXT_TOKENS:
        raise ConfigurationError(
            f"the model's weights ({model.weight_bytes / GIB:.1f} GiB) leave no memory for a context on "
            f"{len(gpus)} x {gpus[0].name} ({gpus[0].total_bytes / GIB:.0f} GiB)"
        )
    return tokens // 16 * 16  # vLLM allocates its cache in blocks of 16 tokens


def command_line(flags: Mapping[str, Any]) -> list[str]:
    """Formats flags as command-line arguments, sorted by name; booleans become `--flag` and `--no-flag`."""
    words: list[str] = []
    for name in sorted(flags):
        value = flags[name]
        if value is True or value == "":
            words.append(f"--{name}")
        elif value is False:
            words.append(f"--no-{name}")
        elif is_list(value):
            words += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            words.append(f"--{name}={json.dumps(value, sort_keys=True)}")
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def smaller_context(output: str, tried: int, low: int) -> int | None:
    """Selects the next context length after a start that failed for lack of cache memory; None for another cause.

    vLLM's error message contains the length that fits ("the estimated maximum model length is N"). Without it, the
    middle between a fitting and the failed length is used, which is a binary search as in upstream's wrapper.

    Args:
        output: output of the failed start.
        tried: context length of the failed start.
        low: a length that fits, or 0.
    """
    if "KV cache" not in output and "CUDA out of memory" not in output:
        return None
    estimates = [int(number.rstrip(".")) for number in _numbers_after(output, "estimated maximum model length is")]
    candidate = estimates[-1] if estimates else (low + tried) // 2
    candidate = min(candidate, tried - 16) // 16 * 16
    return candidate if candidate >= MIN_CONTEXT_TOKENS else None


def _numbers_after(text: str, phrase: str) -> list[str]:
    found: list[str] = []
    for part in text.split(phrase)[1:]:
        word = part.strip().split(maxsplit=1)[0].rstrip(".,")
        if word.isdigit():
            found.append(word)
    return found


def scaled_adapters(adapters: Sequence[Adapter], scratch: Path) -> dict[str, Path]:
    """Applies the strengths of adapters; returns the directory of each adapter.

    vLLM has no strength, but scales an adapter by `lora_alpha`. For a strength other than 1, a directory below
    `scratch` contains a configuration with a scaled `lora_alpha`, and links to the other files.
    """
    paths: dict[str, Path] = {}
    for adapter in adapters:
        paths[adapter.name] = adapter.path
        if adapter.strength == 1.0:
            continue
        folder = scratch / adapter.name
        folder.mkdir(parents=True)
        for file in adapter.path.iterdir():
            if file.name == "adapter_config.json":
                config = json.loads(file.read_text(encoding="utf-8"))
                config["lora_alpha"] = float(config.get("lora_alpha", config["r"])) * adapter.strength
                (folder / file.name).write_text(json.dumps(config), encoding="utf-8")
            else:
                (folder / file.name).symlink_to(file)
        paths[adapter.name] = folder
    return paths
