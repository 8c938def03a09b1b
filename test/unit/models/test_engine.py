"""Options of the engine: ranges, and what they change in a plan and in its command."""

import random
import re
from typing import Any

import pytest

from kaito.models import catalog, instance_types
from kaito.models.commands import inference_command
from kaito.models.engine import EngineSettings, check_engine
from kaito.models.errors import InstanceTypeTooSmall, InvalidEngineOption, PlanError
from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.parallelism import Parallelism
from kaito.models.planning import plan_inference

A10 = instance_types.get("Standard_NV36ads_A10_v5")
A100 = instance_types.get("Standard_NC24ads_A100_v4")
A100X4 = instance_types.get("Standard_NC96ads_A100_v4")
LLAMA_8B = catalog.get("llama-3.1-8b-instruct")


def flags(preset: str, instance: str, **engine: Any) -> dict[str, str]:
    plan = plan_inference(catalog.get(preset), instance_types.get(instance), engine=EngineSettings(**engine))
    words = (word.removeprefix("--").partition("=") for word in inference_command(plan)[2:])
    return {name: value for name, _, value in words}


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("max_model_len", 0, "inference.config[vllm.max-model-len]"),
        ("max_model_len", -5, "inference.config[vllm.max-model-len]"),
        ("max_num_seqs", 0, "inference.config[vllm.max-num-seqs]"),
        ("tensor_parallel_size", 0, "inference.config[vllm.tensor-parallel-size]"),
        ("pipeline_parallel_size", -1, "inference.config[vllm.pipeline-parallel-size]"),
        ("data_parallel_size", 0, "inference.config[vllm.data-parallel-size]"),
        ("gpu_memory_utilization", 0.0, "inference.config[vllm.gpu-memory-utilization]"),
        ("gpu_memory_utilization", 1.01, "inference.config[vllm.gpu-memory-utilization]"),
        ("gpu_memory_utilization", float("nan"), "inference.config[vllm.gpu-memory-utilization]"),
        ("kv_cache_dtype", "fp 8", "inference.config[vllm.kv-cache-dtype]"),
    ],
)
def test_an_option_out_of_range_names_its_key(option: str, value: float | str, field: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InvalidEngineOption) as caught:
        check_engine(EngineSettings(**options))

    assert caught.value.field == field
    assert f"is {value!r}" in caught.value.message


def test_a_context_beyond_the_models_own_is_rejected() -> None:
    with pytest.raises(
        InvalidEngineOption,
        match=r"max-model-len\]: is 9999999, which exceeds the model's maximum context of 131072 tokens",
    ):
        plan_inference(LLAMA_8B, A100, engine=EngineSettings(max_model_len=9999999))
    assert plan_inference(LLAMA_8B, A100, engine=EngineSettings(max_model_len=131072)).warnings == ()


def test_a_context_that_does_not_fit_is_rejected_with_one_that_does() -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(LLAMA_8B, A10, engine=EngineSettings(max_model_len=131072))

    assert caught.value.field == "inference.config[vllm.max-model-len]"
    assert "it takes about 33.5 GiB, 19.7 GiB are usable" in caught.value.message
    most = int(re.findall(r"use at most (\d+)", caught.value.message)[0])
    assert plan_inference(LLAMA_8B, A10, engine=EngineSettings(max_model_len=most)).warnings == ()
    with pytest.raises(InstanceTypeTooSmall):
        plan_inference(LLAMA_8B, A10, engine=EngineSettings(max_model_len=most + 16))
    larger = re.findall(r"for example (\S+)", caught.value.message)[0]
    larger_plan = plan_inference(LLAMA_8B, instance_types.get(larger), engine=EngineSettings(max_model_len=131072))
    assert larger_plan.warnings == ()


def test_more_tensor_ranks_than_gpus_are_rejected() -> None:
    with pytest.raises(
        InvalidEngineOption, match=r"tensor-parallel-size\]: is 3, .*has 1 GPU: use sizes whose product is at most 1"
    ):
        plan_inference(LLAMA_8B, A10, engine=EngineSettings(tensor_parallel_size=3))
    with pytest.raises(InvalidEngineOption, match=r"data-parallel-size\]: is 4 and needs 8 GPUs with tensor-parall"):
        plan_inference(LLAMA_8B, A100X4, engine=EngineSettings(tensor_parallel_size=2, data_parallel_size=4))


