"""What servers of a model measured when they started. `fitting` corrects the estimate with it.

A measurement is of one configuration: model, GPU, and division of the model over GPUs.
"""

from dataclasses import dataclass
from typing import Final, final

from kaito.models.gpu import InstanceType

CACHE_MARGIN: Final = 10
"""Percent by which the measured cache exceeds a context that fits: the free memory of GPUs varies."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMemory:
    """What one configuration used on each GPU."""

    gpu: str
    """Name of the GPU model."""
    memory_per_gpu: int
    """Memory of one GPU in bytes."""
    tensor: int
    """GPUs that share each layer."""
    pipeline: int
    """Groups of GPUs that each hold a part of the layers."""
    data: int
    """Copies on one node."""
    nodes: int
    """Nodes of one copy."""
    peak: float
    """Bytes beside the key-value cache."""
    estimate: float
    """Bytes that the formulas of `sizing` give for them, in this version."""
    cache_tokens: int
    """Tokens of the key-value cache of a copy."""
    has_same_settings: bool
    """Whether the Workspace that is planned has the engine settings and adapters of the measured one."""

    def is_for(self, instance: InstanceType) -> bool:
        """Whether the instance type has such GPUs."""
        return self.gpu == instance.gpu.name and self.memory_per_gpu == instance.memory_per_gpu

    def fits_context(self, context: int) -> bool:
        """Whether that many tokens fit into the cache, with a margin."""
        return self.cache_tokens * 100 >= context * (100 + CACHE_MARGIN)

    def excess_over(self, ranks: int) -> float:
        """Returns the bytes on each GPU by which the estimate was too low; 0 if it was not.

        On fewer GPUs than were measured, each holds more of the model, so that the excess grows with their ratio.
        """
        return max(self.peak - self.estimate, 0.0) * max(1.0, self.tensor * self.pipeline / ranks)
