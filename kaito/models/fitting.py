"""Checks whether a model fits on a node with the user's settings, and finds the setting that is the cause if not."""

from collections.abc import Iterator
from dataclasses import replace

from kaito.models import instance_types
from kaito.models.engine import DEFAULT_ENGINE, EngineSettings, option_field
from kaito.models.errors import InstanceTypeTooSmall, InvalidEngineOption, PlanError
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, Cloud
from kaito.models.parallelism import Parallelism, load_of, parallelism
from kaito.models.preset import Preset, RuntimeName
from kaito.models.runtime import choose_runtime
from kaito.models.sizing import (
    DEFAULT_CONTEXT,
    TRANSFORMERS_UTILIZATION,
    gib,
    transformers_need,
    utilization,
    vllm_available_per_gpu,
    vllm_need_per_gpu,
)

_POSSIBLE_CAUSES = (
    "max_model_len",
    "gpu_memory_utilization",
    "max_num_seqs",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "kv_cache_dtype",
)
"""Settings that can be the cause if a model does not fit, in the order in which they are tried."""

_BLOCK = 16
"""Tokens of one block of vLLM's key-value cache. Proposed context lengths are multiples of it."""


def check_context(preset: Preset, engine: EngineSettings) -> None:
    """Checks that the context length is within the model's maximum.

    Raises:
        InvalidEngineOption: it is longer.
    """
    wanted = engine.max_model_len
    if wanted is not None and preset.context and wanted > preset.context:
        raise InvalidEngineOption(
            option_field("max-model-len"),
            f"is {wanted}, which exceeds the model's maximum context of {preset.context} tokens ({preset.name}): "
            f"use at most {preset.context}, or remove it",
        )


def engine_warnings(instance: InstanceType, engine: EngineSettings, divided: Parallelism) -> Iterator[str]:
    """Returns warnings about settings that work, but are probably a mistake."""
    if divided.gpus < instance.gpus:
        field = option_field("tensor-parallel-size")
        yield f"{field}: the parallel sizes use {divided.gpus} of the {instance.gpus} GPUs of {instance.name}"
    share, usual = engine.gpu_memory_utilization, utilization(instance.gpu)
    if share is not None and share > usual + 0.03:
        field = option_field("gpu-memory-utilization")
        yield f"{field}: {share} is more than the {usual} that {instance.gpu.name} usually has free: vLLM may not start"


def vllm_shortfall(preset: Preset, instance: InstanceType, engine: EngineSettings, adapters: int = 0) -> str:
    """Describes needed and usable memory on one node for vLLM; empty if the model fits.

    Raises:
        InvalidEngineOption: the parallel sizes are not possible on that node.
    """
    divided = parallelism(preset, instance, engine)
    needed = vllm_need_per_gpu(
        preset, instance.gpu, tensor=divided.tensor, stages=divided.pipeline, load=load_of(preset, engine, adapters)
    )
    usable = vllm_available_per_gpu(instance, engine.gpu_memory_utilization)
    if needed <= usable:
        return ""
    ranks = divided.tensor * divided.pipeline
    return (
        f"{instance} is too small for {preset.name}: it takes about {gib(needed * ranks)}, {gib(usable * ranks)} are "
        "usable"
    )


def transformers_shortfall(preset: Preset, instance: InstanceType) -> str:
    """Describes needed and usable memory for transformers; empty if the model fits.

    Uses the measured requirement if the catalog has one, else the estimate.
    """
    declared = preset.requirement
    if declared is None:
        context = min(DEFAULT_CONTEXT, preset.context or DEFAULT_CONTEXT)
        needed = transformers_need(preset, instance.gpus, context=context)
        usable = instance.gpu_memory * TRANSFORMERS_UTILIZATION
    else:
        if instance.gpus < declared.gpus:
            return f"{instance} has {instance.gpus} GPUs, {preset.name} needs {declared.gpus}"
        if instance.memory_per_gpu < int(declared.memory_per_gpu):
            return (
                f"{instance} has {gib(instance.memory_per_gpu)} on each GPU, {preset.name} needs "
                f"{gib(int(declared.memory_per_gpu))}"
            )
        needed, usable = float(int(declared.memory)), float(instance.gpu_memory)
    if needed <= usable:
        return ""
    return f"{instance} is too small for {preset.name}: it takes about {gib(needed)}, {gib(usable)} are usable"


def shortfall_error(
    preset: Preset, instance: InstanceType, runtime: RuntimeName, engine: EngineSettings, adapters: int, cloud: Cloud
) -> PlanError:
    """Returns the error for a model that does not fit: about a setting if the model would fit without it."""
    for option in _POSSIBLE_CAUSES if runtime == "vllm" else ():
        value: float | str | None = getattr(engine, option)
        if value is not None and _fits(preset, instance, runtime, replace(engine, **{option: None}), adapters):
            return _option_error(preset, instance, engine, option, adapters, cloud)
    remedy = _larger(preset, runtime, engine, adapters, cloud)
    return InstanceTypeTooSmall(INSTANCE_FIELD, f"{_shortfall(preset, instance, runtime, engine, adapters)}: {remedy}")


def _option_error(
    preset: Preset, instance: InstanceType, engine: EngineSettings, option: str, adapters: int, cloud: Cloud
) -> PlanError:
    shortfall = vllm_shortfall(preset, instance, engine, adapters)
    value: float | str | None = getattr(engine, option)
    remedy = "remove it"
    if option == "max_model_len":
        most = _most_context(preset, instance, engine, adapters)
        larger = _larger(preset, "vllm", engine, adapters, cloud)
        remedy = f"use at most {most}, or {larger}" if most else larger
    field = option_field(option.replace("_", "-"))
    return InstanceTypeTooSmall(field, f"is {value}, and with it {shortfall}: {remedy}")


def _most_context(preset: Preset, instance: InstanceType, engine: EngineSettings, adapters: int) -> int:
    """Returns the longest context that fits, in multiples of a block; 0 if none fits."""
    low, high = 0, (engine.max_model_len or preset.context) // _BLOCK
    while low < high:
        middle = (low + high + 1) // 2
        if vllm_shortfall(preset, instance, replace(engine, max_model_len=middle * _BLOCK), adapters):
            high = middle - 1
        else:
            low = middle
    return low * _BLOCK


def _shortfall(
    preset: Preset, instance: InstanceType, runtime: RuntimeName, engine: EngineSettings, adapters: int
) -> str:
    if runtime == "transformers":
        return transformers_shortfall(preset, instance)
    return vllm_shortfall(preset, instance, engine, adapters)


def _fits(preset: Preset, instance: InstanceType, runtime: RuntimeName, engine: EngineSettings, adapters: int) -> bool:
    try:
        choose_runtime(preset, instance, wanted=runtime)
        return not _shortfall(preset, instance, runtime, engine, adapters)
    except PlanError:
        return False


def _larger(preset: Preset, runtime: RuntimeName, engine: EngineSettings, adapters: int, cloud: Cloud) -> str:
    """Returns the remedy with the smallest instance type that fits, if necessary without the user's parallel sizes."""
    free = replace(engine, tensor_parallel_size=None, pipeline_parallel_size=None, data_parallel_size=None)
    options = (engine, free) if engine != DEFAULT_ENGINE else (DEFAULT_ENGINE,)
    for wanted in options:
        for candidate in instance_types.current(cloud):
            if _fits(preset, candidate, runtime, wanted, adapters):
                return f"choose a larger one, for example {candidate.name}"
    return f"no instance type of {cloud} is large enough for one node: choose a smaller or quantized preset"