def test_tensor_ranks_must_divide_the_heads() -> None:
    with pytest.raises(InvalidEngineOption, match=r"is 3, which does not divide the 32 attention heads .* use 1 or 2 "):
        plan_inference(LLAMA_8B, A100X4, engine=EngineSettings(tensor_parallel_size=3))


def test_more_stages_than_layers_are_rejected() -> None:
    big = InstanceType("x", A100.gpu, 64, A100.memory_per_gpu)
    with pytest.raises(InvalidEngineOption, match=r"pipeline-parallel-size\]: is 64, .* has 32 layers"):
        plan_inference(LLAMA_8B, big, engine=EngineSettings(pipeline_parallel_size=64))


def test_parallel_sizes_of_the_user_replace_the_planned_ones() -> None:
    plan = plan_inference(LLAMA_8B, A100X4, engine=EngineSettings(tensor_parallel_size=2))

    assert plan.parallelism == Parallelism(tensor=2, pipeline=1, data=1)
    (warning,) = plan.warnings
    assert warning.endswith("the parallel sizes use 2 of the 4 GPUs of Standard_NC96ads_A100_v4")
    command = set(inference_command(plan))
    assert {"--tensor-parallel-size=2", "--pipeline-parallel-size=1", "--data-parallel-size=1"} <= command


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"data_parallel_size": 1}, Parallelism(tensor=4)),
        ({"data_parallel_size": 2}, Parallelism(tensor=2, data=2)),
        ({"pipeline_parallel_size": 2}, Parallelism(tensor=2, pipeline=2)),
        ({"pipeline_parallel_size": 3}, Parallelism(tensor=1, pipeline=3)),
        ({"tensor_parallel_size": 4}, Parallelism(tensor=4)),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2}, Parallelism(tensor=2, data=2)),
        ({"tensor_parallel_size": 1, "pipeline_parallel_size": 2}, Parallelism(pipeline=2)),
    ],
)
def test_sizes_that_the_user_leaves_out_use_the_remaining_gpus(options: dict[str, int], expected: Parallelism) -> None:
    assert plan_inference(LLAMA_8B, A100X4, engine=EngineSettings(**options)).parallelism == expected  # type: ignore[arg-type]


def test_parallel_sizes_too_small_for_the_model_are_blamed() -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(catalog.get("llama-3.3-70b-instruct"), A100X4, engine=EngineSettings(tensor_parallel_size=1))

    assert caught.value.field == "inference.config[vllm.tensor-parallel-size]"


def test_the_users_share_is_sized_with_and_passed_on() -> None:
    assert flags("llama-3.1-8b-instruct", A100.name, gpu_memory_utilization=0.9)["gpu-memory-utilization"] == "0.9"
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(LLAMA_8B, A10, engine=EngineSettings(gpu_memory_utilization=0.3))
    assert caught.value.field == "inference.config[vllm.gpu-memory-utilization]"
    assert caught.value.message.endswith("remove it")
    (warning,) = plan_inference(LLAMA_8B, A10, engine=EngineSettings(gpu_memory_utilization=0.99)).warnings
    assert "0.99 is more than the 0.82 that NVIDIA A10 usually has free" in warning


def test_a_small_cache_format_makes_room_for_context() -> None:
    wide = EngineSettings(max_model_len=32768)
    with pytest.raises(InstanceTypeTooSmall):
        plan_inference(LLAMA_8B, A10, engine=wide)
    assert flags("llama-3.1-8b-instruct", A10.name, max_model_len=16384, kv_cache_dtype="fp8") | {
        "max-model-len": "16384",
        "kv-cache-dtype": "fp8",
    } == flags("llama-3.1-8b-instruct", A10.name, max_model_len=16384, kv_cache_dtype="fp8")


