"""The error for too little memory names the cause, both amounts of memory, and the remedy."""

import pytest

from kaito.models import catalog, instance_types
from kaito.models.engine import EngineSettings, cache_scale, check_engine
from kaito.models.errors import InstanceTypeTooSmall, InvalidEngineOption, PlanError
from kaito.models.fitting import transformers_shortfall, vllm_shortfall
from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.instance_types import Cloud
from kaito.models.planning import plan_inference
from kaito.models.preset import Preset, Requirement, RuntimeName
from kaito.runtime.meta import Quantity

V100, A10, A100 = "Standard_NC6s_v3", "Standard_NV36ads_A10_v5", "Standard_NC24ads_A100_v4"
A100X2, A100X8, H200X8 = "Standard_NC48ads_A100_v4", "Standard_ND96amsr_A100_v4", "Standard_ND96isr_H200_v5"
SHOWN = {
    V100: f"{V100} (1 x NVIDIA V100, 16 GiB each)",
    A10: f"{A10} (1 x NVIDIA A10, 24 GiB each)",
    A100: f"{A100} (1 x NVIDIA A100, 80 GiB each)",
    A100X2: f"{A100X2} (2 x NVIDIA A100, 80 GiB each)",
    A100X8: f"{A100X8} (8 x NVIDIA A100, 80 GiB each)",
    H200X8: f"{H200X8} (8 x NVIDIA H200, 141 GiB each)",
}
INSTANCE = "resource.instanceType"


def option(name: str) -> str:
    return f"inference.config[vllm.{name}]"


# preset, instance type, options, adapters, field, what comes before "is too small", after it
REFUSALS: list[tuple[str, str, dict[str, float | str], int, str, str, str]] = [
    (
        "deepseek-r1-0528",
        A10,
        {},
        0,
        INSTANCE,
        "16 nodes of ",
        "744.8 GiB, 314.9 GiB are usable: choose a larger one, for example Standard_ND96isr_H200_v5",
    ),
    (
        "qwen3.5-9b",
        A10,
        {"max_num_seqs": 512},
        0,
        option("max-num-seqs"),
        "is 512, and with it 2 nodes of ",
        "46.9 GiB, 39.4 GiB are usable: remove it",
    ),
    (
        "llama-3.3-70b-instruct",
        A100,
        {"max_model_len": 131072},
        0,
        option("max-model-len"),
        "is 131072, and with it 2 nodes of ",
        (
            "185.4 GiB, 147.2 GiB are usable: use at most 6048, or choose a larger one, for example "
            "Standard_NC96ads_A100_v4"
        ),
    ),
    (
        "granite-4.1-8b",
        A10,
        {"max_model_len": 131072},
        4,
        INSTANCE,
        "",
        "39.4 GiB, 19.7 GiB are usable: choose a larger one, for example Standard_NC24ads_A100_v4",
    ),
    (
        "granite-4.1-8b",
        A10,
        {"max_model_len": 131072},
        0,
        option("max-model-len"),
        "is 131072, and with it ",
        "39.0 GiB, 19.7 GiB are usable: use at most 4160, or choose a larger one, for example Standard_NC24ads_A100_v4",
    ),
    (
        "granite-4.1-8b",
        A10,
        {"max_model_len": 30000, "kv_cache_dtype": "float32"},
        0,
        option("max-model-len"),
        "is 30000, and with it ",
        "28.2 GiB, 19.7 GiB are usable: use at most 2080, or choose a larger one, for example Standard_NV72ads_A10_v5",
    ),
    (
        "granite-4.1-8b",
        A10,
        {"max_model_len": 60000, "kv_cache_dtype": "fp8"},
        0,
        option("max-model-len"),
        "is 60000, and with it ",
        "23.6 GiB, 19.7 GiB are usable: use at most 8336, or choose a larger one, for example Standard_NV72ads_A10_v5",
    ),
    (
        "phi-4",
        A100,
        {"gpu_memory_utilization": 0.3},
        0,
        option("gpu-memory-utilization"),
        "is 0.3, and with it ",
        "31.9 GiB, 24.0 GiB are usable: remove it",
    ),
    (
        "qwen3.5-4b",
        A10,
        {"max_num_seqs": 512},
        0,
        option("max-num-seqs"),
        "is 512, and with it ",
        "35.4 GiB, 19.7 GiB are usable: remove it",
    ),
    (
        "llama-3.3-70b-instruct",
        A100X2,
        {"tensor_parallel_size": 1, "pipeline_parallel_size": 1},
        0,
        option("tensor-parallel-size"),
        "is 1, and with it ",
        "143.7 GiB, 73.6 GiB are usable: remove it",
    ),
    (
        "llama-3.3-70b-instruct",
        A100X2,
        {"data_parallel_size": 2},
        0,
        option("data-parallel-size"),
        "is 2, and with it ",
        "143.7 GiB, 73.6 GiB are usable: remove it",
    ),
    (
        "kimi-k2.5",
        H200X8,
        {"tensor_parallel_size": 4},
        0,
        option("tensor-parallel-size"),
        "is 4, and with it ",
        "603.4 GiB, 518.9 GiB are usable: remove it",
    ),
]


