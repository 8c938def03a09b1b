"""Sizes, nodes and runtimes: inputs that were once handled wrongly, and upstream's test cases."""

import re
from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from kaito.models import catalog, instance_types
from kaito.models.admission import check
from kaito.models.commands import inference_command
from kaito.models.engine import EngineSettings
from kaito.models.errors import PlanError, RuntimeUnsupported, UnknownInstanceType
from kaito.models.gpu import GIB
from kaito.models.instance_types import Cloud
from kaito.models.nodes import MixedGpus, UnknownGpus, instance_type_of, uniform_instance_type
from kaito.models.planning import plan_inference, plan_tuning
from kaito.models.products import gpu_named

A10, A100 = "Standard_NV36ads_A10_v5", "Standard_NC24ads_A100_v4"
TEMPLATE: dict[str, Any] = {"template": {"spec": {"containers": [{"name": "a", "image": "registry.example/a:1"}]}}}


def labels_of(product: str, count: int = 1, memory: int = 81920, **more: str) -> dict[str, str]:
    """A node's labels as GPU feature discovery writes them."""
    found = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(memory),
    }
    return found | {f"nvidia.com/{key.replace('_', '.')}": value for key, value in more.items()}


def answers(instance: str, annotations: dict[str, str] | None = None, **inference: Any) -> list[str]:
    """What admission answers to a Workspace: severity, field and message of each violation."""
    workspace = Workspace.model_validate(
        {
            "metadata": {"name": "w", "annotations": annotations or {}},
            "resource": {"instanceType": instance, "labelSelector": {"matchLabels": {"apps": "w"}}},
            "inference": inference,
        }
    )
    found = [*validate(workspace, policy=Policy(node_api="machine")), *check(workspace)]
    return [f"{violation.severity}: {violation}" for violation in found]


# ── A3: refused although it runs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "preset", "size", "runtime", "gpus"),
    [
        ("R1", "gpt-oss-120b", A100, "vllm", 1),
        ("R2", "gpt-oss-20b", A10, "vllm", 1),
        ("R3", "qwen2.5-coder-32b-instruct", A100, "vllm", 1),
        ("R4", "llama-3.3-70b-instruct", "Standard_NC48ads_A100_v4", "vllm", 2),
        ("granite", "granite-4.1-8b", A10, "vllm", 1),
    ],
)
def test_it_fits(row: str, preset: str, size: str, runtime: str, gpus: int) -> None:
    plan = plan_inference(catalog.get(preset), instance_types.get(size))

    assert (plan.runtime, plan.gpus, plan.nodes, plan.warnings) == (runtime, gpus, 1, ()), row


@pytest.mark.parametrize(("preset", "weights"), [("gpt-oss-120b", 60.77), ("gpt-oss-20b", 12.82)])
def test_a_second_copy_of_the_weights_does_not_count(preset: str, weights: float) -> None:
    """The size of the disk follows from that of the weights."""
    found = catalog.get(preset)

    assert found.weights_bytes / GIB == pytest.approx(weights)
    assert str(found.disk) == f"{int(weights) + 80}Gi"


