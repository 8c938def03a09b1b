"""Which server runs a preset on a GPU: transformers or vLLM, and in which number format.

The table, first match wins:

    a runtime was asked for             that one, or an error that says why it cannot
    the GPU has no bfloat16 (V100, T4)  transformers in float16: vLLM's kernels want compute capability 8.0
    adapters                            transformers: it merges them at their strength into the one answer
    the capability is unknown           as for a GPU that has bfloat16, with a warning
    else                                vLLM where the preset has it, for its throughput; transformers otherwise
"""

from typing import Final

from kaito.api import labels
from kaito.models.errors import NoGpu, RuntimeUnsupported
from kaito.models.gpu import BFLOAT16_COMPUTE_CAPABILITY, InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD
from kaito.models.preset import Preset, RuntimeName

RUNTIME_FIELD: Final = "metadata.annotations[kaito.sh/runtime]"

LEAST_COMPUTE_CAPABILITY: Final = 7.0
"""Oldest GPU generation (Volta) that the images' PyTorch has kernels for."""


def choose_runtime(
    preset: Preset, instance: InstanceType, *, wanted: RuntimeName | None = None, adapters: bool = False
) -> RuntimeName:
    """The runtime by the table above.

    Raises:
        NoGpu: the images cannot use that GPU at all.
        RuntimeUnsupported: no runtime, or not the wanted one, serves this preset on this GPU.
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
    """What the user should know about the GPU that the choice is based on."""
    gpu = instance.gpu
    if gpu.compute_capability is not None:
        return ()
    warning = (
        f"{INSTANCE_FIELD}: the compute capability of {gpu.name} is unknown, {preset.name} is planned as for "
        f"{BFLOAT16_COMPUTE_CAPABILITY} or more: set the node labels {labels.CUDA_MAJOR} and {labels.CUDA_MINOR}"
    )
    return (warning,)


def dtype_on(preset: Preset, instance: InstanceType) -> str:
    """Number format of the weights on that GPU: the preset's own, float16 where the GPU has no bfloat16."""
    return preset.dtype if preset.quantization or instance.gpu.has_bfloat16 else "float16"


def check_gpu(instance: InstanceType) -> None:
    """Refuse GPUs that the images have no software for.

    Raises:
        NoGpu: another vendor, or too old.
    """
    gpu = instance.gpu
    if gpu.vendor != "nvidia":
        raise NoGpu(
            INSTANCE_FIELD, f"{instance} has no NVIDIA GPU: the images' servers run on NVIDIA GPUs, choose such a size"
        )
    if gpu.compute_capability is not None and gpu.compute_capability < LEAST_COMPUTE_CAPABILITY:
        raise NoGpu(
            INSTANCE_FIELD,
            f"{instance} is too old: its compute capability is {gpu.compute_capability}, the servers need "
            f"{LEAST_COMPUTE_CAPABILITY} (V100 or newer)",
        )


def _obstacle(name: RuntimeName, preset: Preset, instance: InstanceType) -> str:
    """Why a runtime cannot serve the preset there; empty when it can."""
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
