"""Types of GPUs and instance types; the table is in `instance_types`."""

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
    """Product name, for example `NVIDIA A100`."""

    vendor: Vendor
    """Vendor; determines the extended resource."""

    compute_capability: float | None = None
    """CUDA compute capability; None for other vendors, and if it is unknown."""

    @property
    def resource_name(self) -> str:
        """The extended resource that pods request, for example `nvidia.com/gpu`."""
        return _RESOURCES[self.vendor]

    @property
    def has_bfloat16(self) -> bool:
        """Whether the GPU supports bfloat16. Every GPU of the table supports float16.

        A GPU of unknown capability counts as one that does: every GPU that NVIDIA released since 2020 supports it, and
        the tables contain the older ones.
        """
        return self.compute_capability is None or self.compute_capability >= BFLOAT16_COMPUTE_CAPABILITY


@final
@dataclass(frozen=True, slots=True)
class InstanceType:
    """An instance type with GPUs: from the table, or from the labels of an existing node."""

    name: str
    """The cloud's name, as in the node label."""

    gpu: Gpu
    """The GPU model."""

    gpus: int
    """GPUs of one node."""

    memory_per_gpu: int
    """Memory of one GPU in bytes; of a time slice, its part of that memory."""

    nvme: bool = False
    """Whether the node has a local NVMe disk."""

    is_part: bool = False
    """Whether the GPU is a MIG slice or a time slice: engines cannot divide a model over several of them."""

    resource: str = ""
    """Extended resource of a MIG slice; empty for that of the GPU."""

    shares: int = 1
    """Time slices of a GPU. Nothing but the servers themselves keeps each of them to its part of the memory."""

    slices: int = 1
    """MIG slices of a new node, each for one copy of a model; 1 for whole GPUs, and for existing nodes."""

    profile: str = ""
    """The cloud's name of the profile by which the GPUs of a new node are divided; empty for whole GPUs."""

    legacy: bool = False
    """Whether it is accepted, but never recommended, because the cloud or upstream Kaito does not offer it."""

    @property
    def resource_name(self) -> str:
        """The extended resource that pods request."""
        return self.resource or self.gpu.resource_name

    @property
    def gpu_memory(self) -> int:
        """GPU memory of one node in bytes."""
        return self.gpus * self.memory_per_gpu

    def __str__(self) -> str:
        if self.profile:
            memory = f"{self.memory_per_gpu / GIB:g} GiB"
            return (
                f"{self.name} ({self.slices} slice{'s' if self.slices > 1 else ''} of {self.gpu.name}, {memory} each)"
            )
        return f"{self.name} ({self.gpus} x {self.gpu.name}, {self.memory_per_gpu // GIB} GiB each)"