@pytest.mark.parametrize(
    ("product", "memory", "capability"),
    [
        ("NVIDIA-L40S", 46068, 8.9),
        ("NVIDIA-GeForce-RTX-4090", 24564, 8.9),
        ("NVIDIA-GeForce-RTX-4090-Laptop-GPU", 16376, 8.9),
        ("NVIDIA-B200", 183359, 10.0),
        ("NVIDIA-B300-SXM6-AC", 275040, 10.3),
        ("NVIDIA-H200", 143771, 9.0),
        ("NVIDIA-H100-80GB-HBM3", 81559, 9.0),
        ("NVIDIA-H100-NVL", 95830, 9.0),
        ("NVIDIA-GH200-480GB", 97871, 9.0),
        ("NVIDIA-A100-SXM4-80GB", 81920, 8.0),
        ("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", 19968, 8.0),
        ("GRID-A100D-80C", 81920, 8.0),
        ("NVIDIA-A30", 24576, 8.0),
        ("NVIDIA-A40", 46068, 8.6),
        ("NVIDIA-RTX-A6000", 49140, 8.6),
        ("NVIDIA-RTX-6000-Ada-Generation", 49140, 8.9),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", 97887, 12.0),
        ("NVIDIA-GeForce-RTX-5090", 32607, 12.0),
        ("NVIDIA-GeForce-RTX-3090", 24576, 8.6),
        ("NVIDIA-L4", 23034, 8.9),
        ("NVIDIA-A10G", 23028, 8.6),
        ("NVIDIA-A10", 23028, 8.6),
        ("Tesla-T4", 15360, 7.5),
        ("Tesla-V100-SXM2-16GB", 16384, 7.0),
        ("Quadro-RTX-6000", 24576, 7.5),
        ("Tesla-P100-PCIE-16GB", 16384, 6.0),
        ("Tesla-K80", 11441, 3.7),
        ("NVIDIA-L2", 23034, 8.9),
        ("NVIDIA-GeForce-GTX-1080-Ti", 11264, 6.1),
        ("NVIDIA-TITAN-V", 12288, 7.0),
        ("NVIDIA-A10-24Q", 23028, 8.6),
        ("nvidia-a100-sxm4-80gb", 81920, 8.0),
    ],
)
def test_the_capability_of_nvidias_products_is_known(product: str, memory: int, capability: float) -> None:
    """A node needs no labels of its capability."""
    instance = instance_type_of(labels_of(product, memory=memory))

    assert instance is not None
    assert (instance.gpu.compute_capability, instance.gpu.vendor) == (capability, "nvidia")


@pytest.mark.parametrize("product", ["NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", "NVIDIA-A100-SXM4-80GB-SHARED"])
def test_parts_of_gpus_are_used_one_at_a_time(product: str) -> None:
    instance = instance_type_of(labels_of(product, count=2, memory=40192) | {"nvidia.com/gpu.replicas": "1"})
    assert instance is not None
    plan = plan_inference(catalog.get("phi-4"), instance)

    assert (plan.gpus, plan.parallelism.gpus) == (1, 1)
    with pytest.raises(PlanError, match="too small for qwen2"):
        plan_inference(catalog.get("qwen2.5-coder-32b-instruct"), instance)


def time_slices(number: int) -> dict[str, str]:
    found = labels_of("NVIDIA-A100-SXM4-80GB-SHARED", count=2, memory=81920)
    return found | {"nvidia.com/gpu.replicas": str(number)}


