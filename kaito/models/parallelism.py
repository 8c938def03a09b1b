"""Computes how vLLM divides a model over the GPUs of one node, unless the user configured it."""

from dataclasses import dataclass
from typing import final

from kaito.models.engine import DEFAULT_ENGINE, EngineSettings, cache_scale, option_field, sets_parallelism
from kaito.models.errors import InvalidEngineOption
from kaito.models.gpu import InstanceType
from kaito.models.preset import Architecture, Preset
from kaito.models.sizing import Load, vllm_available_per_gpu, vllm_need_per_gpu


@final
@dataclass(frozen=True, slots=True)
class Parallelism:
    """Division of a model over the GPUs of one node; the product of the sizes is the number of GPUs."""

    tensor: int = 1
    """GPUs that share each layer."""

    pipeline: int = 1
    """Groups of GPUs that each hold a part of the layers."""

    data: int = 1
    """Copies of the model."""

    @property
    def gpus(self) -> int:
        """Number of GPUs that are used."""
        return self.tensor * self.pipeline * self.data


def parallelism(preset: Preset, instance: InstanceType, engine: EngineSettings = DEFAULT_ENGINE) -> Parallelism:
    """Returns how vLLM uses the GPUs of a node.

    A model that fits into half of a GPU is copied to each GPU (as in upstream Kaito v0.12), if the requested context
    fits as well. Otherwise, tensor parallelism uses the largest number of GPUs that divides the attention heads, which
    vLLM requires, and the rest are pipeline stages. If the user sets one of the three sizes, the other data and
    pipeline sizes are vLLM's default of 1, and tensor parallelism uses as many of the remaining GPUs as the model
    allows.

    Raises:
        InvalidEngineOption: the sizes need more GPUs than the node has, or do not divide the model.
    """
    if sets_parallelism(engine):
        return _as_configured(preset, instance, engine)
    gpus, shape = instance.gpus, preset.architecture
    if gpus == 1 or shape is None:
        return Parallelism(tensor=gpus)
    if preset.weights_bytes * 2 < instance.memory_per_gpu and _fits_one_gpu(preset, instance, engine):
        return Parallelism(data=gpus)
    fitting = (t for t in range(gpus, 0, -1) if gpus % t == 0 and _divides(shape, t))
    tensor = next(fitting)
    return Parallelism(tensor=tensor, pipeline=gpus // tensor)


def load_of(preset: Preset, engine: EngineSettings, adapters: int = 0) -> Load:
    """Returns what must fit in memory beside the weights: the user's context or the default, sequences and adapters."""
    default = Load()
    dtype = engine.kv_cache_dtype or (str(preset.vllm.flags.get("kv-cache-dtype", "")) if preset.vllm else "")
    return Load(
        context=engine.max_model_len or min(default.context, preset.context or default.context),
        cache_scale=cache_scale(dtype),
        sequences=engine.max_num_seqs or default.sequences,
        adapters=adapters,
    )


def _fits_one_gpu(preset: Preset, instance: InstanceType, engine: EngineSettings) -> bool:
    needed = vllm_need_per_gpu(preset, instance.gpu, tensor=1, load=load_of(preset, engine))
    return needed <= vllm_available_per_gpu(instance, engine.gpu_memory_utilization)


def _as_configured(preset: Preset, instance: InstanceType, engine: EngineSettings) -> Parallelism:
    stages, copies, shape = engine.pipeline_parallel_size or 1, engine.data_parallel_size or 1, preset.architecture
    sizes = {
        "tensor-parallel-size": engine.tensor_parallel_size or _widest(shape, instance.gpus // (stages * copies)),
        "pipeline-parallel-size": stages,
        "data-parallel-size": copies,
    }
    found = Parallelism(*sizes.values())
    if found.gpus > instance.gpus:
        name = max(sizes, key=lambda name: sizes[name])
        others = " and ".join(f"{other} {size}" for other, size in sizes.items() if other != name and size > 1)
        total = f" and needs {found.gpus} GPUs with {others}" if others else ""
        have = f"{instance} has {instance.gpus} GPU{'s' if instance.gpus > 1 else ''}"
        raise InvalidEngineOption(
            option_field(name),
            f"is {sizes[name]}{total}, {have}: use sizes whose product is at most {instance.gpus}, or a larger node",
        )
    if shape is None:
        return found
    if not _divides(shape, found.tensor):
        possible = [str(t) for t in range(1, instance.gpus + 1) if _divides(shape, t)]
        raise InvalidEngineOption(
            option_field("tensor-parallel-size"),
            f"is {found.tensor}, which does not divide the {shape.heads} attention heads and {shape.kv_heads} "
            f"key-value heads of {preset.name}: use {' or '.join(possible)}",
        )
    if found.pipeline > shape.layers:
        raise InvalidEngineOption(
            option_field("pipeline-parallel-size"),
            f"is {found.pipeline}, {preset.name} has {shape.layers} layers: use at most {shape.layers}",
        )
    return found


def _widest(shape: Architecture | None, gpus: int) -> int:
    """Returns the largest number of ranks, up to `gpus`, that vLLM can divide the layers over; at least 1."""
    return next((t for t in range(gpus, 0, -1) if shape is None or _divides(shape, t)), 1)


def _divides(shape: Architecture, ranks: int) -> bool:
    """Whether vLLM can use that many ranks: it divides heads evenly, and divides or copies key-value heads evenly."""
    return shape.heads % ranks == 0 and (shape.kv_heads % ranks == 0 or ranks % shape.kv_heads == 0)
