"""Building vLLM's command line, pure."""

import json
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import AdapterError, ConfigurationError
from kaito_presets.serving.adapters import Adapter
from kaito_presets.vllm.arguments import (
    GIB,
    ModelProperties,
    command_line,
    engine_flags,
    read_model,
    scaled_adapters,
    smaller_context,
)
from kaito_presets.vllm.hardware import Gpu, parse_gpus
from kaito_presets.vllm.options import read_options, split_flags

PHI_3 = ModelProperties(int(7.12 * GIB), 4096, 393_216, 32, "bfloat16")
PHI_3_LONG = ModelProperties(int(7.12 * GIB), 131_072, 393_216, 32, "bfloat16")
V100 = Gpu("Tesla V100", 16 * GIB, int(15.8 * GIB), (7, 0))
A100 = Gpu("A100", 80 * GIB, 79 * GIB, (8, 0))


def flags(
    given: dict[str, Any] | None = None,
    *,
    model: ModelProperties = PHI_3,
    gpus: tuple[Gpu, ...] = (A100,),
    nodes: int = 1,
    adapters: tuple[Adapter, ...] = (),
) -> dict[str, Any]:
    paths = {adapter.name: adapter.path for adapter in adapters}
    return engine_flags(given or {}, model=model, gpus=gpus, nodes=nodes, adapters=adapters, adapter_paths=paths)


def test_one_gpu_has_only_a_memory_utilization_flag() -> None:
    assert flags() == {"uvicorn-log-level": "error", "gpu-memory-utilization": 0.95}


def test_gpu_without_bfloat16_gets_float16_and_a_context_that_fits() -> None:
    chosen = flags({"dtype": "auto"}, model=PHI_3_LONG, gpus=(V100,))
    assert chosen["dtype"] == "float16"
    assert 10_000 < chosen["max-model-len"] < 16_000
    assert chosen["max-model-len"] % 16 == 0


@pytest.mark.parametrize(
    ("model", "gpus", "nodes", "expected"),
    [
        (PHI_3, (A100,) * 2, 1, {"data-parallel-size": 2, "tensor-parallel-size": 1}),
        (ModelProperties(140 * GIB, 4096, 1, 64), (A100,) * 4, 1, {"tensor-parallel-size": 4}),
        # 40 heads cannot be dealt to 3 GPUs.
        (ModelProperties(140 * GIB, 4096, 1, 40), (A100,) * 3, 1, {"tensor-parallel-size": 2}),
        (
            ModelProperties(300 * GIB, 4096, 1, 64),
            (A100,) * 4,
            2,
            {"tensor-parallel-size": 4, "pipeline-parallel-size": 2},
        ),
    ],
)
def test_parallelism(model: ModelProperties, gpus: tuple[Gpu, ...], nodes: int, expected: dict[str, Any]) -> None:
    chosen = flags(model=model, gpus=gpus, nodes=nodes)
    parallel = {key: value for key, value in chosen.items() if "parallel" in key or "backend" in key}
    assert parallel == expected


def test_given_flags_take_precedence() -> None:
    given = {"tensor-parallel-size": "2", "gpu-memory-utilization": 0.5, "max-model-len": 100, "dtype": "float32"}
    chosen = flags(given, gpus=(V100, V100))
    assert {key: chosen[key] for key in given} == given


def test_model_without_memory_for_a_context_is_rejected_with_the_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"30\.0 GiB.*V100"):
        flags(model=ModelProperties(30 * GIB, 4096, 393_216, 32), gpus=(V100,))


def test_used_memory_lowers_the_utilization() -> None:
    busy = Gpu("A10", 24 * GIB, 18 * GIB, (8, 6))
    assert flags(gpus=(busy,))["gpu-memory-utilization"] == 0.72
    assert flags(gpus=(Gpu("A10", 24 * GIB, 0, (8, 6)),))["gpu-memory-utilization"] == 0.84