@pytest.mark.parametrize(("number", "share"), [(1, "0.92"), (2, "0.46"), (4, "0.23"), (7, "0.131")])
def test_a_time_slice_is_planned_with_its_part_of_the_memory(number: int, share: str) -> None:
    instance = instance_type_of(time_slices(number))
    assert instance is not None
    assert (instance.gpus, instance.memory_per_gpu) == (1, 81920 * 2**20 // number)
    plan = plan_inference(catalog.get("qwen3.5-2b"), instance)
    command = inference_command(plan, adapters=False)
    assert f"--gpu-memory-utilization={share}" in " ".join(command)
    assert float(share) * number <= 0.92


def test_a_model_that_fits_on_a_gpu_is_too_large_for_its_time_slice() -> None:
    whole, quarter = (instance_type_of(time_slices(number)) for number in (1, 4))
    assert whole is not None
    assert quarter is not None
    assert plan_inference(catalog.get("phi-4"), whole).parallelism.gpus == 1
    with pytest.raises(PlanError, match="too small for phi-4"):
        plan_inference(catalog.get("phi-4"), quarter)


def test_the_share_of_the_user_is_one_of_the_whole_gpu() -> None:
    instance = instance_type_of(time_slices(2))
    assert instance is not None
    plan_inference(catalog.get("phi-4"), instance, engine=EngineSettings(gpu_memory_utilization=0.5))
    with pytest.raises(PlanError, match=r"is 0\.51, and 2 time slices share the memory of a GPU: use at most 0\.5"):
        plan_inference(catalog.get("phi-4"), instance, engine=EngineSettings(gpu_memory_utilization=0.51))


def test_the_number_of_time_slices_must_be_known() -> None:
    found = {key: value for key, value in time_slices(2).items() if not key.endswith("replicas")}
    with pytest.raises(UnknownGpus, match=r"gpu\.memory, and nvidia\.com/gpu\.replicas for time slices"):
        uniform_instance_type({"gpu-0": found})
    both = uniform_instance_type({"gpu-0": time_slices(2), "gpu-1": time_slices(4)})
    assert both is not None
    assert (both.memory_per_gpu // GIB, both.shares) == (20, 4)


def test_a_product_in_no_table_is_unknown() -> None:
    assert gpu_named("NVIDIA-Z9000") is None
    instance = instance_type_of(labels_of("NVIDIA-Z9000"))
    assert instance is not None
    assert instance.gpu.compute_capability is None


@pytest.mark.parametrize("product", ["NVIDIA-L40S", "NVIDIA-GeForce-RTX-4090", "NVIDIA-B200", "NVIDIA-H200"])
@pytest.mark.parametrize("preset", ["qwen3.5-4b", "phi-4-mini-instruct"])
def test_a_gpu_outside_the_instance_types_serves_on_vllm(product: str, preset: str) -> None:
    """VLLM-only presets and those with both runtimes."""
    instance = instance_type_of(labels_of(product, memory=24564))
    assert instance is not None
    plan = plan_inference(catalog.get(preset), instance)

    assert (plan.runtime, plan.dtype, plan.warnings) == ("vllm", "bfloat16", ())


@pytest.mark.parametrize("preset", ["qwen3.5-4b", "phi-4-mini-instruct"])
def test_a_gpu_of_unknown_capability_serves_with_a_warning(preset: str) -> None:
    """Unknown is not 0.0, and no silent fallback to float16."""
    instance = instance_type_of(labels_of("NVIDIA-Z9000"))
    assert instance is not None
    plan = plan_inference(catalog.get(preset), instance)

    assert (plan.runtime, plan.dtype) == ("vllm", "bfloat16")
    (warning,) = plan.warnings
    assert "the compute capability of NVIDIA-Z9000 is unknown" in warning
    assert "nvidia.com/cuda.compute.major and nvidia.com/cuda.compute.minor" in warning


def test_the_nodes_own_labels_win_over_the_table() -> None:
    node = labels_of("NVIDIA-A100-SXM4-80GB", cuda_compute_major="7", cuda_compute_minor="5")
    instance = instance_type_of(node)
    assert instance is not None
    assert instance.gpu.compute_capability == 7.5
    with pytest.raises(RuntimeUnsupported, match=r"capability 8\.0 or more, .* has 7\.5"):
        plan_inference(catalog.get("qwen3.5-4b"), instance)


@pytest.mark.parametrize("strength", ["0.5", "1.0", "1", ""])
def test_adapters_have_strengths_on_vllm(strength: str) -> None:
    adapter = {"source": {"name": "a", "image": "registry.example/a:1"}, "strength": strength}

    assert answers(A100, preset={"name": "granite-4.1-8b"}, adapters=[adapter]) == []


@pytest.mark.parametrize(
    "size", ["Standard_D4s_v3", "Standard_D8s_v5", "Standard_E16ads_v5", "Standard_B2ms", "Basic_A1", "Standard_NP10s"]
)
def test_a_template_runs_on_any_size(size: str) -> None:
    assert answers(size, **TEMPLATE) == []
    assert answers("standard_nc999_x1_v9", **TEMPLATE) == []


@pytest.mark.parametrize("size", ["Standard_D4s_v3", "Standard_E16ads_v5"])
def test_a_preset_does_not_run_without_a_gpu(size: str) -> None:
    (found,) = answers(size, preset={"name": "phi-4"})
    assert found.startswith(f"error: resource.instanceType: '{size}' has no GPU: choose a GPU size, for example ")


@pytest.mark.parametrize("size", ["Standard_Nsku", "nothing", "m5.large", "Standard_", "", "Standard_D4s v3"])
def test_an_invalid_instance_type_is_rejected_for_templates_too(size: str) -> None:
    """A name that is not an instance type."""
    found = answers(size, **TEMPLATE)
    assert found
    assert all(line.startswith("error: resource.instanceType: ") for line in found)


@pytest.mark.parametrize("name", ["Standard_ND96asr_v4", "standard_nd96asr_V4", "Standard_ND96asr_A100_v4"])
def test_the_eight_small_a100_have_azures_name(name: str) -> None:
    found = instance_types.get(name)

    assert (found.name, found.gpus, found.memory_per_gpu) == ("Standard_ND96asr_v4", 8, 40 * GIB)
    assert answers(name, preset={"name": "phi-4"}) == []


def test_aliases_and_letter_case_name_one_size() -> None:
    same = instance_types.same_size

    assert same("standard_nd96asr_v4", "Standard_ND96asr_A100_v4")
    assert same("Standard_D4s_v3", "standard_d4s_V3")
    assert same("G5.XLARGE", "g5.xlarge")
    assert not same("Standard_ND96asr_v4", "Standard_ND96amsr_A100_v4")
    assert not same("", "Standard_ND96asr_v4")


def test_several_copies_are_announced() -> None:
    """Upstream would use one node for the same object."""
    workspace = Workspace.model_validate(
        {
            "metadata": {"name": "w"},
            "resource": {"instanceType": A100, "count": 3, "labelSelector": {"matchLabels": {"apps": "w"}}},
            "inference": {"preset": {"name": "phi-4-mini-instruct"}},
        }
    )
    (found,) = check(workspace)

    assert (found.severity, found.field) == ("warning", "resource.count")
    assert found.message == (
        "is 3: 3 nodes are used, and each serves a whole copy of phi-4-mini-instruct: set it to 1 for one copy"
    )


AZURE_SELLS = (  # noqa: SIM905 - one name a line would be 54 lines
    "NC12 NC12_Promo NC12s_v3 NC16ads_A10_v4 NC16as_T4_v3 NC24 NC24_Promo NC24ads_A100_v4 NC24r NC24r_Promo NC24rs_v3 "
    "NC24s_v3 NC32ads_A10_v4 NC40ads_H100_v5 NC48ads_A100_v4 NC4as_T4_v3 NC6 NC64as_T4_v3 NC6_Promo NC6s_v3 "
    "NC80adis_H100_v5 NC8ads_A10_v4 NC8as_T4_v3 NC96ads_A100_v4 NCC40ads_H100_v5 ND40rs_v2 ND40s_v3 ND96amsr_A100_v4 "
    "ND96asr_v4 ND96is_H100_v5 ND96isr_H100_v5 NG16ads_V620_v1 NG32adms_V620_v1 NG32ads_V620_v1 NG8ads_V620_v1 NV12 "
    "NV12_Promo NV12ads_A10_v5 NV12s_v3 NV16as_v4 NV18ads_A10_v5 NV24 NV24_Promo NV24s_v3 NV32as_v4 NV36adms_A10_v5 "
    "NV36ads_A10_v5 NV48s_v3 NV4as_v4 NV6 NV6_Promo NV6ads_A10_v5 NV72ads_A10_v5 NV8as_v4"
).split()
"""Azure's GPU sizes of the price list of 2026-09; it lacks the two in the test below."""


def test_every_size_that_azure_sells_is_known_and_no_other() -> None:
    """Names come from the price list; hints never name an alias."""
    sold = {f"Standard_{name}" for name in AZURE_SELLS} | {"Standard_ND96isr_H200_v5", "Standard_ND96isr_MI300X_v5"}

    assert {i.name for i in instance_types.instance_types("azure")} == sold
    with pytest.raises(UnknownInstanceType) as caught:
        instance_types.get("Standard_ND96asr_A100_v5")
    assert set(re.findall(r"Standard_\w+", caught.value.message)) <= sold | {"Standard_ND96asr_A100_v5"}
    assert [i.name for i in instance_types.current()] == [
        "Standard_NV36ads_A10_v5",
        "Standard_NV72ads_A10_v5",
        "Standard_NC24ads_A100_v4",
        "Standard_NC40ads_H100_v5",
        "Standard_NCC40ads_H100_v5",
        "Standard_NC48ads_A100_v4",
        "Standard_NC80adis_H100_v5",
        "Standard_NC96ads_A100_v4",
        "Standard_ND96asr_v4",
        "Standard_ND96amsr_A100_v4",
        "Standard_ND96isr_H100_v5",
        "Standard_ND96isr_H200_v5",
    ]


@pytest.mark.parametrize(("size", "gib"), [("NV6ads_A10_v5", 4), ("NV12ads_A10_v5", 8), ("NV18ads_A10_v5", 12)])
def test_a_part_of_a_gpu_is_sized_as_that_part(size: str, gib: int) -> None:
    instance = instance_types.get(f"Standard_{size}")

    assert (instance.gpus, instance.memory_per_gpu) == (1, gib * GIB)
    with pytest.raises(PlanError, match="too small for phi-4"):
        plan_inference(catalog.get("phi-4"), instance)


# ── existing nodes ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nodes_of_different_gpus_are_rejected_by_name() -> None:
    """A100 and V100 under one selector."""
    nodes = {
        "b": labels_of("Tesla-V100-SXM2-16GB", memory=16384),
        "a": labels_of("NVIDIA-A100-SXM4-80GB"),
        "c": labels_of("NVIDIA-A100-SXM4-80GB"),
    }
    with pytest.raises(MixedGpus) as caught:
        uniform_instance_type(nodes)

    assert caught.value.field == "resource.labelSelector"
    listed = "matches nodes with different GPUs: NVIDIA-A100-SXM4-80GB on a, c; Tesla-V100-SXM2-16GB on b: narrow the"
    assert listed in str(caught.value)


def test_many_nodes_are_counted_and_not_listed() -> None:
    nodes = {f"n{i:03}": labels_of("NVIDIA-L40S") for i in range(50)} | {"x": labels_of("NVIDIA-H200")}
    with pytest.raises(MixedGpus, match=r"NVIDIA-L40S on n000, n001, n002, n003, n004 and 45 more"):
        uniform_instance_type(nodes)


def test_uniform_nodes_are_planned_by_the_least_of_them() -> None:
    nodes = {
        "a": labels_of("NVIDIA-A100-SXM4-80GB", count=8),
        "b": labels_of("NVIDIA-A100-SXM4-80GB", count=4, memory=81221),
        "plain": {"kubernetes.io/hostname": "plain"},
    }
    found = uniform_instance_type(nodes)

    assert found is not None
    assert (found.gpu.name, found.gpus, found.memory_per_gpu) == ("NVIDIA A100", 4, 81221 * 2**20)
    assert uniform_instance_type({}) is None


@pytest.mark.parametrize(
    "other",
    [
        labels_of("NVIDIA-A100-SXM4-40GB", memory=40960),
        labels_of("NVIDIA-H100-80GB-HBM3"),
        labels_of("NVIDIA-Z9000"),
        {"node.kubernetes.io/instance-type": "Standard_NC6s_v3"},
    ],
)
def test_another_product_is_rejected_whatever_it_is(other: dict[str, str]) -> None:
    with pytest.raises(MixedGpus, match=r"NVIDIA-A100-SXM4-80GB on mine"):
        uniform_instance_type({"mine": labels_of("NVIDIA-A100-SXM4-80GB"), "other": other})


def test_the_same_product_under_an_instance_type_is_uniform() -> None:
    nodes = {"a": {"node.kubernetes.io/instance-type": A100}, "b": labels_of("NVIDIA-A100-SXM4-80GB")}
    found = uniform_instance_type(nodes)

    assert found is not None
    assert found.gpu.name == "NVIDIA A100"


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"nvidia.com/gpu.product": "NVIDIA-L40S"},
        labels_of("NVIDIA-L40S", count=0),
        labels_of("NVIDIA-L40S") | {"nvidia.com/gpu.memory": "48 GiB"},
        labels_of("NVIDIA-L40S") | {"nvidia.com/gpu.count": "²"},
        labels_of("NVIDIA-L40S") | {"nvidia.com/gpu.count": "9" * 5000},
        labels_of("NVIDIA-L40S") | {"nvidia.com/gpu.count": "999999999"},
        {"node.kubernetes.io/instance-type": "bare-metal"},
    ],
)
def test_nodes_without_gpu_labels_are_rejected_by_name(bad: dict[str, str]) -> None:
    with pytest.raises(UnknownGpus, match=r"cannot determine the GPUs of nodes mine: install GPU feature discovery"):
        uniform_instance_type({"mine": bad})


