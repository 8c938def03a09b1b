"""Estimates the GPU memory of a model, and the number of nodes.

The constants are those of upstream Kaito after its corrections of August and September 2026 (pull requests 2302 and
2315): vLLM's own default share of 0.92 instead of 0.84, 0.82 on A10, less fixed overhead on A10, the state of hybrid
models, and weights without second copies. `utilization` is the one source of the share: the estimate and the command
line take it from here.

`upstream_estimate` is upstream's number of nodes, for comparison. `vllm_need_per_gpu` divides the key-value cache over
all GPUs of all nodes, as vLLM does. Upstream reserves the whole cache on every GPU of the first node, and therefore
needs too many nodes for long contexts.
"""

import math
from dataclasses import dataclass
from typing import Final, final

from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.preset import Architecture, Preset

WEIGHTS_IN_MEMORY: Final = 1.02
"""Size of loaded weights relative to their files (upstream Kaito)."""

OVERHEAD: Final = 2.3 * GIB
"""Fixed memory of vLLM on each GPU: about 0.6 GiB outside torch, 1.7 GiB activations and CUDA graphs (upstream)."""

_OVERHEAD_BY_GPU: Final = {"NVIDIA A10": 1.5 * GIB}
"""Lower overhead measured on some GPUs (upstream pull request 2302: granite-4.1-8b runs on one A10)."""

OVERHEAD_PER_WEIGHT: Final = 0.05
"""Additional overhead per byte of weights on the GPU (upstream)."""

DEFAULT_CONTEXT: Final = 2048
"""Tokens of context that must fit by default (upstream)."""

UPSTREAM_UTILIZATION: Final = 0.84
"""Share of GPU memory in upstream Kaito v0.12, for comparison."""

_UTILIZATION: Final = 0.92
_UTILIZATION_BY_GPU: Final = {"NVIDIA A10": 0.82}
"""Share of GPU memory that vLLM may use: vLLM's default, and less on A10, which reserve more memory (upstream)."""

STATE_SEQUENCES: Final = 16
"""Concurrent requests whose recurrent state must fit on a node that serves a hybrid model.

Upstream reserves for 64. The command line caps the concurrent requests at what fits (`max_sequences`), so 16 are
enough for a server that starts and is useful; on Azure's sizes both numbers accept the same pairs, except
qwen3.5-122b-a10b-gptq-int4 on one H100 with 94 GiB, whose memory suffices for about 100 requests.
"""

LORA_RANK: Final = 16
"""Assumed rank of adapters, which are read only later: vLLM's default for `--max-lora-rank`."""

_LORA_SHARE: Final = 20 / 13
"""An adapter of rank r on every matrix of a layer has 20 x hidden x r numbers, the layer has 13 x hidden^2."""

TRANSFORMERS_UTILIZATION: Final = 0.92
"""Share of GPU memory that the transformers server may use; the rest is for the driver and fragmentation."""

TRANSFORMERS_OVERHEAD: Final = 1 * GIB
"""CUDA context, cuBLAS workspace and activations of the transformers server on each GPU."""

TUNING_OVERHEAD: Final = 6 * GIB
"""Adapter, optimizer and activations of tuning, over all GPUs of the node."""


class GpuTooSmall(ValueError):
    """The overhead exceeds the memory of one GPU, so that no number of GPUs is sufficient. Sizes are in bytes."""

    def __init__(self, available: float, overhead: float) -> None:
        super().__init__(f"{gib(available)} usable on one GPU, {gib(overhead)} needed beside the weights")
        self.available = available
        self.overhead = overhead


@final
@dataclass(frozen=True, slots=True)
class UpstreamEstimate:
    """Result of upstream's formula."""

    gpus: int
    nodes: int
    weight_budget: float
    """Bytes of weights that fit on one GPU."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one copy of a model needs in memory beside its weights."""

    context: int = DEFAULT_CONTEXT
    """Tokens of key-value cache."""

    cache_scale: float = 1.0
    """Size of a number in the key-value cache relative to 16 bits."""

    sequences: int = STATE_SEQUENCES
    """Concurrent requests whose recurrent state must fit; for hybrid models only."""

    adapters: int = 0
    """LoRA adapters that are loaded beside the weights."""


DEFAULT_LOAD: Final = Load()


def gib(size: float) -> str:
    """Formats bytes as GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"


def utilization(gpu: Gpu) -> float:
    """Returns the share of the GPU's memory that vLLM may use, for the estimate and the command line."""
    return _UTILIZATION_BY_GPU.get(gpu.name, _UTILIZATION)


def overhead(gpu: Gpu) -> float:
    """Returns the bytes that vLLM needs on each GPU for any model."""
    return _OVERHEAD_BY_GPU.get(gpu.name, OVERHEAD)