@pytest.mark.parametrize(
    ("preset", "instance", "options", "adapters", "field", "before", "after"),
    REFUSALS,
    ids=[f"{row[0]}-{row[4]}" for row in REFUSALS],
)
def test_the_cause_is_named_with_both_amounts_and_a_remedy(
    preset: str, instance: str, options: dict[str, float | str], adapters: int, field: str, before: str, after: str
) -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(
            catalog.get(preset),
            instance_types.get(instance),
            engine=EngineSettings(**options),  # type: ignore[arg-type]  # by name
            adapters=adapters,
            runtime="vllm",
        )

    verb = "are" if "nodes" in before else "is"
    shown = f"{before}{SHOWN[instance]} {verb} too small for {preset}: it takes about {after}"
    assert (caught.value.field, caught.value.message) == (field, shown)


@pytest.mark.parametrize(("context", "fits"), [(4160, True), (4160 + 16, False)])
def test_the_proposed_context_is_the_longest_that_fits(context: int, *, fits: bool) -> None:
    preset, a10 = catalog.get("granite-4.1-8b"), instance_types.get(A10)
    assert (vllm_shortfall(preset, a10, EngineSettings(max_model_len=context)) == "") is fits


@pytest.mark.parametrize(
    ("cloud", "instance", "larger"),
    [("azure", A10, "Standard_NV72ads_A10_v5"), ("aws", "g5.xlarge", "g6.12xlarge")],
)
def test_a_larger_type_is_one_of_the_same_cloud(cloud: Cloud, instance: str, larger: str) -> None:
    with pytest.raises(InstanceTypeTooSmall, match=rf"choose a larger one, for example {larger}$"):
        plan_inference(
            catalog.get("llama-3.1-8b-instruct"),
            instance_types.get(instance, cloud),
            engine=EngineSettings(max_model_len=131072),
            cloud=cloud,
        )


def test_a_model_that_no_node_holds_is_rejected_with_a_smaller_one() -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(catalog.get("deepseek-r1-0528"), instance_types.get("Standard_NC32_A2", "arc"), cloud="arc")
    assert caught.value.message.endswith(
        "are usable: no instance type of arc is large enough for 16 nodes: choose a smaller or quantized preset"
    )


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (
            "phi-3-medium-4k-instruct",
            "28.0 GiB, 16.0 GiB are usable: choose a larger one, for example Standard_NV72ads_A10_v5",
        ),
        ("phi-4", "29.2 GiB, 14.7 GiB are usable: choose a larger one, for example Standard_NV72ads_A10_v5"),
    ],
)
def test_transformers_is_sized_by_what_was_tried_or_by_the_estimate(preset: str, message: str) -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(catalog.get(preset), instance_types.get(V100))
    assert caught.value.message == f"{SHOWN[V100]} is too small for {preset}: it takes about {message}"


def test_options_of_vllm_are_not_blamed_for_transformers() -> None:
    with pytest.raises(InstanceTypeTooSmall) as caught:
        plan_inference(catalog.get("phi-4"), instance_types.get(V100), engine=EngineSettings(max_model_len=16))
    assert caught.value.field == INSTANCE


# ── sizes made up for the boundary ───────────────────────────────────────────────────────────────────────────────────


def node(gpus: int, gib_per_gpu: int) -> InstanceType:
    return InstanceType("size", Gpu("NVIDIA A100", "nvidia", 8.0), gpus, gib_per_gpu * GIB)


def tried(gpus: int, memory: str, memory_per_gpu: str = "0") -> Preset:
    requirement = Requirement(gpus=gpus, memory=Quantity(memory), memory_per_gpu=Quantity(memory_per_gpu))
    return catalog.get("phi-4").model_copy(update={"requirement": requirement})


