"""Whole command lines of the servers and of the tuning job, for one model of each kind."""

from pathlib import Path

import pytest

from kaito.models import catalog, instance_types
from kaito.models.commands import inference_command, inference_environment, tuning_command
from kaito.models.engine import EngineSettings
from kaito.models.planning import InferencePlan, plan_inference, plan_tuning
from kaito.models.sources import Download, LocalWeights

V100, A100 = "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"
A100X2, H200X8 = "Standard_NC48ads_A100_v4", "Standard_ND96isr_H200_v5"
VLLM = {"--trust-remote-code", "--max-model-len=auto", "--gpu-memory-utilization=0.92", "--port=5000"}
NO_HOST_CACHE = "--kaito-kv-cache-cpu-memory-utilization=0"
NO_FUSION = "--compilation-config.pass_config.fuse_allreduce_rms=False"


def plan(preset: str, instance: str, **engine: int) -> InferencePlan:
    options = EngineSettings(**engine)  # type: ignore[arg-type]  # whole numbers only
    return plan_inference(catalog.get(preset), instance_types.get(instance), engine=options)


def flags(command: list[str]) -> set[str]:
    return set(command[2:])


def test_flags_of_a_preset_are_given_to_vllm() -> None:
    command = inference_command(plan("mistral-7b", A100), source=LocalWeights())

    assert command[:2] == ["python3", "/workspace/vllm/inference_api.py"]
    assert flags(command) == VLLM | {
        "--config-format=mistral",
        "--dtype=bfloat16",
        "--enable-auto-tool-choice",
        "--load-format=mistral",
        "--model=/workspace/vllm/weights",
        "--served-model-name=mistral-7b",
        "--tokenizer-mode=mistral",
        "--tool-call-parser=mistral",
    }


def test_chat_templates_that_the_catalog_names_are_in_the_images() -> None:
    images = Path(__file__).parents[3] / "presets" / "images"
    copied = "COPY presets/images/chat_templates /rootfs/workspace/chat_templates"
    for name in ("Dockerfile.vllm", "Dockerfile.serving"):
        assert copied in (images / name).read_text(encoding="utf-8")
    present = {f"/workspace/chat_templates/{path.name}" for path in (images / "chat_templates").iterdir()}
    for preset in catalog.presets():
        for given in (preset.vllm and preset.vllm.flags, preset.transformers and preset.transformers.flags):
            for flag in ("chat-template", "chat_template"):
                template = (given or {}).get(flag)
                assert template is None or template in present, f"{preset.name}: the engine exits without {template}"


@pytest.mark.parametrize(
    ("mode", "architecture"),
    [("deepseek_v32", "DeepseekV32ForCausalLM"), ("deepseek_v4", "DeepseekV4ForCausalLM")],
)
def test_only_models_of_the_architecture_use_its_encoding_of_conversations(mode: str, architecture: str) -> None:
    """vLLM's tokenizer modes replace the chat template of a model; with that of V3.2, R1 gets a prompt that ends its
    reasoning, and calls of tools in a format that its parser does not read."""
    served = [preset for preset in catalog.presets() if preset.supported and preset.vllm]
    using = {preset.name for preset in served if preset.vllm and preset.vllm.flags.get("tokenizer-mode") == mode}
    assert using == {each.name for each in served if each.architecture and each.architecture.name == architecture}
    assert using


def test_flags_of_a_preset_are_given_to_transformers() -> None:
    command = inference_command(plan("mistral-7b", V100), source=LocalWeights(), served_name="mine", config=True)

    assert command[:2] == ["python3", "/workspace/tfs/inference_api.py"]
    assert flags(command) == {
        "--chat_template=/workspace/chat_templates/mistral-instruct.jinja",
        "--config=/mnt/config/inference_config.yaml",
        "--pipeline=text-generation",
        "--port=5000",
        "--pretrained_model_name_or_path=/workspace/tfs/weights",
        "--served_model_name=mine",
        "--torch_dtype=float16",
    }


def test_offload_is_disabled_for_models_that_do_not_support_it() -> None:
    command = inference_command(plan("qwen3.5-9b", A100), served_name="mine", adapters=True, config=True)

    assert flags(command) == VLLM | {
        NO_HOST_CACHE,
        "--download-dir=/workspace/weights",
        "--dtype=bfloat16",
        "--enable-auto-tool-choice",
        "--enable-lora",
        "--gdn-prefill-backend=triton",
        "--kaito-adapters-dir=/mnt/adapter",
        "--kaito-config-file=/mnt/config/inference_config.yaml",
        "--model=Qwen/Qwen3.5-9B",
        "--reasoning-parser=qwen3",
        "--served-model-name=mine",
        "--tool-call-parser=qwen3_coder",
    }


