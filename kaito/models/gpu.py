"""GPUs and the instance types that carry them: plain values, no table (that is `instance_types`)."""

from dataclasses import dataclass
from typing import Final, Literal, final

from kaito.api import labels

Vendor = Literal["nvidia", "amd", "aws-neuron"]

GIB: Final = 2**30

BFLOAT16_COMPUTE_CAPABILITY: Final = 8.0
"""First CUDA compute capability with bfloat16 arithmetic (NVIDIA Ampere)."""

_RESOURCES: Final[dict[Vendor, str]] = {
    "nvidia": labels.NVIDIA_GPU,
    "amd": labels.AMD_GPU,
    "aws-neuron": labels.NEURON_DEVICE,
}


@final
@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU model."""

    name: str
    """Marketing name, for example `NVIDIA A100`."""

    vendor: Vendor
    """Who made it; decides the resource name pods ask for."""

    compute_capability: float | None = None
    """CUDA compute capability; None where CUDA does not apply, and where nothing is known of the GPU."""

    @property
    def resource_name(self) -> str:
        """The extended resource a pod requests, for example `nvidia.com/gpu`."""
        return _RESOURCES[self.vendor]

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16; float16 works on every GPU of the table.

        A GPU of unknown capability is taken for one that does: every GPU that NVIDIA released since 2020 does, and
        the older ones are in the tables.
        """
        return self.compute_capability is None or self.compute_capability >= BFLOAT16_COMPUTE_CAPABILITY


@final
@dataclass(frozen=True, slots=True)
class InstanceType:
    """A machine size with GPUs, as the cloud names it. Also made from node labels for existing nodes."""

    name: str
    """The cloud's spelling, which is also the node label's."""

    gpu: Gpu
    """The GPU model in it."""

    gpus: int
    """GPUs of one node."""

    memory_per_gpu: int
    """Memory of one GPU in bytes."""

    nvme: bool = False
    """Whether it has a local NVMe disk."""

    legacy: bool = False
    """Accepted, but never recommended: the cloud or upstream Kaito offers it no longer, or never did."""

    @property
    def gpu_memory(self) -> int:
        """GPU memory of one node in bytes."""
        return self.gpus * self.memory_per_gpu

    def __str__(self) -> str:
        return f"{self.name} ({self.gpus} x {self.gpu.name}, {self.memory_per_gpu // GIB} GiB each)"