@pytest.mark.parametrize(
    ("preset", "instance", "shortfall"),
    [
        (tried(1, "9Gi"), node(1, 9), ""),
        (
            tried(1, "10Gi"),
            node(1, 9),
            "size (1 x NVIDIA A100, 9 GiB each) is too small for phi-4: it takes about 10.0 GiB, 9.0 GiB are usable",
        ),
        (tried(2, "9Gi"), node(1, 80), "size (1 x NVIDIA A100, 80 GiB each) has 1 GPUs, phi-4 needs 2"),
        (tried(2, "9Gi"), node(2, 8), ""),
        (tried(1, "9Gi", "8Gi"), node(2, 8), ""),
        (
            tried(1, "9Gi", "8Gi"),
            node(4, 7),
            "size (4 x NVIDIA A100, 7 GiB each) has 7.0 GiB on each GPU, phi-4 needs 8.0 GiB",
        ),
    ],
)
def test_a_requirement_found_by_trying_holds_at_its_value(
    preset: Preset, instance: InstanceType, shortfall: str
) -> None:
    assert transformers_shortfall(preset, instance) == shortfall


@pytest.mark.parametrize(
    ("context", "needed"),
    [
        (131072, "13.2"),  # the default context of 2048 tokens, 1 MiB each
        (1024, "12.2"),
        (0, "13.2"),
    ],
)
def test_the_estimate_counts_the_default_context_or_the_whole_of_a_shorter_one(context: int, needed: str) -> None:
    preset = catalog.get("phi-4").model_copy(
        update={"weights": Quantity("10Gi"), "kv_bytes_per_token": 2**20, "context": context}
    )
    assert f"it takes about {needed} GiB, 11.0 GiB are usable" in transformers_shortfall(preset, node(1, 12))


def test_amounts_of_a_pipeline_are_those_of_all_its_gpus() -> None:
    shown = vllm_shortfall(
        catalog.get("llama-3.3-70b-instruct"),
        node(4, 24),
        EngineSettings(tensor_parallel_size=2, pipeline_parallel_size=2),
    )
    assert shown == (
        "size (4 x NVIDIA A100, 24 GiB each) is too small for llama-3.3-70b-instruct: it takes about 150.6 GiB, "
        "88.3 GiB are usable"
    )


# ── options that cannot be ───────────────────────────────────────────────────────────────────────────────────────────

WHOLE = "use a whole number of at least 1, or remove it"
SHARE = "use a share of the GPU's memory above 0 and at most 1, for example 0.9"
FORMAT = "use a number format that vLLM supports, for example auto or fp8"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_model_len", 0, f"is 0: {WHOLE}"),
        ("max_num_seqs", 0, f"is 0: {WHOLE}"),
        ("tensor_parallel_size", 0, f"is 0: {WHOLE}"),
        ("pipeline_parallel_size", -1, f"is -1: {WHOLE}"),
        ("data_parallel_size", 0, f"is 0: {WHOLE}"),
        ("gpu_memory_utilization", 0.0, f"is 0.0: {SHARE}"),
        ("gpu_memory_utilization", 1.01, f"is 1.01: {SHARE}"),
        ("kv_cache_dtype", "FP8", f"is 'FP8': {FORMAT}"),
        ("kv_cache_dtype", "", f"is '': {FORMAT}"),
    ],
)
def test_an_option_outside_its_range_is_rejected(name: str, value: float | str, message: str) -> None:
    with pytest.raises(InvalidEngineOption) as caught:
        check_engine(EngineSettings(**{name: value}))  # type: ignore[arg-type]  # by name
    assert (caught.value.field, caught.value.message) == (option(name.replace("_", "-")), message)
    assert caught.value.reason == "InvalidSpec"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_model_len", 1),
        ("gpu_memory_utilization", 1.0),
        ("gpu_memory_utilization", 0.01),
        ("kv_cache_dtype", "fp8_e4m3"),
    ],
)
def test_an_option_at_the_end_of_its_range_is_accepted(name: str, value: float | str) -> None:
    engine = EngineSettings(**{name: value})  # type: ignore[arg-type]  # by name
    check_engine(engine)
    assert getattr(engine, name) == value


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (None, 1.0),
        ("", 1.0),
        ("auto", 1.0),
        ("bfloat16", 1.0),
        ("float16", 1.0),
        ("fp8", 0.5),
        ("fp8_e4m3", 0.5),
        ("int8", 0.5),
        ("float32", 2.0),
    ],
)
def test_a_number_of_the_cache_takes_its_format_s_size(dtype: str | None, scale: float) -> None:
    assert cache_scale(dtype) == scale


