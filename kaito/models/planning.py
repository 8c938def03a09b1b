"""Plans a workload: runtime, nodes, GPUs, disk and timeouts.

The webhook and the controller use the same plan, so that the webhook rejects exactly what the controller could not run.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from kaito.models.catalog import presets
from kaito.models.copies import nodes_of
from kaito.models.engine import CONFIG_FIELD, DEFAULT_ENGINE, EngineSettings, check_engine
from kaito.models.errors import TuningUnsupported
from kaito.models.fitting import (
    check_context,
    check_share,
    divide,
    engine_warnings,
    explain_measured,
    explain_nodes,
    shortfall_error,
    transformers_shortfall,
)
from kaito.models.gpu import GIB, InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, Cloud
from kaito.models.parallelism import MAX_NODES_PER_COPY, Parallelism, parallelism
from kaito.models.preset import Preset, RuntimeName
from kaito.models.runtime import check_gpu, choose_runtime, dtype_on, runtime_warnings
from kaito.models.sizing import TRANSFORMERS_UTILIZATION, gib, tuning_need
from kaito.runtime.meta import Quantity

__all__ = ["InferencePlan", "Parallelism", "TuningPlan", "parallelism", "plan_inference", "plan_tuning"]


JOIN_TIME: Final = timedelta(minutes=2)
"""Additional time to load for each further node of a copy: the nodes pull their images and weights at different speeds,
and all of them must have joined before the engine starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetPlan:
    """What plans for inference and tuning have in common."""

    preset: Preset
    instance: InstanceType
    disk: Quantity
    """Size of each node's operating system disk."""

    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of each node; the workload uses all of them."""
        return self.instance.gpus

    @property
    def resource_name(self) -> str:
        """Extended resource that the pods request."""
        return self.instance.resource_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InferencePlan(PresetPlan):
    """How a preset is served."""

    runtime: RuntimeName
    dtype: str
    """Number format of the weights, as PyTorch and vLLM name it."""

    copies: int
    """Number of copies of the model."""

    parallelism: Parallelism
    """How a copy is divided over its nodes and their GPUs."""

    engine: EngineSettings = DEFAULT_ENGINE
    """Engine settings of the user's configuration; the default for the transformers runtime."""

    readiness_timeout: timedelta
    """Time limit for loading the model."""

    explanation: str = ""
    """Why a copy needs several nodes, and how it is divided over them, or how copies share a node; empty if each copy
    has a node."""

    measured: str = ""
    """What servers of the model measured on such GPUs; empty if nothing is known."""

    @property
    def nodes_per_copy(self) -> int:
        """Number of nodes that serve one copy of the model together."""
        return self.parallelism.nodes

    @property
    def copies_per_node(self) -> int:
        """Number of copies that share a node; more than 1 only if its GPUs are divided."""
        return self.instance.slices

    @property
    def nodes(self) -> int:
        """Number of nodes of all copies."""
        return nodes_of(self.copies, self.nodes_per_copy, self.copies_per_node)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan(PresetPlan):
    """How a preset is tuned, on one node."""

    method: str
    """`lora` or `qlora`."""


def plan_inference(
    preset: Preset,
    instance: InstanceType,
    *,
    copies: int = 1,
    runtime: RuntimeName | None = None,
    adapters: int = 0,
    engine: EngineSettings = DEFAULT_ENGINE,
    cloud: Cloud = "azure",
    bypass_size: bool = False,
) -> InferencePlan:
    """Plans to serve a preset on nodes of an instance type, each copy on as few nodes as possible.

    Args:
        preset: the model.
        instance: from the table, or from the labels of an existing node.
        copies: the number of copies of the model.
        runtime: the runtime that the user requests; by default it is chosen.
        adapters: the number of LoRA adapters.
        engine: engine settings of the user's configuration; only vLLM uses them.
        cloud: the cloud of a larger instance type in the message.
        bypass_size: whether a model that does not fit on one node is a warning; no nodes are added then.

    Raises:
        PlanError: the preset cannot be served with these settings; see `kaito.models.errors`.
    """
    check_engine(engine)
    chosen = choose_runtime(preset, instance, wanted=runtime, adapters=bool(adapters))
    warnings = list(runtime_warnings(preset, instance))
    if chosen == "transformers":
        options, divided = DEFAULT_ENGINE, Parallelism()
        if engine != DEFAULT_ENGINE:
            warnings.append(f"{CONFIG_FIELD}: the vllm section has no effect: {preset.name} runs on transformers here")
        shortfall = transformers_shortfall(preset, instance)
    else:
        options = engine
        check_context(preset, engine)
        check_share(instance, engine)
        one_node = instance.is_part or instance.legacy or (bypass_size and not engine.pipeline_parallel_size)
        most = 1 if one_node else MAX_NODES_PER_COPY
        divided, shortfall = divide(preset, instance, engine, adapters, most_nodes=most)
        warnings += engine_warnings(instance, engine, divided)
    if shortfall:
        if not bypass_size:
            raise shortfall_error(preset, instance, chosen, options, adapters, cloud, nodes=divided.nodes)
        warnings.append(f"{INSTANCE_FIELD}: {shortfall}")
    return InferencePlan(
        preset=preset,
        instance=instance,
        runtime=chosen,
        dtype=dtype_on(preset, instance),
        copies=max(copies, 1),
        parallelism=divided,
        engine=options,
        disk=preset.disk_of(instance.slices),
        readiness_timeout=preset.readiness_timeout + (divided.nodes - 1) * JOIN_TIME,
        explanation=_explain(preset, instance, options, divided),
        measured=explain_measured(preset, instance, divided) if chosen == "vllm" else "",
        warnings=tuple(warnings),
    )


def _explain(preset: Preset, instance: InstanceType, engine: EngineSettings, divided: Parallelism) -> str:
    if divided.nodes > 1:
        return explain_nodes(preset, instance, engine, divided)
    if instance.profile:
        return f"each copy uses a slice of {instance.memory_per_gpu / GIB:g} GiB, of which a node has {instance.slices}"
    return ""


def plan_tuning(preset: Preset, instance: InstanceType, *, method: str) -> TuningPlan:
    """Plans to tune a preset on one node of an instance type.

    Too little memory is only a warning: the memory depends on batch size and sequence length, which are in the training
    configuration.

    Raises:
        TuningUnsupported: the preset cannot be tuned.
        NoGpu: the images do not support the GPU.
    """
    if preset.tuning is None:
        raise TuningUnsupported("tuning.preset.name", f"{preset.name} cannot be tuned: choose one of {_tunable()}")
    check_gpu(instance)
    needed, available = tuning_need(preset, method), instance.gpu_memory * TRANSFORMERS_UTILIZATION
    warnings: tuple[str, ...] = ()
    if needed > available:
        hint = "use a larger instance type" if method.lower() == "qlora" else "use a larger instance type, or qlora"
        need = f"{method.lower()} on {preset.name} needs about {gib(needed)}"
        warnings = (f"{INSTANCE_FIELD}: {need}, {instance} has {gib(available)} usable: {hint}",)
    return TuningPlan(
        preset=preset, instance=instance, method=method.lower(), disk=preset.tuning.disk, warnings=warnings
    )


def _tunable() -> str:
    return ", ".join(sorted(preset.name for preset in presets() if preset.tuning))
