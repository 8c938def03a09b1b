"""Plans all presets on all current NVIDIA sizes of Azure (720 pairs), and checks properties and the page of presets."""

from dataclasses import replace
from pathlib import Path

import pytest

from kaito.models import catalog, instance_types
from kaito.models.commands import inference_command
from kaito.models.engine import EngineSettings
from kaito.models.errors import InstanceTypeTooSmall
from kaito.models.gpu import GIB, InstanceType
from kaito.models.parallelism import MAX_NODES_PER_COPY
from kaito.models.planning import InferencePlan, plan_inference
from kaito.models.preset import Preset
from kaito.models.sizing import UPSTREAM_UTILIZATION, overhead, upstream_estimate, utilization

SIZES = instance_types.current("azure")
PAIRS: list[tuple[Preset, InstanceType]] = [(preset, size) for preset in catalog.presets() for size in SIZES]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "presets.md"

ON_SEVERAL_NODES = 174
REFUSED = 19
"""Pairs that need several nodes in upstream as well: those that run on up to 16 nodes, and the others."""

GAINED = {
    ("deepseek-v4-flash-0731", "Standard_NC80adis_H100_v5"),
    ("gpt-oss-120b", "Standard_NC24ads_A100_v4"),
    ("gpt-oss-120b", "Standard_NC40ads_H100_v5"),
    ("gpt-oss-120b", "Standard_NC48ads_A100_v4"),
    ("gpt-oss-120b", "Standard_NCC40ads_H100_v5"),
    ("gpt-oss-20b", "Standard_NV36ads_A10_v5"),
    ("llama-3.3-70b-instruct", "Standard_NC48ads_A100_v4"),
    ("mistral-medium-3.5-128b", "Standard_NC48ads_A100_v4"),
    ("mistral-small-4-119b-2603-nvfp4", "Standard_NC24ads_A100_v4"),
    ("qwen2.5-coder-32b-instruct", "Standard_NC24ads_A100_v4"),
    ("qwen3.5-122b-a10b-gptq-int4", "Standard_NC40ads_H100_v5"),
    ("qwen3.5-122b-a10b-gptq-int4", "Standard_NCC40ads_H100_v5"),
}
"""Pairs that upstream v0.12's formula puts on several nodes, and that run on one."""

DOUBLE_COUNTED = {"gpt-oss-120b": 121.54 * GIB, "gpt-oss-20b": 25.63 * GIB}
"""Sizes in upstream v0.12's catalog that count a second copy of the weights."""


def plan(preset: Preset, size: InstanceType) -> InferencePlan | None:
    try:
        return plan_inference(preset, size)
    except InstanceTypeTooSmall:
        return None


def plan_on_one_node(preset: Preset, size: InstanceType) -> InferencePlan | None:
    found = plan(preset, size)
    return found if found is not None and found.nodes_per_copy == 1 else None


def test_of_720_pairs_only_those_are_refused_that_no_number_of_nodes_up_to_the_limit_serves() -> None:
    found = [plan(preset, size) for preset, size in PAIRS]

    assert len(PAIRS) == 720
    assert found.count(None) == REFUSED
    assert sum(each is not None and each.nodes_per_copy > 1 for each in found) == ON_SEVERAL_NODES
    for (preset, size), each in zip(PAIRS, found, strict=True):
        if each is None:
            assert least_gpus(preset, size) > MAX_NODES_PER_COPY * size.gpus, (preset.name, size.name)
        elif each.nodes_per_copy > 1:
            assert least_gpus(preset, size) > (each.nodes_per_copy - 1) * size.gpus, (preset.name, size.name)


