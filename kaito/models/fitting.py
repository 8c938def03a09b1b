"""Finds the smallest number of nodes on which a model fits with the user's settings.

Nodes are added for the model alone: settings or adapters that need more nodes than the model needs without them are an
error, because every node costs money. A pipeline size that the user sets is used as it is.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from kaito.models import instance_types
from kaito.models.engine import DEFAULT_ENGINE, EngineSettings, option_field
from kaito.models.errors import InstanceTypeTooSmall, InvalidEngineOption, PlanError
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, Cloud
from kaito.models.measured import MeasuredMemory
from kaito.models.parallelism import MAX_NODES_PER_COPY, Parallelism, can_divide, load_of, parallelism
from kaito.models.partitions import FIELD as PARTITION_FIELD, PROFILE_FIELD
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


def check_share(instance: InstanceType, engine: EngineSettings) -> None:
    """Checks that vLLM uses no more than the part of a time slice of the memory.

    Raises:
        InvalidEngineOption: it would use the memory of the other time slices.
    """
    share, most = engine.gpu_memory_utilization, math.floor(100 / instance.shares) / 100
    if share is not None and instance.shares > 1 and share > most:
        message = f"is {share}, and {instance.shares} time slices share the memory of a GPU: use at most {most}"
        raise InvalidEngineOption(option_field("gpu-memory-utilization"), message)


def engine_warnings(instance: InstanceType, engine: EngineSettings, divided: Parallelism) -> Iterator[str]:
    """Returns warnings about settings that work, but are probably a mistake."""
    if divided.gpus_per_node < instance.gpus:
        field = option_field("tensor-parallel-size")
        yield f"{field}: the parallel sizes use {divided.gpus_per_node} of the {instance.gpus} GPUs of {instance.name}"
    share, usual = engine.gpu_memory_utilization, utilization(instance.gpu)
    if share is not None and share > usual + 0.03:
        field = option_field("gpu-memory-utilization")
        yield f"{field}: {share} is more than the {usual} that {instance.gpu.name} usually has free: vLLM may not start"


def divide(
    preset: Preset,
    instance: InstanceType,
    engine: EngineSettings,
    adapters: int = 0,
    *,
    most_nodes: int = MAX_NODES_PER_COPY,
) -> tuple[Parallelism, str]:
    """Returns how vLLM divides a copy of the model over as few nodes as possible, and the shortfall of memory.

    If no number of nodes suffices, or settings or adapters need more nodes than the model does without them, the
    shortfall is not empty, and the division is the one that it describes.

    Raises:
        InvalidEngineOption: the parallel sizes are not possible on any number of nodes.
    """
    invalid: InvalidEngineOption | None = None
    last: tuple[Parallelism, str] | None = None
    for nodes in range(1, most_nodes + 1):
        try:
            divided = parallelism(preset, instance, engine, nodes=nodes)
        except InvalidEngineOption as error:
            invalid = invalid or error
            continue
        if nodes > 1 and not can_divide(preset, divided):
            break
        last = (divided, vllm_shortfall(preset, instance, engine, adapters, nodes=nodes))
        if not last[1] or _suffices(preset, instance, nodes):
            return last
    if last is None:
        raise invalid or AssertionError  # pragma: no branch -- one node is always tried
    return last


def _suffices(preset: Preset, instance: InstanceType, nodes: int) -> bool:
    """Whether the model fits on that many nodes without settings and adapters."""
    return not vllm_shortfall(preset, instance, DEFAULT_ENGINE, nodes=nodes)


def explain_nodes(preset: Preset, instance: InstanceType, engine: EngineSettings, divided: Parallelism) -> str:
    """Explains why a copy needs several nodes, and how it is divided over them."""
    needed, usable = memory_per_gpu(preset, instance, engine, 0, divided)
    per_node = divided.pipeline // divided.nodes
    shared = f"{divided.tensor} GPUs share each layer" if divided.tensor > 1 else "each GPU holds whole layers"
    stages = f"{divided.pipeline} pipeline stages" + (
        f", {per_node} on each node" if per_node > 1 else ", one per node"
    )
    return (
        f"a copy is divided over {divided.nodes} nodes with {divided.gpus} GPUs: {shared}, {stages}, about "
        f"{gib(needed)} of the {gib(usable)} usable on each GPU"
    )


def memory_per_gpu(
    preset: Preset, instance: InstanceType, engine: EngineSettings, adapters: int, divided: Parallelism
) -> tuple[float, float]:
    """Returns needed and usable bytes of each GPU, corrected with what servers of the model measured.

    A configuration that has run fits, as long as the requested context is within the measured cache: no plan is
    smaller than one that has run. What used more than its estimate raises the need for every division.
    """
    load = load_of(preset, engine, adapters)
    needed = vllm_need_per_gpu(preset, instance.gpu, tensor=divided.tensor, stages=divided.pipeline, load=load)
    usable = vllm_available_per_gpu(instance, engine.gpu_memory_utilization)
    measured = [each for each in preset.measured if each.is_for(instance)]
    have_run = [each for each in measured if _has_run(each, divided)]
    if have_run and all(each.fits_context(load.context) for each in have_run):
        return min(needed, usable), usable
    ranks = divided.tensor * divided.pipeline
    return needed + max((each.excess_over(ranks) for each in measured), default=0.0), usable


def explain_measured(preset: Preset, instance: InstanceType, divided: Parallelism) -> str:
    """Describes what servers measured on such GPUs; empty if nothing is known."""
    known = [each for each in preset.measured if each.is_for(instance)]
    same = [each for each in known if _has_run(each, divided)]
    if not known:
        return ""
    worst = max(same or known, key=lambda each: each.peak - each.estimate)
    text = f"{gib(worst.peak)} on each GPU beside the key-value cache, estimated {gib(worst.estimate)}"
    if same:
        return f"{text}; the cache held {min(each.cache_tokens for each in same)} tokens"
    return f"{text}, with other settings or another number of GPUs"


def _has_run(measured: MeasuredMemory, divided: Parallelism) -> bool:
    """Whether this configuration was measured: with this division, engine settings and adapters."""
    sizes = (measured.tensor, measured.pipeline, measured.data, measured.nodes)
    return measured.has_same_settings and sizes == (divided.tensor, divided.pipeline, divided.data, divided.nodes)


def vllm_shortfall(
    preset: Preset, instance: InstanceType, engine: EngineSettings, adapters: int = 0, *, nodes: int = 1
) -> str:
    """Describes needed and usable memory for one copy on that many nodes with vLLM; empty if the model fits.

    Raises:
        InvalidEngineOption: the parallel sizes are not possible on those nodes.
    """
    divided = parallelism(preset, instance, engine, nodes=nodes)
    needed, usable = memory_per_gpu(preset, instance, engine, adapters, divided)
    if needed <= usable:
        return ""
    ranks = divided.tensor * divided.pipeline
    subject = f"{instance} is" if nodes == 1 else f"{nodes} nodes of {instance} are"
    return (
        f"{subject} too small for {preset.name}: it takes about {gib(needed * ranks)}, {gib(usable * ranks)} are usable"
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
    preset: Preset,
    instance: InstanceType,
    runtime: RuntimeName,
    engine: EngineSettings,
    adapters: int,
    cloud: Cloud,
    *,
    nodes: int = 1,
) -> PlanError:
    """Returns the error for a model that does not fit: about a setting if the model would fit without it.

    Args:
        preset: the model.
        instance: the instance type.
        runtime: the runtime.
        engine: the user's settings.
        adapters: the number of adapters.
        cloud: the cloud of the instance type that the message proposes.
        nodes: the number of nodes of one copy on which it does not fit.
    """
    for option in _POSSIBLE_CAUSES if runtime == "vllm" else ():
        value: float | str | None = getattr(engine, option)
        if value is not None and _fits(preset, instance, runtime, replace(engine, **{option: None}), adapters, nodes):
            return _option_error(preset, instance, engine, option, adapters, cloud, nodes)
    shortfall = _shortfall(preset, instance, runtime, engine, adapters, nodes)
    if instance.profile:
        return InstanceTypeTooSmall(PROFILE_FIELD, f"{shortfall}: choose a larger profile, or remove {PARTITION_FIELD}")
    remedy = _larger(preset, runtime, engine, adapters, cloud)
    return InstanceTypeTooSmall(INSTANCE_FIELD, f"{shortfall}: {remedy}")


def _option_error(
    preset: Preset,
    instance: InstanceType,
    engine: EngineSettings,
    option: str,
    adapters: int,
    cloud: Cloud,
    nodes: int,
) -> PlanError:
    shortfall = vllm_shortfall(preset, instance, engine, adapters, nodes=nodes)
    value: float | str | None = getattr(engine, option)
    remedy = "remove it"
    if option == "max_model_len":
        most = _most_context(preset, instance, engine, adapters, nodes)
        larger = _larger(preset, "vllm", engine, adapters, cloud)
        remedy = f"use at most {most}, or {larger}" if most else larger
    field = option_field(option.replace("_", "-"))
    return InstanceTypeTooSmall(field, f"is {value}, and with it {shortfall}: {remedy}")


def _most_context(preset: Preset, instance: InstanceType, engine: EngineSettings, adapters: int, nodes: int) -> int:
    """Returns the longest context that fits, in multiples of a block; 0 if none fits."""
    low, high = 0, (engine.max_model_len or preset.context) // _BLOCK
    while low < high:
        middle = (low + high + 1) // 2
        wanted = replace(engine, max_model_len=middle * _BLOCK)
        if vllm_shortfall(preset, instance, wanted, adapters, nodes=nodes):
            high = middle - 1
        else:
            low = middle
    return low * _BLOCK


def _shortfall(
    preset: Preset, instance: InstanceType, runtime: RuntimeName, engine: EngineSettings, adapters: int, nodes: int
) -> str:
    if runtime == "transformers":
        return transformers_shortfall(preset, instance)
    return vllm_shortfall(preset, instance, engine, adapters, nodes=nodes)


def _fits(
    preset: Preset, instance: InstanceType, runtime: RuntimeName, engine: EngineSettings, adapters: int, nodes: int
) -> bool:
    try:
        choose_runtime(preset, instance, wanted=runtime)
        return not _shortfall(preset, instance, runtime, engine, adapters, nodes)
    except PlanError:
        return False


def _larger(preset: Preset, runtime: RuntimeName, engine: EngineSettings, adapters: int, cloud: Cloud) -> str:
    """Returns the remedy with the instance type that fits on as few nodes as possible, the smallest of those.

    If necessary, without the user's parallel sizes.
    """
    free = replace(engine, tensor_parallel_size=None, pipeline_parallel_size=None, data_parallel_size=None)
    options = (engine, free) if engine != DEFAULT_ENGINE else (DEFAULT_ENGINE,)
    most = MAX_NODES_PER_COPY if runtime == "vllm" else 1
    for count in range(1, most + 1):
        for wanted in options:
            for candidate in instance_types.current(cloud):
                if _fits(preset, candidate, runtime, wanted, adapters, count):
                    return f"choose a larger one, for example {candidate.name}"
    size = "one node" if most == 1 else f"{most} nodes"
    return f"no instance type of {cloud} is large enough for {size}: choose a smaller or quantized preset"
