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

    compute_capability: float = 0.0
    """CUDA compute capability; 0 where CUDA does not apply."""

    @property
    def resource_name(self) -> str:
        """The extended resource a pod requests, for example `nvidia.com/gpu`."""
        return _RESOURCES[self.vendor]

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16; float16 works on every GPU of the table."""
        return self.compute_capability >= BFLOAT16_COMPUTE_CAPABILITY


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
    """Whether current releases of the cloud or of upstream Kaito no longer offer it."""

    @property
    def gpu_memory(self) -> int:
        """GPU memory of one node in bytes."""
        return self.gpus * self.memory_per_gpu

    def __str__(self) -> str:
        return f"{self.name} ({self.gpus} x {self.gpu.name}, {self.memory_per_gpu // GIB} GiB each)"
