"""Numbers of sizing and parallelism at their boundaries, on models and nodes made up for the purpose."""

import math
from typing import Any

import pytest

from kaito.api import labels
from kaito.api.violation import Violation
from kaito.models import catalog, errors
from kaito.models.engine import DEFAULT_ENGINE, EngineSettings
from kaito.models.gpu import GIB, Gpu, InstanceType, Vendor
from kaito.models.nodes import MixedGpus, UnknownGpus, instance_type_of, uniform_instance_type
from kaito.models.parallelism import Parallelism, load_of, parallelism
from kaito.models.preset import Architecture, Preset
from kaito.models.sizing import Load, max_sequences, vllm_need_per_gpu
from kaito.runtime.meta import Quantity

MIB = 2**20
SHAPE: dict[str, Any] = {"class": "X", "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "attention": "GQA"}


def preset(weights: str = "10Gi", **shape: Any) -> Preset:
    architecture = Architecture.model_validate(SHAPE | shape)
    return catalog.get("phi-4").model_copy(update={"weights": Quantity(weights), "architecture": architecture})


def node(gpus: int = 1, gib: int = 80, name: str = "NVIDIA H100") -> InstanceType:
    return InstanceType("size", Gpu(name, "nvidia", 9.0), gpus, gib * GIB)


def hybrid(state_mib: int, *, state_layers: int = 24, full_layers: int = 8) -> Preset:
    return preset(state_layers=state_layers, full_layers=full_layers, state_bytes_per_layer=state_mib * MIB)


# One GPU of 80 GiB offers 73.6 GiB; weights of 10 GiB and their overheads take 13.01 GiB, which leaves 60.59 GiB.
SEQUENCES = [
    (hybrid(64), node(), 109),  # 0.9 x 60.59 GiB / (64 MiB x 8 layers)
    (hybrid(64), node(name="NVIDIA A100"), 109),
    (hybrid(24), node(), 290),
    (hybrid(24), node(name="NVIDIA A100"), None),  # vLLM's default there is 256
    (hybrid(24), node(gib=70), 246),
    (hybrid(6), node(), None),  # 1163, above the default of 1024
    (hybrid(64, state_layers=12), node(), 109),  # 12 is not below 1.5 x 8
    (hybrid(64, state_layers=11), node(), 79),  # 11 is, so groups have 11 layers
    (hybrid(64, state_layers=8, full_layers=24), node(), 109),
    (hybrid(60000), node(), 1),
    (preset(), node(), None),
]


@pytest.mark.parametrize(("model", "instance", "expected"), SEQUENCES, ids=[str(i) for i in range(len(SEQUENCES))])
def test_concurrent_requests_are_capped_where_the_state_does_not_fit(
    model: Preset, instance: InstanceType, expected: int | None
) -> None:
    assert max_sequences(model, instance, tensor=1, stages=1) == expected


def test_the_state_is_divided_over_tensor_ranks_and_stages_are_left_to_vllm() -> None:
    assert max_sequences(hybrid(64), node(2), tensor=2, stages=1) == 237
    assert max_sequences(hybrid(64), node(2), tensor=1, stages=2) is None
    assert max_sequences(hybrid(64), node(), tensor=1, stages=1, share=0.5) == 48


@pytest.mark.parametrize(
    ("adapters", "gib"),
    [(0, 0.0), (1, 14.7e9 * 2 * 20 * 16 / 13 / 4096 / GIB), (3, 3 * 14.7e9 * 2 * 20 * 16 / 13 / 4096 / GIB)],
)
def test_an_adapter_of_rank_16_takes_20_of_13_ranks_of_a_layer(adapters: int, gib: float) -> None:
    gpu = node().gpu
    without, with_adapters = (vllm_need_per_gpu(preset(), gpu, tensor=1, load=Load(adapters=n)) for n in (0, adapters))
    assert math.isclose((with_adapters - without) / GIB, gib, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("shape", "gpus", "expected"),
    [
        ({"heads": 32, "kv_heads": 2}, 8, Parallelism(tensor=8)),  # key-value heads are copied evenly
        ({"heads": 32, "kv_heads": 3}, 8, Parallelism(tensor=1, pipeline=8)),
        ({"heads": 40, "kv_heads": 10}, 4, Parallelism(tensor=2, pipeline=2)),
        ({"heads": 28, "kv_heads": 4}, 8, Parallelism(tensor=4, pipeline=2)),
        ({"heads": 32, "kv_heads": 8}, 6, Parallelism(tensor=2, pipeline=3)),
    ],
)
def test_heads_are_divided_evenly(shape: dict[str, int], gpus: int, expected: Parallelism) -> None:
    assert parallelism(preset("60Gi", **shape), node(gpus)) == expected


def test_a_model_of_unknown_shape_takes_every_gpu_of_the_node() -> None:
    unknown = preset().model_copy(update={"architecture": None})
    assert parallelism(unknown, node(4)) == Parallelism(tensor=4)
    assert parallelism(unknown, node(4), EngineSettings(data_parallel_size=2)) == Parallelism(tensor=2, data=2)
    assert parallelism(unknown, node(8), EngineSettings(pipeline_parallel_size=3)) == Parallelism(tensor=2, pipeline=3)


@pytest.mark.parametrize(
    ("name", "engine", "scale"),
    [
        ("phi-4", DEFAULT_ENGINE, 1.0),
        ("glm-5.2-fp8", DEFAULT_ENGINE, 0.5),
        ("glm-5.2-fp8", EngineSettings(kv_cache_dtype="float32"), 2.0),
        ("phi-4", EngineSettings(kv_cache_dtype="fp8"), 0.5),
    ],
)
def test_the_cache_has_the_format_of_the_user_or_of_the_preset(name: str, engine: EngineSettings, scale: float) -> None:
    assert load_of(catalog.get(name), engine).cache_scale == scale


@pytest.mark.parametrize(
    ("context", "wanted", "expected"), [(131072, None, 2048), (1024, None, 1024), (0, None, 2048), (131072, 9, 9)]
)
def test_the_context_is_the_user_s_or_the_default(context: int, wanted: int | None, expected: int) -> None:
    model = preset().model_copy(update={"context": context})
    found = load_of(model, EngineSettings(max_model_len=wanted, max_num_seqs=3), adapters=2)
    assert (found.context, found.sequences, found.adapters) == (expected, 3, 2)
    assert load_of(model, DEFAULT_ENGINE).sequences == 16


def test_only_a_hybrid_model_has_a_state() -> None:
    assert hybrid(64).state_bytes == 24 * 64 * MIB
    assert preset().state_bytes == 0
    assert preset().model_copy(update={"architecture": None}).state_bytes == 0


# ── existing nodes ───────────────────────────────────────────────────────────────────────────────────────────────────

GPU_LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    "nvidia.com/gpu.count": "2",
    "nvidia.com/gpu.memory": "81920",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (2, 80)),
        ({"nvidia.com/gpu.count": "1024"}, (1024, 80)),
        ({"nvidia.com/gpu.count": "1025"}, None),
        ({"nvidia.com/gpu.count": "0"}, None),
        ({"nvidia.com/gpu.count": ""}, None),
        ({"nvidia.com/gpu.count": "two"}, None),
        ({"nvidia.com/gpu.memory": "0"}, None),
        ({"nvidia.com/gpu.memory": ""}, None),
        ({"nvidia.com/gpu.memory": "1" * 10}, None),
        ({"nvidia.com/gpu.product": ""}, None),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"}, (1, 80)),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-SHARED"}, None),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-SHARED", "nvidia.com/gpu.replicas": "0"}, None),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-SHARED", "nvidia.com/gpu.replicas": "1"}, (1, 80)),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-SHARED", "nvidia.com/gpu.replicas": "4"}, (1, 20)),
        ({"nvidia.com/gpu.replicas": "4"}, (2, 80)),
    ],
)
def test_gpus_are_read_from_the_labels_of_feature_discovery(
    change: dict[str, str], expected: tuple[int, int] | None
) -> None:
    found = instance_type_of(GPU_LABELS | change)
    assert (None if found is None else (found.gpus, found.memory_per_gpu // GIB)) == expected


def test_a_node_is_called_by_its_instance_type_or_its_product() -> None:
    unnamed = instance_type_of(GPU_LABELS)
    named = instance_type_of(GPU_LABELS | {labels.INSTANCE_TYPE: "my-size"})
    assert unnamed is not None
    assert named is not None
    assert (unnamed.name, named.name) == ("NVIDIA-A100-SXM4-80GB", "my-size")
    assert unnamed.gpu == Gpu("NVIDIA A100", "nvidia", 8.0)


@pytest.mark.parametrize(
    ("major", "minor", "capability"),
    [("9", "0", 9.0), ("8", "6", 8.6), ("8", "", 8.0), ("", "6", 8.0), ("0", "6", 8.0)],
)
def test_labels_of_the_capability_win_over_the_table(major: str, minor: str, capability: float) -> None:
    found = instance_type_of(GPU_LABELS | {labels.CUDA_MAJOR: major, labels.CUDA_MINOR: minor})
    assert found is not None
    assert found.gpu.compute_capability == capability


def test_nodes_without_gpu_labels_are_named_with_the_labels_they_lack() -> None:
    with pytest.raises(UnknownGpus) as caught:
        uniform_instance_type({f"n{index}": {} for index in range(7)})
    assert caught.value.field == "resource.labelSelector"
    assert caught.value.reason == "UnknownInstanceType"
    assert caught.value.message == (
        "cannot determine the GPUs of nodes n0, n1, n2, n3, n4 and 2 more: install GPU feature discovery, or set the "
        "node labels nvidia.com/gpu.product, nvidia.com/gpu.count and nvidia.com/gpu.memory"
    )


def test_nodes_with_different_gpus_are_listed_by_product() -> None:
    with pytest.raises(MixedGpus) as caught:
        uniform_instance_type({"b": GPU_LABELS, "a": GPU_LABELS | {"nvidia.com/gpu.product": "Tesla-T4"}})
    assert caught.value.message == (
        "matches nodes with different GPUs: NVIDIA-A100-SXM4-80GB on b; Tesla-T4 on a: narrow the selector to one "
        "product, for example with the node label nvidia.com/gpu.product"
    )


def test_the_plan_is_for_the_least_of_every_node() -> None:
    found = uniform_instance_type(
        {
            "a": GPU_LABELS | {"nvidia.com/gpu.count": "4", "nvidia.com/gpu.memory": "40960"},
            "b": GPU_LABELS | {labels.CUDA_MAJOR: "7", labels.CUDA_MINOR: "5"},
            "c": {},
        }
    )
    assert found is not None
    assert (found.gpus, found.memory_per_gpu // GIB, found.gpu.compute_capability) == (2, 40, 7.5)
    assert uniform_instance_type({}) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.PlanError, "InvalidSpec"),
        (errors.UnknownPreset, "UnknownPreset"),
        (errors.TuningUnsupported, "UnknownPreset"),
        (errors.UnknownInstanceType, "UnknownInstanceType"),
        (errors.NoGpu, "UnknownInstanceType"),
        (errors.RuntimeUnsupported, "InvalidSpec"),
        (errors.InvalidEngineOption, "InvalidSpec"),
        (errors.InstanceTypeTooSmall, "InstanceTypeTooSmall"),
        (MixedGpus, "InvalidSpec"),
        (UnknownGpus, "UnknownInstanceType"),
    ],
)
def test_a_rejection_has_the_reason_of_its_condition(error: type[errors.PlanError], reason: str) -> None:
    refusal = error("a.field", "is wrong")
    assert (refusal.reason, str(refusal), refusal.violation()) == (
        reason,
        "a.field: is wrong",
        Violation("a.field", "is wrong", "error"),
    )


@pytest.mark.parametrize(
    ("vendor", "resource"),
    [("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu"), ("aws-neuron", "aws.amazon.com/neuron")],
)
def test_a_pod_requests_the_resource_of_the_vendor(vendor: Vendor, resource: str) -> None:
    assert Gpu("x", vendor).resource_name == resource


@pytest.mark.parametrize(("capability", "has_bfloat16"), [(None, True), (7.5, False), (8.0, True), (9.0, True)])
def test_bfloat16_begins_with_ampere(capability: float | None, *, has_bfloat16: bool) -> None:
    assert Gpu("x", "nvidia", capability).has_bfloat16 is has_bfloat16
