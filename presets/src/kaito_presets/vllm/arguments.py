"""vLLM's command line as a pure function of flags, model, hardware and adapters.

Called by `main`. Sources of the rules: upstream Kaito v0.12's wrapper and workspace controller, vLLM's
engine arguments. What the user or the operator has set is never overridden; flags come out sorted, so equal
inputs give equal commands.
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
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values vLLM accepts for --max-lora-rank; its default of 16 refuses larger adapters."""
RESERVED_BYTES: Final = 600 * 2**20
"""Left to other users of the GPU (upstream's wrapper)."""
MOST_UTILIZATION: Final = 0.95
FALLBACK_UTILIZATION: Final = 0.84
"""What upstream's operator passes when nothing can be measured."""
FIRST_BFLOAT16_CAPABILITY: Final = (8, 0)
ACTIVATION_BYTES: Final = int(2.3 * GIB)
"""Activations, CUDA graphs and what is not torch (upstream's node estimator)."""
WEIGHT_FACTOR: Final = 1.02
SMALLEST_CONTEXT: Final = 128


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model directory tells; zeros where it does not."""

    weight_bytes: int = 0
    context_tokens: int = 0
    cache_bytes_per_token: int = 0
    attention_heads: int = 0
    dtype: str = ""


def read_model(source: str) -> ModelFacts:
    """Facts from a local directory; unknown for a Hugging Face id (vLLM downloads it itself)."""
    folder = Path(source)
    check_readable(folder)
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return ModelFacts()
    except ValueError as error:
        raise ConfigurationError(f"{folder}/config.json: {error}") from error
    config: dict[str, Any] = document.get("text_config") or document
    heads = int(config.get("num_attention_heads") or 0)
    hidden = int(config.get("hidden_size") or 0)
    head_size = int(config.get("head_dim") or (hidden // heads if heads else 0))
    cache_heads = int(config.get("num_key_value_heads") or heads)
    return ModelFacts(
        weight_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        context_tokens=int(config.get("max_position_embeddings") or 0),
        cache_bytes_per_token=2 * cache_heads * head_size * int(config.get("num_hidden_layers") or 0) * 2,
        attention_heads=heads,
        dtype=str(config.get("torch_dtype") or config.get("dtype") or ""),
    )


def engine_flags(
    given: Mapping[str, Any],
    *,
    model: ModelFacts,
    gpus: Sequence[Gpu],
    nodes: int,
    adapters: Sequence[Adapter],
    adapter_paths: Mapping[str, Path],
) -> dict[str, Any]:
    """All flags of the engine: ours below what was given.

    Raises:
        ConfigurationError: a flag of ours contradicts the hardware.
        AdapterError: an adapter's rank is beyond what vLLM takes.
    """
    flags: dict[str, Any] = {"uvicorn-log-level": "error"}
    flags |= _parallelism(model, gpus, nodes)
    if gpus:
        flags["gpu-memory-utilization"] = _utilization(gpus)
        if gpus[0].capability < FIRST_BFLOAT16_CAPABILITY and given.get("dtype", "auto") in ("auto", "bfloat16"):
            given = {**given, "dtype": "float16"}  # this GPU has no bfloat16
    if "lora-modules" not in given and adapters:
        flags |= _lora(adapters, adapter_paths)
    flags |= given
    if "max-model-len" not in flags and (length := estimate_context(model, gpus, flags)):
        flags["max-model-len"] = length
    return flags


def _parallelism(model: ModelFacts, gpus: Sequence[Gpu], nodes: int) -> dict[str, Any]:
    """Replicas for a small model, shards for a large one, stages over nodes."""
    count = len(gpus)
    if count <= 1 and nodes == 1:
        return {}
    total = sum(gpu.total_bytes for gpu in gpus)
    if nodes == 1 and model.weight_bytes and model.weight_bytes * count * 2 < total:
        return {"data-parallel-size": count, "tensor-parallel-size": 1}
    width = max(1, count)
    if model.attention_heads:
        # Heads are dealt out evenly or not at all.
        width = max(size for size in range(1, width + 1) if model.attention_heads % size == 0)
    flags: dict[str, Any] = {"tensor-parallel-size": width}
    if nodes > 1:
        flags |= {"pipeline-parallel-size": nodes, "distributed-executor-backend": "ray"}
    return flags


def _utilization(gpus: Sequence[Gpu]) -> float:
    share = min((gpu.free_bytes - RESERVED_BYTES) / gpu.total_bytes for gpu in gpus)
    if share <= 0:
        return FALLBACK_UTILIZATION
    return min(MOST_UTILIZATION, math.floor(share * 100) / 100)


def _lora(adapters: Sequence[Adapter], paths: Mapping[str, Path]) -> dict[str, Any]:
    widest = max(adapters, key=lambda adapter: adapter.rank)
    rank = next((rank for rank in LORA_RANKS if rank >= widest.rank), None)
    if rank is None:
        raise AdapterError(widest.name, f"rank {widest.rank} is beyond vLLM's limit of {LORA_RANKS[-1]}")
    return {
        "enable-lora": True,
        "max-lora-rank": rank,
        "max-loras": len(adapters),
        "lora-modules": [f"{adapter.name}={paths[adapter.name]}" for adapter in adapters],
    }


def estimate_context(model: ModelFacts, gpus: Sequence[Gpu], flags: Mapping[str, Any]) -> int | None:
    """A context that fits, or None to leave it to vLLM (unknown model, no GPU, or the whole context fits)."""
    if not (model.context_tokens and model.cache_bytes_per_token and gpus):
        return None
    shards = int(flags.get("tensor-parallel-size", 1)) * int(flags.get("pipeline-parallel-size", 1))
    memory = min(gpu.total_bytes for gpu in gpus) * float(flags.get("gpu-memory-utilization", FALLBACK_UTILIZATION))
    free = memory - ACTIVATION_BYTES - WEIGHT_FACTOR * model.weight_bytes / shards
    tokens = int(free * shards / model.cache_bytes_per_token)
    if tokens >= model.context_tokens:
        return None
    if tokens < SMALLEST_CONTEXT:
        raise ConfigurationError(
            f"the model's weights ({model.weight_bytes / GIB:.1f} GiB) leave no room for a context on "
            f"{len(gpus)} x {gpus[0].name} ({gpus[0].total_bytes / GIB:.0f} GiB)"
        )
    return tokens // 16 * 16  # whole blocks of the cache


def command_line(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words, sorted. YAML's booleans become `--flag` and `--no-flag`, which is what vLLM's parser
    understands."""
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
    """The next context to try after a start that failed for want of cache memory; None if that was not the
    reason.

    vLLM names the length it could hold ("the estimated maximum model length is N"); without that number the
    middle between what is known to fit and what does not is tried (a bounded binary search, as upstream did
    by probing).
    """
    if "KV cache" not in output and "CUDA out of memory" not in output:
        return None
    named = [int(number.rstrip(".")) for number in _numbers_after(output, "estimated maximum model length is")]
    candidate = named[-1] if named else (low + tried) // 2
    candidate = min(candidate, tried - 16) // 16 * 16
    return candidate if candidate >= SMALLEST_CONTEXT else None


def _numbers_after(text: str, phrase: str) -> list[str]:
    found: list[str] = []
    for part in text.split(phrase)[1:]:
        word = part.strip().split(maxsplit=1)[0].rstrip(".,")
        if word.isdigit():
            found.append(word)
    return found


def scaled_adapters(adapters: Sequence[Adapter], scratch: Path) -> dict[str, Path]:
    """Where each adapter is, at its strength: vLLM knows no strengths, but `lora_alpha` scales an adapter
    just so.

    An adapter at full strength stays where it is; of another, a directory with a changed configuration and a
    link to the same weights is made.
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