# ── Part B: upstream's tables ────────────────────────────────────────────────────────────────────────────────────────

UPSTREAM_SIZES: list[tuple[Cloud, str, int, int, float | None]] = [
    ("azure", "Standard_NV36ads_A10_v5", 1, 24, 8.6),
    ("azure", "Standard_NV72ads_A10_v5", 2, 48, 8.6),
    ("azure", "Standard_NC24ads_A100_v4", 1, 80, 8.0),
    ("azure", "Standard_NC48ads_A100_v4", 2, 160, 8.0),
    ("azure", "Standard_NC96ads_A100_v4", 4, 320, 8.0),
    ("azure", "Standard_ND96asr_A100_v4", 8, 320, 8.0),
    ("azure", "Standard_ND96amsr_A100_v4", 8, 640, 8.0),
    ("azure", "Standard_NC40ads_H100_v5", 1, 94, 9.0),
    ("azure", "Standard_NC80adis_H100_v5", 2, 188, 9.0),
    ("azure", "Standard_ND96isr_H100_v5", 8, 640, 9.0),
    ("azure", "Standard_NCC40ads_H100_v5", 1, 94, 9.0),
    ("azure", "Standard_ND96isr_H200_v5", 8, 1128, 9.0),
    ("azure", "Standard_NG32ads_V620_v1", 1, 32, None),
    ("azure", "Standard_NG32adms_V620_v1", 1, 32, None),
    ("aws", "p4d.24xlarge", 8, 320, 8.0),
    ("aws", "p4de.24xlarge", 8, 640, 8.0),
    ("aws", "p5.48xlarge", 8, 640, 9.0),
    ("aws", "p5e.48xlarge", 8, 1128, 9.0),
    ("aws", "p5en.48xlarge", 8, 1128, 9.0),
    ("aws", "g6.xlarge", 1, 24, 8.9),
    ("aws", "g6.2xlarge", 1, 24, 8.9),
    ("aws", "g6.4xlarge", 1, 24, 8.9),
    ("aws", "g6.8xlarge", 1, 24, 8.9),
    ("aws", "g6.16xlarge", 1, 24, 8.9),
    ("aws", "gr6.4xlarge", 1, 24, 8.9),
    ("aws", "gr6.8xlarge", 1, 24, 8.9),
    ("aws", "g6.12xlarge", 4, 96, 8.9),
    ("aws", "g6.24xlarge", 4, 96, 8.9),
    ("aws", "g6.48xlarge", 8, 192, 8.9),
    ("aws", "g5.xlarge", 1, 24, 8.6),
    ("aws", "g5.2xlarge", 1, 24, 8.6),
    ("aws", "g5.4xlarge", 1, 24, 8.6),
    ("aws", "g5.8xlarge", 1, 24, 8.6),
    ("aws", "g5.12xlarge", 4, 96, 8.6),
    ("aws", "g5.16xlarge", 1, 24, 8.6),
    ("aws", "g5.24xlarge", 4, 96, 8.6),
    ("aws", "g5.48xlarge", 8, 192, 8.6),
    ("aws", "g4ad.xlarge", 1, 8, None),
    ("aws", "g4ad.2xlarge", 1, 8, None),
    ("aws", "g4ad.4xlarge", 1, 8, None),
    ("aws", "g4ad.8xlarge", 2, 16, None),
    ("aws", "g4ad.16xlarge", 4, 32, None),
    ("aws", "trn1.2xlarge", 1, 32, None),
    ("aws", "trn1.32xlarge", 16, 512, None),
    ("aws", "trn1n.32xlarge", 16, 512, None),
    ("aws", "inf2.xlarge", 1, 32, None),
    ("aws", "inf2.8xlarge", 1, 32, None),
    ("aws", "inf2.24xlarge", 6, 192, None),
    ("aws", "inf2.48xlarge", 12, 384, None),
    ("arc", "Standard_NC4_A2", 1, 16, 8.6),
    ("arc", "Standard_NC8_A2", 1, 16, 8.6),
    ("arc", "Standard_NC16_A2", 2, 32, 8.6),
    ("arc", "Standard_NC32_A2", 2, 32, 8.6),
    ("arc", "Standard_NC4_A16", 1, 16, 8.6),
    ("arc", "Standard_NC8_A16", 1, 16, 8.6),
    ("arc", "Standard_NC16_A16", 2, 32, 8.6),
    ("arc", "Standard_NC32_A16", 2, 32, 8.6),
]
"""All 57 rows of upstream's tables: cloud, size, GPUs, GiB of GPU memory of the node, compute capability."""


