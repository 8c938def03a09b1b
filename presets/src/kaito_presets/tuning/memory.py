"""Estimates the memory of a tuning run before it starts; pure arithmetic over the model's dimensions.

Called by `train`. An upper estimate for one process: weights, adapter with optimizer, activations, logits.
Upstream states 72 GiB for phi-3-mini whatever the settings; this says what these settings need.
"""

from dataclasses import dataclass
from typing import Final

GIB: Final = 2**30
NF4_BYTES: Final = 0.53
"""Half a byte, plus scales: one 8-bit per 64 weights, themselves scaled (QLoRA paper, double quantisation:
0.127 bits a weight)."""
ADAPTER_BYTES: Final = 4 + 4 + 8
"""A trained number in float32: itself, its gradient, Adam's two moments."""
LAYER_ACTIVATIONS: Final = 34
"""Bytes per token and hidden unit that one layer keeps for its backward pass in 16 bit (Korthikanti et al.
2022, eq. 1, without attention scores)."""
CHECKPOINT_ACTIVATIONS: Final = 2
"""The same with gradient checkpointing: only the input of each layer."""
LOGITS_BYTES: Final = 4 + 4 + 2
"""Per token and vocabulary entry: float32 logits, their gradient, the 16-bit original."""
OVERHEAD_BYTES: Final = int(0.75 * GIB)
"""Runtime, kernels, fragmentation."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What the estimate needs to know of a model and a run."""

    linear_parameters: int
    """Numbers in the linear layers that are quantised."""
    other_parameters: int
    """Embeddings, norms, output head."""
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
    """Bytes the run needs at its peak."""
    linear_bytes = {None: dimensions.bytes_per_weight, 8: 1.0, 4: NF4_BYTES}[bits]
    weights = dimensions.linear_parameters * linear_bytes + dimensions.other_parameters * dimensions.bytes_per_weight
    adapter = dimensions.adapter_parameters * ADAPTER_BYTES
    tokens = dimensions.batch * dimensions.length
    scale = dimensions.bytes_per_weight / 2
    one_layer = tokens * dimensions.hidden_size * LAYER_ACTIVATIONS * scale
    if dimensions.checkpointing:
        kept = tokens * dimensions.hidden_size * CHECKPOINT_ACTIVATIONS * scale * dimensions.layers + one_layer
    else:
        kept = one_layer * dimensions.layers
    logits = tokens * dimensions.vocabulary * LOGITS_BYTES
    return int(weights + adapter + kept + logits) + OVERHEAD_BYTES