def least_gpus(preset: Preset, size: InstanceType) -> int:
    """The GPUs that one copy needs by the sum of its parts, written out again; more than 128 are 129."""
    base = 1.5 if size.gpu.name == "NVIDIA A10" else 2.3
    share = 0.82 if size.gpu.name == "NVIDIA A10" else 0.92
    shape = preset.architecture
    assert shape is not None
    for gpus in range(1, 129):
        stages, tensor = max(gpus // size.gpus, 1), min(size.gpus, gpus)
        stage = -(-shape.layers // stages) / shape.layers
        cached = preset.cache_bytes(2048) / (1 if shape.attention == "MLA" else min(tensor, shape.kv_heads))
        parts = preset.weights_bytes * 1.02 * 1.05 / tensor + cached + preset.state_bytes * 16 / tensor
        if parts * stage + base * GIB <= size.memory_per_gpu * share:
            return gpus
    return 129


def test_what_upstream_serves_on_one_node_runs_on_one_node() -> None:
    """By upstream's formula of v0.12 with its catalog, and by its corrected formula."""
    gained: set[tuple[str, str]] = set()
    for preset, size in PAIRS:
        weights = preset.weights_bytes
        then = upstream_estimate(
            weights=DOUBLE_COUNTED.get(preset.name, weights),
            kv_bytes_per_token=preset.kv_bytes_per_token,
            node_memory=size.gpu_memory,
            gpus=size.gpus,
            share=UPSTREAM_UTILIZATION,
        ).nodes
        now = upstream_estimate(
            weights=weights,
            kv_bytes_per_token=preset.kv_bytes_per_token,
            node_memory=size.gpu_memory,
            gpus=size.gpus,
            share=utilization(size.gpu),
            base=overhead(size.gpu),
            state=preset.state_bytes * 64,
        ).nodes
        runs = plan_on_one_node(preset, size) is not None
        assert runs or min(then, now) > 1, (preset.name, size.name)
        if runs and then > 1:
            gained.add((preset.name, size.name))

    assert gained == GAINED


def test_nothing_is_accepted_that_the_formula_refuses() -> None:
    """Weights x 1.02 x 1.05 over the GPUs of one copy, the fixed overhead, 2,048 tokens of cache, state of 16 requests;
    written out again, so that a mistake in the code cannot agree with itself."""
    for preset, size in PAIRS:
        found = plan(preset, size)
        if found is None:
            continue
        shape, divided = preset.architecture, found.parallelism
        assert shape is not None
        largest_stage = -(-shape.layers // divided.pipeline) / shape.layers
        assert divided.pipeline <= shape.layers
        ranks = divided.tensor / largest_stage
        base = 1.5 if size.gpu.name == "NVIDIA A10" else 2.3
        share = 0.82 if size.gpu.name == "NVIDIA A10" else 0.92
        least_cache = 0 if shape.full_layers else 2048 * preset.kv_bytes_per_token / ranks
        state = shape.state_layers * shape.state_bytes_per_layer * 16 / ranks
        needed = preset.weights_bytes * 1.02 * 1.05 / ranks + base * GIB + least_cache + state
        assert needed <= size.memory_per_gpu * share, (preset.name, size.name)


@pytest.mark.parametrize("preset", catalog.presets(), ids=lambda preset: preset.name)
def test_more_memory_or_more_gpus_never_lose_a_model(preset: Preset) -> None:
    for gpu in {size.gpu for size in SIZES}:
        for gpus in (1, 2, 4, 8):
            runs = [
                plan(preset, InstanceType("x", gpu, gpus, memory * GIB)) is not None
                for memory in (16, 24, 40, 48, 80, 94, 141, 180, 288)
            ]
            assert runs == sorted(runs), (gpu.name, gpus)
        for memory in (24, 80, 141):
            runs = [plan(preset, InstanceType("x", gpu, gpus, memory * GIB)) is not None for gpus in (1, 2, 4, 8, 16)]
            assert runs == sorted(runs), (gpu.name, memory)


def test_plan_and_command_agree() -> None:
    for preset, size in PAIRS:
        found = plan(preset, size)
        if found is None:
            continue
        split = (word.removeprefix("--").partition("=") for word in inference_command(found)[2:])
        words = {name: value for name, _, value in split}
        assert words["gpu-memory-utilization"] == f"{utilization(size.gpu):.2f}"
        sizes = [int(words.get(f"{name}-parallel-size", "1")) for name in ("tensor", "pipeline", "data")]
        assert sizes == [found.parallelism.tensor, found.parallelism.pipeline, found.parallelism.data]
        assert found.parallelism.gpus == size.gpus * found.nodes_per_copy
        assert int(words.get("kaito-nodes", "1")) == found.nodes_per_copy


def refusal(preset: Preset, size: InstanceType) -> str:
    try:
        plan_inference(preset, size)
    except InstanceTypeTooSmall as error:
        return error.message
    return ""


def test_a_rejection_names_a_size_on_which_it_runs() -> None:
    refusals = [(preset, refusal(preset, size)) for preset, size in PAIRS]
    for preset, message in refusals:
        larger = instance_types.find(message.rpartition("for example ")[2])
        if larger is not None:
            assert plan(preset, larger) is not None
        elif message:
            assert "no instance type of azure is large enough" in message
            assert not any(plan(preset, other) for other in SIZES)


def test_the_page_of_presets_has_the_same_answers() -> None:
    lines = PAGE.read_text(encoding="utf-8").partition("## What runs where")[2].splitlines()
    head, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert len(body) == 60
    assert head[1:] == [size.name.removeprefix("Standard_").replace("_", " ") for size in SIZES]
    recorded = {(row[0].strip("`"), size.name): cell for row in body for size, cell in zip(SIZES, row[1:], strict=True)}
    for preset, size in PAIRS:
        found, cell = plan(preset, size), recorded[preset.name, size.name]
        assert bool(cell) is (found is not None), (preset.name, size.name)
        nodes = int(cell.partition(" nodes")[0]) if " nodes" in cell else 1
        assert found is None or nodes == found.nodes_per_copy, (preset.name, size.name)


@pytest.mark.parametrize("preset", catalog.presets(), ids=lambda preset: preset.name)
def test_the_size_of_the_weights_fits_their_number_and_format(preset: Preset) -> None:
    """A second copy, a missing shard or a wrong format is far outside these bounds.

    Bytes for each parameter: 2 for 16 bits. Quantised models keep embeddings, norms and sometimes attention at 16
    bits, and have scales: 8 bits are 0.95 to 1.25, 4 bits 0.5 to 0.8. DeepSeek V4 mixes 4 and 8 bits.
    """
    low, high = BYTES_PER_PARAMETER[preset.quantization]
    if preset.name.startswith("deepseek-v4"):
        low, high = 0.5, 0.65

    assert low <= preset.weights_bytes / (preset.parameters * 1e9) <= high


BYTES_PER_PARAMETER = {
    "": (1.9, 2.1),
    "fp8": (0.95, 1.25),
    "float-quantized": (0.95, 1.25),
    "awq": (0.5, 0.8),
    "gptq": (0.5, 0.8),
    "mxfp4": (0.5, 0.8),
    "nvfp4-pack-quantized": (0.5, 0.8),
    "MIXED_PRECISION": (0.5, 0.8),
    "pack-quantized": (0.5, 0.8),
}


def test_a_hybrid_models_state_is_what_the_engine_allocates() -> None:
    """Bytes a layer of upstream's generator for the dimensions of three models, and layers that add up."""
    shapes = {p.name: p.architecture for p in catalog.presets() if p.architecture and p.architecture.state_layers}
    per_layer = {name: (s.state_layers, s.state_bytes_per_layer, s.full_layers) for name, s in shapes.items()}

    assert per_layer["qwen3.6-27b"] == (48, 3207168, 16)
    assert per_layer["qwen3.6-35b-a3b"] == (30, 2146304, 10)
    assert per_layer["nvidia-nemotron-3-super-120b-a12b-bf16"] == (40, 4255744, 8)
    assert all(s.state_layers + s.full_layers <= s.layers for s in shapes.values())
    hybrids = ("nemotron", "nvidia-nemotron", "qwen3.5", "qwen3.6", "qwen3.8")
    assert set(shapes) == {p.name for p in catalog.presets() if p.name.startswith(hybrids)}


def test_a_hybrid_models_state_decides_on_a_small_gpu() -> None:
    """Upstream pull request 2302: Nemotron-Nano-9B-v2 does not start on one A10."""
    a10 = instance_types.get("Standard_NV36ads_A10_v5")
    nemotron = catalog.get("nvidia-nemotron-nano-9b-v2")
    assert plan_inference(nemotron, a10).nodes_per_copy == 2
    assert plan_inference(catalog.get("granite-4.1-8b"), a10).warnings == ()
    assert plan_inference(nemotron, replace(a10, gpus=2)).warnings == ()


@pytest.mark.parametrize(
    ("name", "context", "share"),
    [
        ("gemma-4-31b-it", 262144, (10 * 262144 + 50 * 2 * 9216) / (60 * 262144)),
        ("gemma-3-27b-instruct", 131072, (10 * 131072 + 52 * 9216) / (62 * 131072)),
        ("gpt-oss-120b", 131072, (18 * 131072 + 18 * 8320) / (36 * 131072)),
        ("nvidia-nemotron-nano-9b-v2", 131072, 4 / 56),
        ("qwen3.6-27b", 262144, 1 / 4),
        ("llama-3.3-70b-instruct", 131072, 1.0),
        ("gemma-4-31b-it", 2048, (10 + 50 * 2) / 60),
        ("gemma-4-e2b-it", 131072, (3 * 131072 + 12 * 8704 / 2) / (35 * 131072)),
    ],
)
def test_layers_that_keep_a_window_or_a_state_do_not_count_as_full(name: str, context: int, share: float) -> None:
    preset = catalog.get(name)

    assert preset.cache_bytes(context) == pytest.approx(preset.kv_bytes_per_token * context * share)


def test_a_long_context_of_a_model_with_windows_fits_where_it_does() -> None:
    """Counting all 60 layers like those with a window would need 15 GiB at 8 bits, and the model would not fit."""
    a100 = instance_types.get("Standard_NC24ads_A100_v4")

    assert (
        plan_inference(
            catalog.get("gemma-4-31b-it"), a100, engine=EngineSettings(max_model_len=16384, kv_cache_dtype="fp8")
        ).warnings
        == ()
    )
