"""Chooses the runtime for a preset on a GPU, and the number format of the weights.

The first matching row applies:

    a runtime is requested              that runtime, or an error with the cause
    the GPU has no bfloat16 (V100, T4)  transformers in float16: vLLM's kernels need compute capability 8.0
    adapters                            transformers, which merges them with their strengths
    the capability is unknown           as for a GPU with bfloat16, with a warning
    otherwise                           vLLM if the preset supports it, for its throughput; else transformers
"""

from typing import Final

from kaito.api import labels
from kaito.models.errors import NoGpu, RuntimeUnsupported
from kaito.models.gpu import BFLOAT16_COMPUTE_CAPABILITY, InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD
from kaito.models.preset import Preset, RuntimeName

RUNTIME_FIELD: Final = "metadata.annotations[kaito.sh/runtime]"

LEAST_COMPUTE_CAPABILITY: Final = 7.0
"""Oldest GPU generation (Volta) that PyTorch in the images supports."""


def choose_runtime(
    preset: Preset, instance: InstanceType, *, wanted: RuntimeName | None = None, adapters: bool = False
) -> RuntimeName:
    """Returns the runtime by the table above.

    Raises:
        NoGpu: the images do not support the GPU.
        RuntimeUnsupported: neither runtime, or not the requested one, can serve the preset on the GPU.
    """
    check_gpu(instance)
    obstacles = {name: _obstacle(name, preset, instance) for name in ("transformers", "vllm")}
    if wanted:
        if obstacle := obstacles[wanted]:
            raise RuntimeUnsupported(RUNTIME_FIELD, obstacle)
        return wanted
    order: tuple[RuntimeName, RuntimeName] = ("transformers", "vllm") if adapters else ("vllm", "transformers")
    for name in order:
        if not obstacles[name]:
            return name
    raise RuntimeUnsupported(INSTANCE_FIELD, obstacles["vllm"])


def runtime_warnings(preset: Preset, instance: InstanceType) -> tuple[str, ...]:
    """Returns warnings about the GPU."""
    gpu = instance.gpu
    if gpu.compute_capability is not None:
        return ()
    warning = (
        f"{INSTANCE_FIELD}: the compute capability of {gpu.name} is unknown, {preset.name} is planned as for "
        f"{BFLOAT16_COMPUTE_CAPABILITY} or more: set the node labels {labels.CUDA_MAJOR} and {labels.CUDA_MINOR}"
    )
    return (warning,)


def dtype_on(preset: Preset, instance: InstanceType) -> str:
    """Returns the number format of the weights: the preset's, or float16 if the GPU has no bfloat16."""
    return preset.dtype if preset.quantization or instance.gpu.has_bfloat16 else "float16"


def check_gpu(instance: InstanceType) -> None:
    """Checks that the images support the GPU.

    Raises:
        NoGpu: the GPU is of another vendor, or too old.
    """
    gpu = instance.gpu
    if gpu.vendor != "nvidia":
        raise NoGpu(
            INSTANCE_FIELD,
            f"{instance} has no NVIDIA GPU, which the images need: choose another instance type",
        )
    if gpu.compute_capability is not None and gpu.compute_capability < LEAST_COMPUTE_CAPABILITY:
        raise NoGpu(
            INSTANCE_FIELD,
            f"{instance} is too old: its compute capability is {gpu.compute_capability}, the servers need "
            f"{LEAST_COMPUTE_CAPABILITY} (V100 or newer)",
        )


def _obstacle(name: RuntimeName, preset: Preset, instance: InstanceType) -> str:
    """Explains why a runtime cannot serve the preset on the instance type; empty if it can."""
    if name == "transformers":
        if preset.transformers is None:
            return f"the transformers runtime has no settings for {preset.name}: use vllm"
        if preset.quantization:
            return f"the transformers runtime does not serve {preset.quantization} weights ({preset.name}): use vllm"
        return ""
    if preset.vllm is None:
        return f"the vllm runtime has no settings for {preset.name}: use transformers"
    if not instance.gpu.has_bfloat16:
        return (
            f"{preset.name} on vllm needs a GPU with compute capability {BFLOAT16_COMPUTE_CAPABILITY} or more, "
            f"{instance} has {instance.gpu.compute_capability}: choose a newer size, for example with A100 or A10"
        )
    return ""