def test_adapters_become_lora_modules_with_a_rank_of_vllm() -> None:
    adapters = (
        Adapter("phi-3-adapter", Path("/mnt/adapter/phi-3-adapter"), 1.0, 8, None),
        Adapter("wide", Path("/mnt/adapter/wide"), 1.0, 48, None),
    )
    chosen = flags(adapters=adapters)
    assert chosen["max-lora-rank"] == 64
    assert chosen["lora-modules"] == ["phi-3-adapter=/mnt/adapter/phi-3-adapter", "wide=/mnt/adapter/wide"]
    assert "enable-lora" not in flags({"lora-modules": "mine=/x"}, adapters=adapters)
    with pytest.raises(AdapterError, match="'huge': rank 1024"):
        flags(adapters=(Adapter("huge", Path("/x"), 1.0, 1024, None),))


def test_strength_scales_lora_alpha(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16}))
    (source / "adapter_model.safetensors").write_bytes(b"weights")
    whole = Adapter("whole", source, 1.0, 8, None)
    half = Adapter("half", source, 0.5, 8, None)
    paths = scaled_adapters([whole, half], tmp_path / "scratch")
    assert paths["whole"] == source
    assert json.loads((paths["half"] / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert (paths["half"] / "adapter_model.safetensors").read_bytes() == b"weights"


def test_command_line_is_sorted_with_flags_for_booleans() -> None:
    words = command_line(
        {"b": True, "a": False, "e": None, "d": ["x", "y"], "c": {"k": 1}, "compilation-config.pass_config.f": "False"}
    )
    assert words == ["--no-a", "--b", '--c={"k": 1}', "--compilation-config.pass_config.f=False", "--d", "x", "y"]


def test_flags_are_read_in_every_form() -> None:
    words = ["--a=1", "--b_c", "2", "--d", "--lora-modules", "x=1", "y=2", "--a=3", "--o.p_q=5"]
    assert split_flags(words) == {"a": "3", "b-c": "2", "d": True, "lora-modules": ["x=1", "y=2"], "o.p_q": "5"}
    with pytest.raises(ConfigurationError, match="stray"):
        split_flags(["stray"])


def test_configuration_file_takes_precedence_and_keeps_booleans(tmp_path: Path) -> None:
    file = tmp_path / "inference_config.yaml"
    file.write_text(
        "vllm: {max_model_len: 512, enforce-eager: true, enable-prefix-caching: false}\nmax_probe_steps: 2\n"
    )
    plan = read_options([f"--kaito-config-file={file}", "--max-model-len=9999", "--kaito-disable-rate-limit"])
    assert plan.options.kaito_disable_rate_limit
    assert plan.config.max_probe_steps == 2
    assert command_line(plan.engine) == ["--no-enable-prefix-caching", "--enforce-eager", "--max-model-len=512"]
    file.write_text("vlm: {}\n")
    with pytest.raises(ConfigurationError, match="vlm"):
        read_options([f"--kaito-config-file={file}"])
    with pytest.raises(ConfigurationError, match="kaito_nonsense"):
        read_options(["--kaito-nonsense=1"])


def test_next_context_is_the_estimate_of_the_engine_or_half() -> None:
    hint = "... KV cache ... the estimated maximum model length is 2999. Try"
    assert smaller_context(hint, 10_000, 0) == 2992
    assert smaller_context("more KV cache memory is needed", 1000, 0) == 496
    assert smaller_context("more KV cache memory is needed", 200, 0) is None
    assert smaller_context("ImportError: no module", 1000, 0) is None


def test_properties_of_a_model_directory_are_read(tmp_path: Path) -> None:
    assert read_model(str(tmp_path)) == ModelProperties()
    config = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    assert read_model(str(tmp_path)) == ModelProperties(100, 99, 2 * 4 * 16 * 2 * 2, 4)


def test_output_of_nvidia_smi_is_parsed() -> None:
    text = "Tesla V100-SXM2-16GB, 16384, 16000, 7.0\nNVIDIA A10, 24564, 24000, 8.6\n"
    first, second = parse_gpus(text)
    assert (first.name, first.capability, first.total_bytes) == ("Tesla V100-SXM2-16GB", (7, 0), 16 * GIB)
    assert second.capability == (8, 6)
    with pytest.raises(ConfigurationError, match="cannot read"):
        parse_gpus("No devices were found")