@pytest.mark.parametrize(("cloud", "name", "gpus", "memory", "capability"), UPSTREAM_SIZES)
@pytest.mark.parametrize("spelling", [str, str.lower, str.upper])
def test_upstreams_sizes_have_upstreams_figures(
    cloud: Cloud, name: str, gpus: int, memory: int, capability: float | None, spelling: Any
) -> None:
    found = instance_types.get(spelling(name), cloud)

    assert (found.gpus, found.gpu_memory, found.gpu.compute_capability) == (gpus, memory * GIB, capability)


@pytest.mark.parametrize(
    ("preset", "size", "field", "words"),
    [
        ("qwen3-8b-awq", "Standard_NC6s_v3", "resource.instanceType", "needs a GPU with compute capability 8.0"),
        ("phi-4", "Standard_NG32ads_V620_v1", "resource.instanceType", "has no NVIDIA GPU"),
        ("phi-4", "Standard_ND96isr_MI300X_v5", "resource.instanceType", "has no NVIDIA GPU"),
        ("phi-4", "Standard_NC6", "resource.instanceType", "is too old"),
        ("phi-4", "Standard_Nsku", "resource.instanceType", "is not a known GPU instance type"),
        ("not-a-model", A100, "inference.preset.name", "is not a preset"),
        ("deepseek-v4-pro", A10, "resource.instanceType", "for example Standard_ND96isr_H200_v5"),
    ],
)
def test_input_that_cannot_run_is_rejected_with_its_field(preset: str, size: str, field: str, words: str) -> None:
    (found,) = answers(size, preset={"name": preset})

    assert found.startswith(f"error: {field}: ")
    assert words in found