def test_a_long_context_takes_all_gpus_instead_of_copies() -> None:
    preset = catalog.get("phi-3-mini-128k-instruct")

    assert plan_inference(preset, A100X4).parallelism == Parallelism(data=4)
    engine = EngineSettings(max_model_len=131072, gpu_memory_utilization=0.6)
    assert plan_inference(preset, A100X4, engine=engine).parallelism == Parallelism(tensor=4)


def test_adapters_take_memory() -> None:
    preset = catalog.get("granite-4.1-8b")

    assert plan_inference(preset, A10, adapters=1).warnings == ()
    with pytest.raises(InstanceTypeTooSmall):
        plan_inference(preset, A10, adapters=10)


def test_the_size_check_can_be_bypassed_but_not_the_models_maximum() -> None:
    (warning,) = plan_inference(LLAMA_8B, A10, engine=EngineSettings(max_model_len=131072), bypass_size=True).warnings
    assert "too small for llama-3.1-8b-instruct" in warning
    with pytest.raises(InvalidEngineOption):
        plan_inference(LLAMA_8B, A10, engine=EngineSettings(max_model_len=131073), bypass_size=True)


def test_transformers_does_not_read_the_options() -> None:
    plan = plan_inference(LLAMA_8B, A100, runtime="transformers", engine=EngineSettings(max_model_len=4096))

    assert plan.engine == EngineSettings()
    (warning,) = plan.warnings
    assert "inference.config: the vllm section has no effect" in warning


def test_a_hybrid_model_gets_as_many_concurrent_requests_as_its_state_has_room_for() -> None:
    few = flags("qwen3.5-122b-a10b-gptq-int4", "Standard_NC40ads_H100_v5")

    assert 64 < int(few["max-num-seqs"]) < 256
    assert "max-num-seqs" not in flags("qwen3.5-2b", "Standard_NC80adis_H100_v5")
    assert "max-num-seqs" not in flags("llama-3.1-8b-instruct", A10.name)
    assert flags("llama-3.1-8b-instruct", A10.name, max_num_seqs=8)["max-num-seqs"] == "8"
    with pytest.raises(InstanceTypeTooSmall) as caught:
        flags("nvidia-nemotron-3-nano-4b-bf16", A10.name, max_num_seqs=512)
    assert caught.value.field == "inference.config[vllm.max-num-seqs]"


CHOICES: dict[str, tuple[float | str, ...]] = {
    "max_model_len": (1, 15, 16, 2048, 131072, 10**9),
    "gpu_memory_utilization": (1e-9, 0.1, 0.5, 0.9, 0.99, 1.0),
    "tensor_parallel_size": (1, 2, 3, 7, 8, 10**12),
    "pipeline_parallel_size": (1, 2, 3, 64, 10**12),
    "data_parallel_size": (1, 2, 5, 10**12),
    "max_num_seqs": (1, 64, 1024, 10**9),
    "kv_cache_dtype": ("auto", "fp8", "bfloat16", "float32"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("seed", range(10))
def test_any_options_on_any_node_are_planned_or_rejected_with_a_field(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        gpu = Gpu(rng.choice(["NVIDIA A10", "NVIDIA H200", "Z"]), "nvidia", rng.choice([None, 7.0, 9.0]))
        gpus, memory = rng.choice([1, 2, 3, 5, 6, 8, 12, 1024]), rng.choice([1, 8, 24, 80, 288])
        options: dict[str, Any] = {name: rng.choice(values) for name, values in CHOICES.items() if rng.random() < 0.3}
        preset, node = rng.choice(catalog.presets()), InstanceType("x", gpu, gpus, memory * GIB)
        try:
            plan = plan_inference(preset, node, engine=EngineSettings(**options), adapters=rng.choice([0, 1, 10]))
        except PlanError as refused:
            fields = ("inference.config[vllm.", "resource.instanceType")
            assert refused.field.startswith(fields), (preset.name, options)  # noqa: PT017 - some are planned
            continue
        assert plan.parallelism.gpus_per_node <= gpus
        words = inference_command(plan)
        given = {name.replace("_", "-"): value for name, value in options.items() if plan.runtime == "vllm"}
        assert all(f"--{name}={value:g}" in words for name, value in given.items() if isinstance(value, float))
        assert all(f"--{name}={value}" in words for name, value in given.items() if not isinstance(value, float))