# preset, instance type, options, field, message
DIVISIONS: list[tuple[str, str, dict[str, int], str, str]] = [
    (
        "phi-4",
        A100,
        {"max_model_len": 16385},
        "max-model-len",
        "is 16385, which exceeds the model's maximum context of 16384 tokens (phi-4): use at most 16384, or remove it",
    ),
    (
        "phi-4",
        A100,
        {"tensor_parallel_size": 2},
        "tensor-parallel-size",
        f"is 2, {SHOWN[A100]} has 1 GPU: use sizes whose product is at most 1, or a larger node",
    ),
    (
        "phi-4",
        A100X2,
        {"tensor_parallel_size": 3},
        "tensor-parallel-size",
        f"is 3, {SHOWN[A100X2]} has 2 GPUs: use sizes whose product is at most 2, or a larger node",
    ),
    (
        "phi-4",
        A100X2,
        {"tensor_parallel_size": 2, "data_parallel_size": 2},
        "tensor-parallel-size",
        (
            f"is 2 and needs 4 GPUs with data-parallel-size 2, {SHOWN[A100X2]} has 2 GPUs: "
            "use sizes whose product is at most 2, or a larger node"
        ),
    ),
    (
        "phi-4",
        A100X8,
        {"pipeline_parallel_size": 5, "tensor_parallel_size": 2, "data_parallel_size": 2},
        "pipeline-parallel-size",
        (
            f"is 5 and needs 20 GPUs with tensor-parallel-size 2 and data-parallel-size 2, {SHOWN[A100X8]} has 8 GPUs: "
            "use sizes whose product is at most 8, or a larger node"
        ),
    ),
    (
        "phi-4",
        A100X8,
        {"tensor_parallel_size": 3},
        "tensor-parallel-size",
        "is 3, which does not divide the 40 attention heads and 10 key-value heads of phi-4: use 1 or 2 or 5",
    ),
]


@pytest.mark.parametrize(
    ("preset", "instance", "options", "name", "message"), DIVISIONS, ids=[str(row[2]) for row in DIVISIONS]
)
def test_an_option_that_the_model_or_node_cannot_have_is_rejected(
    preset: str, instance: str, options: dict[str, int], name: str, message: str
) -> None:
    with pytest.raises(InvalidEngineOption) as caught:
        plan_inference(catalog.get(preset), instance_types.get(instance), engine=EngineSettings(**options))  # type: ignore[arg-type]  # by name
    assert (caught.value.field, caught.value.message) == (option(name), message)


def test_more_stages_than_layers_are_rejected() -> None:
    with pytest.raises(InvalidEngineOption) as caught:
        plan_inference(catalog.get("phi-4"), node(64, 80), engine=EngineSettings(pipeline_parallel_size=41))
    assert caught.value.field == option("pipeline-parallel-size")
    assert caught.value.message == "is 41, phi-4 has 40 layers: use at most 40"
    plan = plan_inference(catalog.get("phi-4"), node(64, 80), engine=EngineSettings(pipeline_parallel_size=40))
    assert plan.parallelism.pipeline == 40


USED_SHARE = option("gpu-memory-utilization")

# preset, instance type, options, runtime, warnings
WARNINGS: list[tuple[str, str, dict[str, float], RuntimeName | None, list[str]]] = [
    ("phi-4", A100, {"gpu_memory_utilization": 0.95}, None, []),
    (
        "phi-4",
        A100,
        {"gpu_memory_utilization": 0.96},
        None,
        [f"{USED_SHARE}: 0.96 is more than the 0.92 that NVIDIA A100 usually has free: vLLM may not start"],
    ),
    ("granite-4.1-8b", A10, {"gpu_memory_utilization": 0.85}, None, []),
    (
        "granite-4.1-8b",
        A10,
        {"gpu_memory_utilization": 0.86},
        None,
        [f"{USED_SHARE}: 0.86 is more than the 0.82 that NVIDIA A10 usually has free: vLLM may not start"],
    ),
    (
        "phi-4",
        A100X2,
        {"tensor_parallel_size": 1},
        None,
        [f"{option('tensor-parallel-size')}: the parallel sizes use 1 of the 2 GPUs of {A100X2}"],
    ),
    ("phi-4", A100X2, {"tensor_parallel_size": 2}, None, []),
    (
        "phi-4",
        A100,
        {"max_model_len": 4096},
        "transformers",
        ["inference.config: the vllm section has no effect: phi-4 runs on transformers here"],
    ),
]


@pytest.mark.parametrize(("preset", "instance", "options", "runtime", "warnings"), WARNINGS)
def test_what_works_but_is_probably_not_wanted_is_a_warning(
    preset: str, instance: str, options: dict[str, float], runtime: RuntimeName | None, warnings: list[str]
) -> None:
    engine = EngineSettings(**options)  # type: ignore[arg-type]  # by name
    plan = plan_inference(catalog.get(preset), instance_types.get(instance), engine=engine, runtime=runtime)
    assert list(plan.warnings) == warnings


def test_every_error_is_a_plan_error() -> None:
    assert issubclass(InstanceTypeTooSmall, PlanError)
    assert InstanceTypeTooSmall.reason == "InstanceTypeTooSmall"