@pytest.mark.parametrize(
    ("runtime", "preset", "size", "adapters", "words"),
    [
        ("vllm", "phi-4-mini-instruct", "Standard_NC6s_v3", 0, "needs a GPU with compute capability 8.0 or more"),
        ("transformers", "gpt-oss-20b", A10, 0, "does not serve mxfp4 weights"),
        ("transformers", "granite-4.1-8b", A10, 0, "has no settings for granite-4.1-8b: use vllm"),
        ("llamacpp", "phi-4", A100, 0, "metadata.annotations"),
        ("vllm", "phi-4", A100, 1, ""),
        ("transformers", "phi-4", A100, 1, ""),
        ("", "phi-4", A100, 1, ""),
        (" VLLM ", "phi-4", A100, 0, ""),
    ],
)
def test_the_requested_runtime_is_used_or_rejected(
    runtime: str, preset: str, size: str, adapters: int, words: str
) -> None:
    """Part B: V100 for vLLM, an unknown runtime, strengths with and without the annotation."""
    adapter = {"source": {"name": "a", "image": "registry.example/a:1"}, "strength": "0.5"}
    annotations = {"kaito.sh/runtime": runtime} if runtime else {}
    found = answers(size, annotations, preset={"name": preset}, adapters=[adapter] * adapters)

    assert len(found) == bool(words), found
    assert all(line.startswith("error: ") and words in line for line in found)


def test_a_preset_that_cannot_be_tuned_is_rejected() -> None:
    with pytest.raises(PlanError, match=r"tuning\.preset\.name: qwen3-8b-awq cannot be tuned: choose one of "):
        plan_tuning(catalog.get("qwen3-8b-awq"), instance_types.get(A100), method="lora")


def test_a_small_model_is_copied_to_each_gpu() -> None:
    """Upstream's rule: less than half of one GPU."""
    plan = plan_inference(catalog.get("phi-4-mini-instruct"), instance_types.get("Standard_NC96ads_A100_v4"))

    assert (plan.parallelism.data, plan.parallelism.tensor) == (4, 1)


def test_every_model_has_half_an_hour_to_start() -> None:
    assert all(preset.readiness_timeout.total_seconds() >= 1800 for preset in catalog.presets())


def test_upstreams_expectation_of_two_nodes_is_met() -> None:
    plan = plan_inference(catalog.get("llama-3.3-70b-instruct"), instance_types.get("Standard_NC40ads_H100_v5"))
    assert plan.nodes_per_copy == 2
