"""How much GPU memory a model takes and how many nodes that is: arithmetic on bytes, nothing else.

`upstream_estimate` is upstream Kaito v0.12's formula, kept to compare with and to be compatible where somebody asks.
`estimate` is ours: it spreads the key-value cache over all GPUs of all nodes, as vLLM does, where upstream reserves it
in full on every GPU of the first node and so asks for far too many nodes at long contexts.
"""

import math
from dataclasses import dataclass
from typing import Final, final

from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.preset import Preset

WEIGHTS_IN_MEMORY: Final = 1.02
"""Size of loaded weights against their files (upstream Kaito v0.12)."""

OVERHEAD: Final = 2.3 * GIB
"""Fixed memory of vLLM on each GPU: about 0.6 GiB outside torch, 1.7 GiB activations and CUDA graphs (upstream)."""

OVERHEAD_PER_WEIGHT: Final = 0.05
"""Further overhead for each byte of weights on the GPU (upstream)."""

DEFAULT_CONTEXT: Final = 2048
"""Tokens of context that must fit when nobody asks for more (upstream)."""

_UTILISATION: Final = 0.84
_UTILISATION_BY_GPU: Final = {"NVIDIA A10": 0.82}
"""Share of GPU memory that vLLM may use (upstream; A10 boards keep more for themselves)."""

TRANSFORMERS_UTILISATION: Final = 0.92
"""Share of GPU memory that the transformers server may fill; our margin for what the driver and fragmentation take."""

TRANSFORMERS_OVERHEAD: Final = 1 * GIB
"""CUDA context, cuBLAS workspace and activations of the transformers server on each GPU."""

_MOST_NODES: Final = 64
"""Where the search for a node count gives up."""


class GpuTooSmall(ValueError):
    """Not even the overhead fits on one GPU, so no number of GPUs helps. Carries both sizes in bytes."""

    def __init__(self, available: float, overhead: float) -> None:
        super().__init__(f"{gib(available)} usable on one GPU, {gib(overhead)} needed beside the weights")
        self.available = available
        self.overhead = overhead


@final
@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model takes on one kind of node."""

    gpus: int
    """Least number of GPUs."""

    nodes: int
    """Nodes that have so many GPUs."""

    needed_per_gpu: float
    """Bytes each GPU holds at that number of nodes."""

    available_per_gpu: float
    """Bytes each GPU offers."""


@final
@dataclass(frozen=True, slots=True)
class UpstreamEstimate:
    """What upstream's formula says."""

    gpus: int
    nodes: int
    weight_budget: float
    """Bytes of weights that fit on one GPU."""


def gib(size: float) -> str:
    """Bytes for people: GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"


def utilisation(gpu: Gpu) -> float:
    """Share of the GPU's memory that vLLM may use; the estimate and the command line take it from here."""
    return _UTILISATION_BY_GPU.get(gpu.name, _UTILISATION)


def upstream_estimate(
    *, weights: float, kv_bytes_per_token: int, node_memory: int, gpus: int, context: int = DEFAULT_CONTEXT
) -> UpstreamEstimate:
    """Upstream Kaito v0.12's node estimate, operation by operation.

    Raises:
        GpuTooSmall: the overhead alone exceeds the memory of one GPU.
    """
    available = (node_memory // gpus) * _UTILISATION
    reserve = OVERHEAD + context * kv_bytes_per_token / gpus
    if available <= reserve:
        raise GpuTooSmall(available, reserve)
    budget = (available - reserve) / (1 + OVERHEAD_PER_WEIGHT)
    needed = math.floor(weights * WEIGHTS_IN_MEMORY / budget) + 1
    return UpstreamEstimate(needed, math.ceil(needed / gpus), budget)


def vllm_need_per_gpu(preset: Preset, *, gpus: int, nodes: int = 1, context: int = DEFAULT_CONTEXT) -> float:
    """Bytes that vLLM takes on each of `gpus` GPUs, spread over `nodes` nodes, with `context` tokens of cache.

    With multi-head latent attention every tensor-parallel rank holds the whole cache of its layers, so there only
    pipeline stages (nodes) divide it.
    """
    weights = preset.weights_bytes * WEIGHTS_IN_MEMORY * (1 + OVERHEAD_PER_WEIGHT)
    replicated = preset.architecture is not None and preset.architecture.attention == "MLA"
    return weights / gpus + OVERHEAD + context * preset.kv_bytes_per_token / (nodes if replicated else gpus)


def estimate(preset: Preset, instance: InstanceType, *, context: int = DEFAULT_CONTEXT) -> Estimate:
    """How many nodes of that type vLLM needs to serve the preset.

    Raises:
        GpuTooSmall: no number of nodes up to 64 is enough.
    """
    available = vllm_available_per_gpu(instance)
    needed = math.inf
    for nodes in range(1, _MOST_NODES + 1):
        most = nodes * instance.gpus
        needed = vllm_need_per_gpu(preset, gpus=most, nodes=nodes, context=context)
        if needed <= available:
            fits = (
                gpus
                for gpus in range(1, most + 1)
                if vllm_need_per_gpu(preset, gpus=gpus, nodes=nodes, context=context) <= available
            )
            return Estimate(next(fits), nodes, needed, available)
    raise GpuTooSmall(available, needed)


def vllm_available_per_gpu(instance: InstanceType) -> float:
    """Bytes that vLLM may use on each GPU of that type."""
    return instance.memory_per_gpu * utilisation(instance.gpu)


def transformers_need(preset: Preset, gpus: int, *, context: int = DEFAULT_CONTEXT) -> float:
    """Bytes that the transformers server takes over all GPUs of one node; layers are spread over them."""
    return preset.weights_bytes * WEIGHTS_IN_MEMORY + gpus * TRANSFORMERS_OVERHEAD + context * preset.kv_bytes_per_token


def tuning_need(preset: Preset, method: str) -> float:
    """Bytes that tuning takes over all GPUs of one node, with one sequence a batch and gradient checkpointing.

    LoRA keeps the base model at 16 bits; QLoRA at 4.127 bits a parameter (QLoRA paper, section 3), with embeddings and
    head left at 16 bits: about 0.3 of the files' size. Our allowance for adapter, optimizer and activations is 6 GiB.
    """
    share = 0.30 if method.lower() == "qlora" else WEIGHTS_IN_MEMORY
    return preset.weights_bytes * share + 6 * GIB
