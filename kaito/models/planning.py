"""The plan of a workload: which runtime, how many nodes and GPUs, how much disk, how long it may take.

Called by the webhook (to refuse what cannot run) and by the controller (to run it), with the same answer.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import final

from kaito.models import instance_types
from kaito.models.catalogue import presets
from kaito.models.errors import InstanceTypeTooSmall, PlanError, TuningUnsupported
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, Cloud
from kaito.models.preset import Preset, RuntimeName
from kaito.models.runtime import check_gpu, choose_runtime, dtype_on
from kaito.models.sizing import (
    DEFAULT_CONTEXT,
    TRANSFORMERS_UTILISATION,
    gib,
    transformers_need,
    tuning_need,
    vllm_available_per_gpu,
    vllm_need_per_gpu,
)
from kaito.runtime.meta import Quantity


@final
@dataclass(frozen=True, slots=True)
class Parallelism:
    """How vLLM divides a model over the GPUs of one node; the product is the number of GPUs."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InferencePlan:
    """How a preset is served."""

    preset: Preset
    instance: InstanceType
    runtime: RuntimeName
    dtype: str
    """Number format of the weights, as PyTorch and vLLM name it."""

    nodes: int
    """Nodes; each holds the whole model and answers on its own."""

    parallelism: Parallelism
    disk: Quantity
    """Operating system disk of each node."""

    readiness_timeout: timedelta
    """How long the server may take until it answers."""

    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of each node; a workload takes them all."""
        return self.instance.gpus

    @property
    def resource_name(self) -> str:
        """Extended resource that the pods request."""
        return self.instance.gpu.resource_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """How a preset is tuned. One node."""

    preset: Preset
    instance: InstanceType
    method: str
    """`lora` or `qlora`."""

    disk: Quantity
    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of the node."""
        return self.instance.gpus

    @property
    def resource_name(self) -> str:
        """Extended resource that the pod requests."""
        return self.instance.gpu.resource_name


def plan_inference(
    preset: Preset,
    instance: InstanceType,
    *,
    nodes: int = 1,
    runtime: RuntimeName | None = None,
    adapters: bool = False,
    context: int = DEFAULT_CONTEXT,
    cloud: Cloud = "azure",
    bypass_size: bool = False,
) -> InferencePlan:
    """Plan to serve a preset on `nodes` nodes of a type.

    Args:
        preset: the model.
        instance: from the table, or made from the labels of an existing node.
        nodes: what the user asked for; each node serves the whole model.
        runtime: what the user asked for; None chooses.
        adapters: whether LoRA adapters are served as well.
        context: tokens of key-value cache that must fit.
        cloud: where a larger instance type is looked for, for the message.
        bypass_size: a model that does not fit becomes a warning.

    Raises:
        PlanError: it cannot be served so; see `kaito.models.errors`.
    """
    chosen = choose_runtime(preset, instance, wanted=runtime, adapters=adapters)
    warnings: tuple[str, ...] = ()
    shortfall = _shortfall(preset, instance, chosen, context)
    if shortfall:
        if not bypass_size:
            remedy = _larger(preset, chosen, context, cloud)
            raise InstanceTypeTooSmall(INSTANCE_FIELD, f"{shortfall}: {remedy}")
        warnings = (f"{INSTANCE_FIELD}: {shortfall}",)
    return InferencePlan(
        preset=preset,
        instance=instance,
        runtime=chosen,
        dtype=dtype_on(preset, instance),
        nodes=max(nodes, 1),
        parallelism=parallelism(preset, instance) if chosen == "vllm" else Parallelism(),
        disk=preset.disk,
        readiness_timeout=preset.readiness_timeout,
        warnings=warnings,
    )


