"""The catalog and the instance types: complete, consistent, and helpful about names they do not know."""

import pytest

from kaito.models import catalog, instance_types
from kaito.models.errors import NoGpu, UnknownInstanceType, UnknownPreset
from kaito.models.gpu import GIB
from kaito.models.instance_types import Cloud
from kaito.models.nodes import instance_type_of
from kaito.models.preset import Preset


@pytest.mark.parametrize("preset", catalog.presets(), ids=lambda preset: preset.name)
def test_every_supported_preset_can_be_sized_and_run(preset: Preset) -> None:
    assert preset.weights_bytes > GIB
    assert preset.kv_bytes_per_token > 0
    assert preset.context > 0
    assert preset.architecture is not None
    assert preset.vllm is not None


PLAIN = [
    p
    for p in catalog.presets()
    if p.family in {"phi", "mistral", "llama", "qwen", "deepseek"}
    and not p.name.startswith(("deepseek-v3.2", "deepseek-v4"))  # sparse attention: `test_facts`
]


@pytest.mark.parametrize("preset", PLAIN, ids=lambda preset: preset.name)
def test_cache_size_follows_from_the_dimensions(preset: Preset) -> None:
    shape = preset.architecture
    assert shape is not None
    if shape.attention == "MLA":
        expected = (shape.kv_lora_rank + shape.qk_rope_head_dim) * shape.layers * 2
    else:
        expected = 2 * shape.kv_heads * shape.head_dim * shape.layers * 2

    assert preset.kv_bytes_per_token == expected


@pytest.mark.parametrize(
    "name",
    [
        "phi-3-mini-4k-instruct",
        "Phi-3-Mini-4K-Instruct",
        "microsoft/Phi-3-mini-4k-instruct",
        " phi-3-mini-4k-instruct ",
    ],
)
def test_a_preset_answers_to_all_its_names_in_any_case(name: str) -> None:
    assert catalog.get(name).name == "phi-3-mini-4k-instruct"


def test_legacy_aliases_and_served_names_are_known() -> None:
    assert catalog.get("mistral-7b").repository == "mistralai/Mistral-7B-v0.3"
    assert catalog.get("mistral-7b-v0.3").name == "mistral-7b"
    assert catalog.get("google/gemma-3-4b-it").name == "gemma-3-4b-instruct"


def test_no_two_presets_share_a_name() -> None:
    names = [name for preset in catalog.presets() for name in preset.names]

    assert len(names) == len(set(names))


def test_a_mistyped_preset_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(UnknownPreset, match=r"inference\.preset\.name: 'phi-3-mini-4k'.*phi-3-mini-4k-instruct"):
        catalog.get("phi-3-mini-4k")


def test_a_retired_preset_is_rejected_with_a_replacement() -> None:
    with pytest.raises(UnknownPreset, match=r"'falcon-7b' is removed and no longer served: use"):
        catalog.get("falcon-7b")
    with pytest.raises(UnknownPreset, match=r"'phi-2' is deprecated.*use phi-3-mini"):
        catalog.get("phi-2")


def test_an_unknown_hugging_face_id_is_rejected_because_its_size_is_unknown() -> None:
    with pytest.raises(UnknownPreset, match=r"'someone/some-model' is not in the catalog, so its size is unknown"):
        catalog.get("someone/some-model")


def test_disk_and_readiness_follow_from_the_size() -> None:
    small, large = catalog.get("phi-3-mini-4k-instruct"), catalog.get("mistral-medium-3.5-128b")

    assert (str(small.disk), small.readiness_timeout.total_seconds()) == ("87Gi", 30 * 60)
    assert str(large.disk) == "204Gi"
    assert 52 * 60 < large.readiness_timeout.total_seconds() < 53 * 60
    assert catalog.get("glm-5.2-fp8").readiness_timeout.total_seconds() == 180 * 60


def test_artifacts_are_named_by_preset_and_tag() -> None:
    phi, kimi = catalog.get("phi-3-mini-4k-instruct"), catalog.get("kimi-k2.5")
    assert phi.upstream_artifact == "mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.2.0"
    assert phi.artifact("registry.example/models") == "registry.example/models/phi-3-mini-4k-instruct:0.2.0"
    assert kimi.upstream_artifact == ""
    assert kimi.artifact("registry.example/models") == "registry.example/models/kimi-k2.5:latest"


def test_an_instance_type_is_found_in_any_case() -> None:
    found = instance_types.get("standard_nc6s_V3")

    assert (found.name, found.gpus, found.gpu_memory, found.gpu.name) == (
        "Standard_NC6s_v3",
        1,
        16 * GIB,
        "NVIDIA V100",
    )
    assert found.gpu.resource_name == "nvidia.com/gpu"
    assert not found.gpu.has_bfloat16


@pytest.mark.parametrize(
    ("name", "cloud"), [("Standard_D8s_v5", "azure"), ("Standard_B2ms", "azure"), ("m5.large", "aws")]
)
def test_an_instance_type_without_gpu_has_its_own_error(name: str, cloud: Cloud) -> None:
    with pytest.raises(NoGpu, match=r"resource\.instanceType: .* has no GPU: choose a GPU size, for example"):
        instance_types.get(name, cloud)


@pytest.mark.parametrize("name", ["Standard_NC24ads_A100_v5", "Standard_NX99", "gpu-please", "Standard_Quite_Wrong"])
def test_an_unknown_instance_type_is_not_found(name: str) -> None:
    with pytest.raises(UnknownInstanceType, match=r"is not a known GPU instance type of azure"):
        instance_types.get(name)


def test_a_mistyped_instance_type_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownInstanceType, match=r"did you mean Standard_NC24ads_A100_v4"):
        instance_types.get("Standard_NC24ads_A100_v5")


@pytest.mark.parametrize("cloud", ["azure", "aws", "arc"])
def test_every_row_has_memory_and_a_gpu(cloud: Cloud) -> None:
    rows = instance_types.instance_types(cloud)

    assert rows
    assert all(row.gpus > 0 and row.memory_per_gpu >= 2 * GIB for row in rows)
    assert all((row.gpu.compute_capability or 0) > 0 for row in rows if row.gpu.vendor == "nvidia")


def test_an_existing_node_is_read_from_its_labels() -> None:
    node = instance_type_of(
        {
            "node.kubernetes.io/instance-type": "bare-metal-7",
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
            "nvidia.com/gpu.count": "4",
            "nvidia.com/gpu.memory": "81920",
        }
    )

    assert node is not None
    assert (node.name, node.gpu.name, node.gpus, node.memory_per_gpu) == ("bare-metal-7", "NVIDIA A100", 4, 80 * GIB)
    assert node.gpu.has_bfloat16


def test_an_existing_node_of_an_unknown_gpu_uses_the_capability_labels() -> None:
    node = instance_type_of(
        {
            "nvidia.com/gpu.product": "NVIDIA-Z9000",
            "nvidia.com/gpu.count": "1",
            "nvidia.com/gpu.memory": "49140",
            "nvidia.com/cuda.compute.major": "12",
            "nvidia.com/cuda.compute.minor": "1",
        }
    )

    assert node is not None
    assert node.gpu.compute_capability == 12.1


def test_an_existing_node_without_feature_discovery_falls_back_to_the_table() -> None:
    node = instance_type_of({"node.kubernetes.io/instance-type": "Standard_NC6s_v3", "nvidia.com/gpu.count": "many"})

    assert node == instance_types.get("Standard_NC6s_v3")
    assert instance_type_of({"kubernetes.io/hostname": "a"}) is None