def upstream_estimate(
    *,
    weights: float,
    kv_bytes_per_token: int,
    node_memory: int,
    gpus: int,
    context: int = DEFAULT_CONTEXT,
    share: float = UPSTREAM_UTILIZATION,
    base: float = OVERHEAD,
    state: float = 0.0,
) -> UpstreamEstimate:
    """Computes upstream Kaito's estimate of the number of nodes; the defaults are those of v0.12.

    Args:
        weights: bytes of the weights' files.
        kv_bytes_per_token: bytes of key-value cache of one token.
        node_memory: bytes of GPU memory of one node.
        gpus: GPUs of one node.
        context: tokens.
        share: share of GPU memory that vLLM may use.
        base: fixed overhead of each GPU in bytes.
        state: bytes of recurrent state of all concurrent requests.

    Raises:
        GpuTooSmall: the overhead alone exceeds the memory of one GPU.
    """
    available = (node_memory // gpus) * share
    reserve = base + context * kv_bytes_per_token / gpus
    if available <= reserve:
        raise GpuTooSmall(available, reserve)
    budget = (available - reserve) / (1 + OVERHEAD_PER_WEIGHT)
    needed = math.floor((weights * WEIGHTS_IN_MEMORY + state) / budget) + 1
    return UpstreamEstimate(needed, math.ceil(needed / gpus), budget)


def vllm_need_per_gpu(preset: Preset, gpu: Gpu, *, tensor: int, stages: int = 1, load: Load = DEFAULT_LOAD) -> float:
    """Returns the bytes that vLLM needs on each of `tensor` x `stages` GPUs for one copy of the model.

    A stage holds whole layers, so that the largest one decides if the stages do not divide the layers evenly.

    Args:
        preset: the model.
        gpu: the GPU model.
        tensor: GPUs that share each layer.
        stages: pipeline stages; each has a part of the layers and of the cache.
        load: cache, state and adapters.
    """
    stage = stage_share(preset, stages)
    weights = preset.weights_bytes * WEIGHTS_IN_MEMORY * (1 + OVERHEAD_PER_WEIGHT) + _adapter_bytes(preset, load)
    cache = preset.cache_bytes(load.context) * load.cache_scale * stage / _cache_ranks(preset.architecture, tensor)
    state = preset.state_bytes * load.sequences * stage / tensor
    return weights * stage / tensor + overhead(gpu) + cache + state


def stage_share(preset: Preset, stages: int) -> float:
    """Returns the share of the layers that the largest pipeline stage holds."""
    shape = preset.architecture
    if shape is None or not shape.layers:
        return 1 / stages
    return math.ceil(shape.layers / stages) / shape.layers


def _cache_ranks(shape: Architecture | None, tensor: int) -> int:
    """Returns the number of tensor-parallel ranks that the cache is divided over.

    With multi-head latent attention, every rank has the whole cache of its layers. Key-value heads are copied if there
    are fewer of them than ranks.
    """
    if shape is None:
        return tensor
    return 1 if shape.attention == "MLA" else min(tensor, shape.kv_heads)


def _adapter_bytes(preset: Preset, load: Load) -> float:
    """Returns the bytes of the adapters over all GPUs, at 16 bits per number."""
    shape = preset.architecture
    if not load.adapters or shape is None:
        return 0.0
    share = _LORA_SHARE * LORA_RANK / (shape.heads * shape.head_dim)
    return load.adapters * share * preset.parameters * 1e9 * 2


def vllm_available_per_gpu(instance: InstanceType, share: float | None = None) -> float:
    """Returns the bytes that vLLM may use on each GPU; `share` is the user's share of the memory of the whole GPU."""
    if share is None:
        return instance.memory_per_gpu * utilization(instance.gpu)
    return instance.memory_per_gpu * instance.shares * share


def max_sequences(
    preset: Preset, instance: InstanceType, *, tensor: int, stages: int, share: float | None = None
) -> int | None:
    """Returns the value of `--max-num-seqs` that a hybrid model needs to start; None if vLLM's default fits.

    vLLM gives each request one block of recurrent state and exits at start if `max_num_seqs` exceeds the blocks that it
    could allocate (vllm-project/vllm issue 49064). A block has one page for each layer of a cache group; the group's
    size follows vLLM's rule: the smaller of the two kinds of layers, or the larger when it is within 1.5 of it. Formula
    and the margin of 0.9 are upstream Kaito's; pipelines are left to vLLM, as upstream does.
    """
    shape = preset.architecture
    if shape is None or not shape.state_layers or stages > 1:
        return None
    few, many = sorted((shape.state_layers, shape.full_layers or 1))
    group = many if many < 1.5 * few else few
    none = Load(context=0, sequences=0)
    pool = vllm_available_per_gpu(instance, share) - vllm_need_per_gpu(preset, instance.gpu, tensor=tensor, load=none)
    most = max(1, math.floor(0.9 * pool / (shape.state_bytes_per_layer / tensor * group)))
    return most if most < _default_sequences(instance) else None


def _default_sequences(instance: InstanceType) -> int:
    """Returns the default of `max_num_seqs` in vLLM's server: by the memory of the GPU, with an exception for A100."""
    return 1024 if instance.memory_per_gpu >= 70 * GIB and "A100" not in instance.gpu.name else 256


def transformers_need(preset: Preset, gpus: int, *, context: int = DEFAULT_CONTEXT) -> float:
    """Returns the bytes that the transformers server needs over all GPUs of one node, which share the layers."""
    return preset.weights_bytes * WEIGHTS_IN_MEMORY + gpus * TRANSFORMERS_OVERHEAD + context * preset.kv_bytes_per_token


def tuning_need(preset: Preset, method: str) -> float:
    """Returns the bytes that tuning needs over all GPUs of one node, with batch size 1 and gradient checkpointing.

    With LoRA, the base model has 16 bits per parameter. With QLoRA it has 4.127 bits (QLoRA paper, section 3), with
    embeddings and head at 16 bits: about 0.3 of the files' size. Adapter, optimizer and activations need about 6 GiB.
    """
    share = 0.30 if method.lower() == "qlora" else WEIGHTS_IN_MEMORY
    return preset.weights_bytes * share + TUNING_OVERHEAD
