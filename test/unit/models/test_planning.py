"""Plans and commands of the sample models; every other preset is planned, or rejected with the reason."""

import json

import pytest

from kaito.models import catalog, instance_types
from kaito.models.commands import (
    arguments,
    inference_command,
    inference_environment,
    shell_line,
    tuning_command,
)
from kaito.models.errors import InstanceTypeTooSmall, NoGpu, RuntimeUnsupported, TuningUnsupported
from kaito.models.gpu import InstanceType
from kaito.models.planning import Parallelism, parallelism, plan_inference, plan_tuning
from kaito.models.preset import Preset
from kaito.models.sources import Download, LocalWeights

V100 = instance_types.get("Standard_NC6s_v3")
A100 = instance_types.get("Standard_NC24ads_A100_v4")
A10 = instance_types.get("Standard_NV36ads_A10_v5")
A100X8 = instance_types.get("Standard_ND96amsr_A100_v4")
PHI_4K = catalog.get("phi-3-mini-4k-instruct")
PHI_128K = catalog.get("phi-3-mini-128k-instruct")


@pytest.mark.parametrize("preset", [PHI_4K, PHI_128K], ids=lambda preset: preset.name)
def test_phi_3_mini_on_v100_is_served_by_transformers_in_float16(preset: Preset) -> None:
    plan = plan_inference(preset, V100)

    assert (plan.runtime, plan.dtype, plan.nodes, plan.gpus) == ("transformers", "float16", 1, 1)
    assert (str(plan.disk), plan.resource_name, plan.warnings) == ("87Gi", "nvidia.com/gpu", ())
    assert inference_command(plan, source=LocalWeights()) == [
        "python3",
        "/workspace/tfs/inference_api.py",
        "--pipeline=text-generation",
        "--port=5000",
        "--pretrained_model_name_or_path=/workspace/tfs/weights",
        f"--served_model_name={preset.name}",
        "--torch_dtype=float16",
    ]


def test_phi_3_mini_on_a100_is_served_by_vllm_in_bfloat16() -> None:
    plan = plan_inference(PHI_4K, A100)

    assert (plan.runtime, plan.dtype) == ("vllm", "bfloat16")
    assert inference_command(plan, source=LocalWeights()) == [
        "python3",
        "/workspace/vllm/inference_api.py",
        "--dtype=bfloat16",
        "--gpu-memory-utilization=0.92",
        "--max-model-len=auto",
        "--model=/workspace/vllm/weights",
        "--port=5000",
        "--served-model-name=phi-3-mini-4k-instruct",
        "--trust-remote-code",
    ]


def test_adapters_are_served_by_transformers_which_merges_them() -> None:
    plan = plan_inference(PHI_128K, A100, adapters=True)
    command = inference_command(plan, adapters=True, config=True)

    assert plan.runtime == "transformers"
    assert plan.dtype == "bfloat16"
    assert "--adapters_dir=/mnt/adapter" in command
    assert "--config=/mnt/config/inference_config.yaml" in command
    environment = inference_environment(plan, {"phi-3-adapter": "", "b": "0.5"})
    assert json.loads(environment["KAITO_ADAPTER_STRENGTHS"]) == {"b": "0.5", "phi-3-adapter": "1.0"}


def test_a_model_without_transformers_settings_serves_adapters_on_vllm() -> None:
    preset = catalog.get("granite-4.1-8b")
    assert preset.transformers is None
    plan = plan_inference(preset, A100, adapters=True)

    command = inference_command(plan, adapters=True)

    assert plan.runtime == "vllm"
    assert {"--enable-lora", "--kaito-adapters-dir=/mnt/adapter"} <= set(command)
    assert inference_environment(plan) == {"VLLM_USE_DEEP_GEMM": "0", "VLLM_USE_FLASHINFER_SAMPLER": "0"}


def test_the_annotation_decides_the_runtime_where_it_can() -> None:
    assert plan_inference(PHI_4K, A100, runtime="transformers").runtime == "transformers"
    with pytest.raises(RuntimeUnsupported, match=r"kaito\.sh/runtime.*needs a GPU with compute capability 8\.0"):
        plan_inference(PHI_4K, V100, runtime="vllm")
    with pytest.raises(RuntimeUnsupported, match=r"does not serve fp8 weights \(deepseek-r1-0528\): use vllm"):
        plan_inference(catalog.get("deepseek-r1-0528"), A100X8, runtime="transformers")


def test_a_model_that_only_vllm_serves_is_rejected_on_an_old_gpu() -> None:
    with pytest.raises(RuntimeUnsupported, match=r"resource\.instanceType: qwen3-8b-awq on vllm needs a GPU"):
        plan_inference(catalog.get("qwen3-8b-awq"), V100)


def test_the_error_for_a_large_model_contains_both_sizes_and_a_larger_instance_type() -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(catalog.get("deepseek-r1-0528"), A10)

    assert caught.value.field == "resource.instanceType"
    assert caught.value.reason == "InstanceTypeTooSmall"
    assert caught.value.message == (
        f"16 nodes of {A10} are too small for deepseek-r1-0528: it takes about 744.8 GiB, 314.9 GiB are usable: choose "
        "a larger one, for example Standard_ND96isr_H200_v5"
    )
    assert str(A10) == "Standard_NV36ads_A10_v5 (1 x NVIDIA A10, 24 GiB each)"


def test_the_declared_requirement_of_a_seed_preset_decides_for_transformers() -> None:
    with pytest.raises(InstanceTypeTooSmall, match=r"takes about 28\.0 GiB, 16\.0 GiB are usable"):
        plan_inference(catalog.get("phi-3-medium-4k-instruct"), V100)
    assert plan_inference(catalog.get("phi-3-medium-4k-instruct"), instance_types.get("Standard_NC12s_v3")).gpus == 2


