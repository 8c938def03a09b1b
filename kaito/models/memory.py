"""Divides the memory of a GPU into what a planned model uses it for, for tools that explain a plan.

The parts are differences of the functions of `sizing` that decide whether a model fits, so that they agree with the
decision. They are estimates also if servers of the model measured something else (`fitting.memory_per_gpu`).
"""

from dataclasses import dataclass, replace
from typing import final

from kaito.models.parallelism import load_of
from kaito.models.planning import InferencePlan, TuningPlan
from kaito.models.sizing import (
    DEFAULT_CONTEXT,
    TRANSFORMERS_OVERHEAD,
    TRANSFORMERS_UTILIZATION,
    TUNING_OVERHEAD,
    overhead,
    transformers_need,
    tuning_need,
    vllm_available_per_gpu,
    vllm_need_per_gpu,
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """Memory of one GPU in bytes. The parts are estimates; a part that does not apply is 0."""

    total: float
    """Memory of the GPU."""
    usable: float
    """Part of it that the program may use."""
    weights: float = 0.0
    adapters: float = 0.0
    state: float = 0.0
    """Recurrent state of concurrent requests, for hybrid models."""
    cache: float = 0.0
    """Key-value cache of `context` tokens, which must fit."""
    overhead: float = 0.0
    """Memory of the programs: CUDA contexts, graphs and activations. With tuning also adapter and optimizer."""
    context: int = 0
    """Tokens of the key-value cache that must fit; 0 for tuning."""

    @property
    def needed(self) -> float:
        """Sum of the parts."""
        return self.weights + self.adapters + self.state + self.cache + self.overhead

    @property
    def free(self) -> float:
        """Usable memory beyond the parts; negative if the model does not fit. vLLM uses it for further cache."""
        return self.usable - self.needed


def gpu_memory(plan: InferencePlan | TuningPlan, *, adapters: int = 0) -> GpuMemory:
    """Returns the memory of each GPU that the workload uses."""
    if isinstance(plan, TuningPlan):
        return _tuning(plan)
    if plan.runtime == "vllm":
        return _vllm(plan, adapters)
    return _transformers(plan)


def _vllm(plan: InferencePlan, adapters: int) -> GpuMemory:
    load = load_of(plan.preset, plan.engine, adapters)
    tensor, stages = plan.parallelism.tensor, plan.parallelism.pipeline

    def need(**change: int) -> float:
        changed = replace(load, **change)
        return vllm_need_per_gpu(plan.preset, plan.instance.gpu, tensor=tensor, stages=stages, load=changed)

    everything, base = need(), overhead(plan.instance.gpu)
    return GpuMemory(
        total=plan.instance.memory_per_gpu,
        usable=vllm_available_per_gpu(plan.instance, plan.engine.gpu_memory_utilization),
        weights=need(context=0, sequences=0, adapters=0) - base,
        adapters=everything - need(adapters=0),
        state=everything - need(sequences=0),
        cache=everything - need(context=0),
        overhead=base,
        context=load.context,
    )


def _transformers(plan: InferencePlan) -> GpuMemory:
    """Returns the parts for the transformers server, which puts a part of the layers on each GPU."""
    preset, gpus = plan.preset, plan.instance.gpus
    context = min(DEFAULT_CONTEXT, preset.context or DEFAULT_CONTEXT)
    without_cache = transformers_need(preset, gpus, context=0)
    return GpuMemory(
        total=plan.instance.memory_per_gpu,
        usable=plan.instance.memory_per_gpu * TRANSFORMERS_UTILIZATION,
        weights=without_cache / gpus - TRANSFORMERS_OVERHEAD,
        cache=(transformers_need(preset, gpus, context=context) - without_cache) / gpus,
        overhead=TRANSFORMERS_OVERHEAD,
        context=context,
    )


def _tuning(plan: TuningPlan) -> GpuMemory:
    gpus = plan.instance.gpus
    return GpuMemory(
        total=plan.instance.memory_per_gpu,
        usable=plan.instance.memory_per_gpu * TRANSFORMERS_UTILIZATION,
        weights=(tuning_need(plan.preset, plan.method) - TUNING_OVERHEAD) / gpus,
        overhead=TUNING_OVERHEAD / gpus,
    )