def test_a_download_is_pinned_to_the_revision_of_the_catalog() -> None:
    command = inference_command(plan("deepseek-r1-0528", H200X8))
    revision = "4236a6af538feda4548eca9ab308586007567f52"

    assert flags(command) >= {
        "--model=deepseek-ai/DeepSeek-R1-0528",
        f"--revision={revision}",
        f"--code-revision={revision}",
        "--tensor-parallel-size=8",
        "--dtype=auto",
        NO_FUSION,
    }


# preset, instance type, options, host cache is off, fusion is off, sizes
DIVISIONS: list[tuple[str, str, dict[str, int], bool, bool, set[str]]] = [
    ("phi-4", A100, {}, False, False, set()),
    ("phi-4", A100X2, {}, True, True, {"--data-parallel-size=2"}),
    (
        "phi-4",
        A100X2,
        {"tensor_parallel_size": 2},
        False,
        True,
        {"--data-parallel-size=1", "--pipeline-parallel-size=1", "--tensor-parallel-size=2"},
    ),
    (
        "phi-4",
        A100X2,
        {"pipeline_parallel_size": 2},
        True,
        True,
        {"--data-parallel-size=1", "--pipeline-parallel-size=2", "--tensor-parallel-size=1"},
    ),
    (
        "phi-4",
        A100,
        {"tensor_parallel_size": 1},
        False,
        True,
        {"--data-parallel-size=1", "--pipeline-parallel-size=1", "--tensor-parallel-size=1"},
    ),
    ("qwen2.5-coder-32b-instruct", A100X2, {}, False, True, {"--tensor-parallel-size=2"}),
    ("qwen3.5-4b", A100, {}, True, False, set()),
]


@pytest.mark.parametrize(("preset", "instance", "options", "no_host_cache", "no_fusion", "sizes"), DIVISIONS)
def test_the_division_over_gpus_decides_sizes_host_cache_and_fusion(
    preset: str, instance: str, options: dict[str, int], sizes: set[str], *, no_host_cache: bool, no_fusion: bool
) -> None:
    found = flags(inference_command(plan(preset, instance, **options)))

    assert (NO_HOST_CACHE in found) is no_host_cache
    assert (NO_FUSION in found) is no_fusion
    assert {flag for flag in found if "-parallel-size" in flag} == sizes


def test_options_of_the_user_are_those_of_the_command() -> None:
    options = EngineSettings(
        max_model_len=4096, gpu_memory_utilization=0.8, max_num_seqs=7, kv_cache_dtype="fp8", tensor_parallel_size=1
    )
    found = plan_inference(catalog.get("phi-4"), instance_types.get(A100), engine=options)

    assert flags(inference_command(found, port=8080)) >= {
        "--gpu-memory-utilization=0.8",
        "--kv-cache-dtype=fp8",
        "--max-model-len=4096",
        "--max-num-seqs=7",
        "--port=8080",
    }


@pytest.mark.parametrize(
    ("mode", "given"),
    [("throughput", True), ("interactivity", True), ("balanced", False), ("", False), ("fast", False)],
)
def test_performance_modes_of_vllm(mode: str, *, given: bool) -> None:
    command = inference_command(plan("phi-4", A100), performance_mode=mode)
    assert (f"--performance-mode={mode}" in command) is given
    assert not any("performance" in word for word in inference_command(plan("mistral-7b", V100), performance_mode=mode))


@pytest.mark.parametrize(
    ("preset", "instance", "environment"),
    [
        ("phi-4", A100, {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "0"}),
        ("glm-5.2-fp8", H200X8, {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "1"}),
        ("mistral-7b", V100, {}),
    ],
)
def test_the_environment_switches_kernels_of_vllm(preset: str, instance: str, environment: dict[str, str]) -> None:
    assert inference_environment(plan(preset, instance)) == environment


def test_strengths_are_sorted_by_adapter() -> None:
    environment = inference_environment(plan("mistral-7b", V100), {"b": "", "a": "0.5"})
    assert environment == {"KAITO_ADAPTER_STRENGTHS": '{"a": "0.5", "b": "1.0"}'}


def test_tuning_reads_weights_where_the_source_is() -> None:
    found = plan_tuning(catalog.get("phi-4"), instance_types.get(A100), method="QLoRA")

    downloaded = tuning_command(found, source=Download("org/model", "abc"), results="/r", data="/d", port=1)
    assert downloaded == [
        "python3",
        "/workspace/tfs/fine_tuning.py",
        "--config=/mnt/config/training_config.yaml",
        "--data-dir=/d",
        "--method=qlora",
        "--metrics-port=1",
        "--model=org/model",
        "--model-name=phi-4",
        "--output-dir=/r",
    ]
    assert "--model=/data/phi" in tuning_command(found, source=LocalWeights("/data/phi"))
