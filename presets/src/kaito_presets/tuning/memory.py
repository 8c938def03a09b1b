"""Estimates the memory of a tuning run from the dimensions of the model.

Used by `train` before the weights are loaded. The estimate is an upper bound for one process: weights, adapter with
optimizer, activations, logits. (Upstream requires 72 GiB for phi-3-mini, independent of the settings.)
"""

from dataclasses import dataclass
from typing import Final

GIB: Final = 2**30
NF4_BYTES: Final = 0.53
"""Bytes per weight in NF4: half a byte, plus 0.127 bits of scales with double quantization (QLoRA paper), rounded
up."""
ADAPTER_BYTES: Final = 4 + 4 + 8
"""Bytes per trained parameter in float32: value, gradient, two moments of Adam."""
LAYER_ACTIVATIONS: Final = 34
"""Bytes per token and hidden unit that one layer stores for its backward pass in 16-bit precision (Korthikanti et al.
2022, equation 1, without attention scores)."""
CHECKPOINT_ACTIVATIONS: Final = 2
"""The same with gradient checkpointing, which stores the input of each layer only."""
LOGITS_BYTES: Final = 4 + 4 + 2
"""Bytes per token and vocabulary entry: float32 logits, their gradient, 16-bit logits."""
OVERHEAD_BYTES: Final = int(0.75 * GIB)
"""CUDA context, kernels, fragmentation."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Dimensions of a model and a run."""

    linear_parameters: int
    """Parameters of the linear layers, which qlora quantizes."""
    other_parameters: int
    """Parameters of embeddings, norms and output head."""
    adapter_parameters: int
    layers: int
    hidden_size: int
    vocabulary: int
    batch: int
    length: int
    """Tokens of the longest example."""
    bytes_per_weight: float
    checkpointing: bool


def estimate_bytes(dimensions: Dimensions, bits: int | None) -> int:
    """Estimates the peak memory of a run in bytes; `bits` is the width of quantized weights."""
    linear_bytes = {None: dimensions.bytes_per_weight, 8: 1.0, 4: NF4_BYTES}[bits]
    weights = dimensions.linear_parameters * linear_bytes + dimensions.other_parameters * dimensions.bytes_per_weight
    adapter = dimensions.adapter_parameters * ADAPTER_BYTES
    tokens = dimensions.batch * dimensions.length
    scale = dimensions.bytes_per_weight / 2
    one_layer = tokens * dimensions.hidden_size * LAYER_ACTIVATIONS * scale
    if dimensions.checkpointing:
        activations = tokens * dimensions.hidden_size * CHECKPOINT_ACTIVATIONS * scale * dimensions.layers + one_layer
    else:
        activations = one_layer * dimensions.layers
    logits = tokens * dimensions.vocabulary * LOGITS_BYTES
    return int(weights + adapter + activations + logits) + OVERHEAD_BYTES