def plan_tuning(preset: Preset, instance: InstanceType, *, method: str) -> TuningPlan:
    """Plan to tune a preset on one node of a type.

    Too little memory is a warning only: what tuning takes depends on batch and sequence length, which are in the
    training configuration.

    Raises:
        TuningUnsupported: the preset cannot be tuned.
        NoGpu: the images cannot use that GPU.
    """
    if preset.tuning is None:
        raise TuningUnsupported("tuning.preset.name", f"{preset.name} cannot be tuned: choose one of {_tunable()}")
    check_gpu(instance)
    needed, available = tuning_need(preset, method), instance.gpu_memory * TRANSFORMERS_UTILISATION
    warnings: tuple[str, ...] = ()
    if needed > available:
        hint = "use a larger instance type" if method.lower() == "qlora" else "use a larger instance type, or qlora"
        need = f"{method.lower()} on {preset.name} takes about {gib(needed)}"
        warnings = (f"{INSTANCE_FIELD}: {need}, {instance} has {gib(available)} usable: {hint}",)
    return TuningPlan(
        preset=preset, instance=instance, method=method.lower(), disk=preset.tuning.disk, warnings=warnings
    )


def parallelism(preset: Preset, instance: InstanceType) -> Parallelism:
    """How vLLM uses all GPUs of a node.

    A model that fits into half a GPU is copied to each (upstream Kaito v0.12). Otherwise tensor parallelism over the
    largest number of GPUs that divides the attention heads, as vLLM demands, and pipeline stages for the rest.
    """
    gpus, shape = instance.gpus, preset.architecture
    if gpus == 1 or shape is None:
        return Parallelism(tensor=gpus)
    if preset.weights_bytes * 2 < instance.memory_per_gpu:
        return Parallelism(data=gpus)
    fitting = (t for t in range(gpus, 0, -1) if gpus % t == 0 and _divides(shape.heads, shape.kv_heads, t))
    tensor = next(fitting)
    return Parallelism(tensor=tensor, pipeline=gpus // tensor)


def _divides(heads: int, kv_heads: int, ranks: int) -> bool:
    """vLLM: heads are divided evenly; key-value heads are divided evenly, or copied evenly when there are fewer."""
    return heads % ranks == 0 and (kv_heads % ranks == 0 or ranks % kv_heads == 0)


def _shortfall(preset: Preset, instance: InstanceType, runtime: RuntimeName, context: int) -> str:
    """What is missing on one node, with both numbers; empty when the model fits."""
    if runtime == "transformers":
        return _transformers_shortfall(preset, instance, context)
    needed, usable = vllm_need_per_gpu(preset, gpus=instance.gpus, context=context), vllm_available_per_gpu(instance)
    if needed <= usable:
        return ""
    return (
        f"{instance} is too small for {preset.name}: it takes about {gib(needed * instance.gpus)}, "
        f"{gib(usable * instance.gpus)} are usable"
    )


def _transformers_shortfall(preset: Preset, instance: InstanceType, context: int) -> str:
    """By the requirement found by trying, where the catalogue has one, else by the estimate."""
    declared = preset.requirement
    if declared is None:
        needed, usable = (
            transformers_need(preset, instance.gpus, context=context),
            instance.gpu_memory * TRANSFORMERS_UTILISATION,
        )
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


def _larger(preset: Preset, runtime: RuntimeName, context: int, cloud: Cloud) -> str:
    """The smallest current instance type that would do, in words."""
    for candidate in sorted(instance_types.instance_types(cloud), key=lambda i: (i.gpu_memory, i.gpus)):
        if candidate.legacy or candidate.gpu.vendor != "nvidia":
            continue
        try:
            choose_runtime(preset, candidate, wanted=runtime)
        except PlanError:
            continue
        if not _shortfall(preset, candidate, runtime, context):
            return f"choose a larger one, for example {candidate.name}"
    return f"no single node of {cloud} holds it, and a model runs on one node: choose a smaller or quantised preset"


def _tunable() -> str:
    return ", ".join(sorted(preset.name for preset in presets() if preset.tuning))
