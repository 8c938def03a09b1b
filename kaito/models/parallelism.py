"""Computes how vLLM divides one copy of a model over the GPUs of one or several nodes, unless the user configured it.

Over several nodes, the GPUs of a node share each layer (tensor parallel), and every node holds a part of the layers
(pipeline parallel). This is what vLLM recommends for nodes without a fast interconnect: tensor parallelism exchanges
data twice per layer, a pipeline once per node.
"""

from dataclasses import dataclass
from typing import Final, final

from kaito.models.engine import DEFAULT_ENGINE, EngineSettings, cache_scale, option_field, sets_parallelism
from kaito.models.errors import InvalidEngineOption
from kaito.models.gpu import InstanceType
from kaito.models.preset import Architecture, Preset
from kaito.models.sizing import Load, vllm_available_per_gpu, vllm_need_per_gpu

MAX_NODES_PER_COPY: Final = 16
"""Most nodes that one copy of a model is divided over. Each node adds a hop to every token."""


@final
@dataclass(frozen=True, slots=True)
class Parallelism:
    """Division of a model over GPUs; the product of the three sizes is the number of GPUs."""

    tensor: int = 1
    """GPUs that share each layer."""

    pipeline: int = 1
    """Groups of GPUs that each hold a part of the layers."""

    data: int = 1
    """Copies of the model on one node."""

    nodes: int = 1
    """Nodes that one copy of the model is divided over; each has the same number of pipeline stages."""

    @property
    def gpus(self) -> int:
        """Number of GPUs that are used, over all nodes."""
        return self.tensor * self.pipeline * self.data

    @property
    def gpus_per_node(self) -> int:
        """Number of GPUs that are used on each node."""
        return self.gpus // self.nodes


def parallelism(
    preset: Preset, instance: InstanceType, engine: EngineSettings = DEFAULT_ENGINE, *, nodes: int = 1
) -> Parallelism:
    """Returns how vLLM uses the GPUs of the nodes that serve one copy of a model.

    A model that fits into half of a GPU is copied to each GPU (as in upstream Kaito v0.12), if the requested context
    fits as well. Otherwise, tensor parallelism uses the largest number of GPUs that divides the attention heads, which
    vLLM requires, and the rest are pipeline stages. If the user sets one of the three sizes, the other data and
    pipeline sizes are vLLM's default of 1, and tensor parallelism uses as many of the remaining GPUs as the model
    allows. Over several nodes, the default of the pipeline is one stage per node.

    Raises:
        InvalidEngineOption: the sizes need more GPUs than the nodes have, or do not divide the model.
    """
    if sets_parallelism(engine):
        return _as_configured(preset, instance, engine, nodes)
    gpus, shape = instance.gpus, preset.architecture
    if gpus == 1 or shape is None:
        return Parallelism(tensor=gpus, pipeline=nodes, nodes=nodes)
    if nodes == 1 and preset.weights_bytes * 2 < instance.memory_per_gpu and _fits_one_gpu(preset, instance, engine):
        return Parallelism(data=gpus)
    fitting = (t for t in range(gpus, 0, -1) if gpus % t == 0 and _divides(shape, t))
    tensor = next(fitting)
    return Parallelism(tensor=tensor, pipeline=gpus // tensor * nodes, nodes=nodes)


def can_divide(preset: Preset, divided: Parallelism) -> bool:
    """Whether every pipeline stage has a layer."""
    return preset.architecture is None or divided.pipeline <= preset.architecture.layers


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


def _as_configured(preset: Preset, instance: InstanceType, engine: EngineSettings, nodes: int) -> Parallelism:
    stages, copies, shape = engine.pipeline_parallel_size or nodes, engine.data_parallel_size or 1, preset.architecture
    stages_per_node = max(stages // nodes, 1)
    sizes = {
        "tensor-parallel-size": engine.tensor_parallel_size
        or _widest(shape, instance.gpus // (stages_per_node * copies)),
        "pipeline-parallel-size": stages,
        "data-parallel-size": copies,
    }
    found = Parallelism(tensor=sizes["tensor-parallel-size"], pipeline=stages, data=copies, nodes=nodes)
    if nodes > 1 and (copies > 1 or stages % nodes):
        name = "data-parallel-size" if copies > 1 else "pipeline-parallel-size"
        remedy = "remove it" if copies > 1 else f"use a multiple of {nodes}"
        message = f"is {sizes[name]}, and {preset.name} needs {nodes} nodes of {instance.name}: {remedy}"
        raise InvalidEngineOption(option_field(name), message)
    if found.gpus > instance.gpus * nodes:
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