def test_a_model_that_fits_on_no_node_is_rejected() -> None:
    with pytest.raises(InstanceTypeTooSmall, match=r"no instance type of arc is large enough"):
        plan_inference(catalog.get("deepseek-r1-0528"), instance_types.get("Standard_NC32_A2", "arc"), cloud="arc")


def test_a_bypassed_size_check_is_a_warning() -> None:
    plan = plan_inference(catalog.get("llama-3.3-70b-instruct"), A100, bypass_size=True)

    assert len(plan.warnings) == 1
    assert "too small for llama-3.3-70b-instruct" in plan.warnings[0]


@pytest.mark.parametrize("name", ["Standard_NG32ads_V620_v1", "Standard_NV6"])
def test_gpus_that_the_images_cannot_use_are_rejected(name: str) -> None:
    with pytest.raises(NoGpu, match=name):
        plan_inference(PHI_4K, instance_types.get(name))


@pytest.mark.parametrize(
    ("preset", "gpus", "memory", "expected"),
    [
        ("phi-3-mini-4k-instruct", 1, 80, Parallelism()),
        ("phi-3-mini-4k-instruct", 8, 80, Parallelism(data=8)),
        ("llama-3.3-70b-instruct", 8, 80, Parallelism(tensor=8)),
        ("phi-3-medium-4k-instruct", 8, 40, Parallelism(tensor=2, pipeline=4)),  # 10 key-value heads
        ("qwen2.5-coder-7b-instruct", 8, 24, Parallelism(tensor=4, pipeline=2)),  # 28 heads
    ],
)
def test_gpus_are_divided_as_vllm_allows(preset: str, gpus: int, memory: int, expected: Parallelism) -> None:
    instance = InstanceType("x", A100.gpu, gpus, memory * 2**30)

    assert parallelism(catalog.get(preset), instance) == expected


def test_every_preset_has_a_plan_on_some_current_azure_size_or_is_rejected_by_size() -> None:
    sizes = [i for i in instance_types.instance_types("azure") if i.gpu.vendor == "nvidia" and not i.legacy]
    unplanned: list[str] = []
    for preset in catalog.presets():
        for size in sizes:
            try:
                command = inference_command(plan_inference(preset, size))
            except InstanceTypeTooSmall:
                continue
            assert command[2:] == sorted(command[2:])
            break
        else:
            unplanned.append(preset.name)

    assert unplanned == []


def test_downloaded_weights_are_pinned_to_their_revision() -> None:
    plan = plan_inference(PHI_4K, V100)
    command = inference_command(plan, source=Download("org/model", "abc"))

    assert {"--pretrained_model_name_or_path=org/model", "--revision=abc", "--allow_remote_files"} <= set(command)
    vllm = inference_command(plan_inference(PHI_4K, A100), source=Download("org/model", "abc"))
    assert {"--model=org/model", "--revision=abc", "--code-revision=abc", "--download-dir=/workspace/weights"} <= set(
        vllm
    )


def test_weights_may_lie_in_a_directory_of_the_users() -> None:
    command = inference_command(plan_inference(PHI_4K, V100), source=LocalWeights("/data/phi"))

    assert "--pretrained_model_name_or_path=/data/phi" in command


def test_arguments_are_sorted_and_safe_from_shell_and_kubernetes() -> None:
    words = arguments({"b": "two words; rm -rf", "a": True, "c": False, "d": "$(HOME)"})

    assert words == ["--a", "--b=two words; rm -rf", "--d=$$(HOME)"]
    assert shell_line(["x", *words]) == "x --a '--b=two words; rm -rf' '--d=$$(HOME)'"


def test_the_sample_tuning_workspace_is_planned_without_a_warning() -> None:
    plan = plan_tuning(PHI_128K, V100, method="qlora")

    assert (plan.method, plan.gpus, plan.warnings) == ("qlora", 1, ())
    assert tuning_command(
        plan, source=LocalWeights(), push_image="registry/image:1", docker_config="/root/.docker/config.json"
    ) == [
        "python3",
        "/workspace/tfs/fine_tuning.py",
        "--config=/mnt/config/training_config.yaml",
        "--data-dir=/mnt/data",
        "--docker-config=/root/.docker/config.json",
        "--method=qlora",
        "--metrics-port=5000",
        "--model=/workspace/tfs/weights",
        "--model-name=phi-3-mini-128k-instruct",
        "--output-dir=/mnt/results",
        "--push-image=registry/image:1",
    ]


TUNABLE = [p for p in catalog.presets() if p.tuning]


@pytest.mark.parametrize("preset", TUNABLE, ids=lambda preset: preset.name)
def test_what_can_be_tuned_can_be_tuned_and_served_on_a_large_gpu(preset: Preset) -> None:
    assert plan_tuning(preset, A100X8, method="lora").warnings == ()
    assert plan_inference(preset, A100X8, adapters=True).runtime == "transformers"


def test_tuning_with_too_little_memory_warns_with_both_numbers() -> None:
    plan = plan_tuning(catalog.get("phi-4"), V100, method="LoRA")

    (warning,) = plan.warnings
    assert warning == (
        f"resource.instanceType: lora on phi-4 needs about 33.9 GiB, {V100} has 14.7 GiB usable: use a larger instance "
        "type, or qlora"
    )


def test_a_model_that_cannot_be_tuned_names_those_that_can() -> None:
    with pytest.raises(TuningUnsupported, match=r"gpt-oss-20b cannot be tuned: choose one of .*phi-3-mini-4k-instruct"):
        plan_tuning(catalog.get("gpt-oss-20b"), A100, method="lora")
