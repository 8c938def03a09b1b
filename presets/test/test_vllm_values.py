"""Single values, boundaries and rejections of the vLLM wrapper's flags."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import AdapterError, ConfigurationError
from kaito_presets.serving.adapters import Adapter
from kaito_presets.vllm import hardware
from kaito_presets.vllm.arguments import (
    GIB,
    ModelProperties,
    command_line,
    engine_flags,
    estimate_context,
    read_model,
    scaled_adapters,
    smaller_context,
)
from kaito_presets.vllm.hardware import Gpu, parse_gpus, read_gpus
from kaito_presets.vllm.options import WrapperOptions, read_options, split_flags
from kaito_presets.vllm.translate import chat_response, sampling_fields

MIB = 2**20


def gpu(gib: float = 80, free: float | None = None, capability: tuple[int, int] = (8, 0), name: str = "A100") -> Gpu:
    return Gpu(name, int(gib * GIB), int((gib if free is None else free) * GIB), capability)


def compute(given: dict[str, Any], model: ModelProperties, *gpus: Gpu, nodes: int = 1) -> dict[str, Any]:
    return engine_flags(given, model=model, gpus=gpus, nodes=nodes, adapters=(), adapter_paths={})


def test_flags_without_a_gpu_are_those_that_were_given() -> None:
    assert compute({}, ModelProperties()) == {"uvicorn-log-level": "error"}
    assert compute({"uvicorn-log-level": "info", "seed": 1}, ModelProperties()) == {
        "uvicorn-log-level": "info",
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("total", "free", "share"),
    # 600 MiB are left to other processes, and the share is rounded down to a hundredth.
    [(100, 100, 0.95), (10, 10, 0.94), (10, 600 / 1024 + 5, 0.5), (10, 600 / 1024, 0.84), (10, 0, 0.84)],
)
def test_utilization_is_the_free_share_up_to_a_limit(total: float, free: float, share: float) -> None:
    assert compute({}, ModelProperties(), gpu(total, free))["gpu-memory-utilization"] == share


def test_utilization_is_that_of_the_fullest_gpu() -> None:
    assert compute({}, ModelProperties(), gpu(10, 600 / 1024 + 5), gpu(10))["gpu-memory-utilization"] == 0.5


@pytest.mark.parametrize(
    ("capability", "given", "dtype"),
    [
        ((7, 5), {}, "float16"),
        ((7, 9), {"dtype": "bfloat16"}, "float16"),
        ((7, 5), {"dtype": "auto"}, "float16"),
        ((7, 5), {"dtype": "float32"}, "float32"),
        ((8, 0), {}, None),
        ((8, 0), {"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_gpus_before_ampere_get_float16(capability: tuple[int, int], given: dict[str, Any], dtype: str | None) -> None:
    assert compute(given, ModelProperties(), gpu(capability=capability)).get("dtype") == dtype


@pytest.mark.parametrize(
    ("weights", "parallel"),
    # Replicas need less than half of each GPU for the weights.
    [(39, {"data-parallel-size": 2, "tensor-parallel-size": 1}), (40, {"tensor-parallel-size": 2}),
     (0, {"tensor-parallel-size": 2})],
)  # fmt: skip
def test_small_models_are_replicated(weights: int, parallel: dict[str, int]) -> None:
    flags = compute({}, ModelProperties(weights * GIB), gpu(), gpu())
    assert {name: value for name, value in flags.items() if "parallel" in name} == parallel


@pytest.mark.parametrize(("heads", "gpus", "size"), [(64, 8, 8), (40, 3, 2), (7, 4, 1), (0, 3, 3), (12, 8, 6)])
def test_tensor_parallel_size_divides_the_heads(heads: int, gpus: int, size: int) -> None:
    flags = compute({}, ModelProperties(400 * GIB, attention_heads=heads), *[gpu()] * gpus)
    assert flags["tensor-parallel-size"] == size


def test_each_node_is_a_pipeline_stage() -> None:
    flags = compute({}, ModelProperties(), gpu(), nodes=3)
    assert (flags["tensor-parallel-size"], flags["pipeline-parallel-size"]) == (1, 3)
    assert "pipeline-parallel-size" not in compute({}, ModelProperties(), gpu())
    # A node without a GPU that can be read still has one stage.
    assert compute({}, ModelProperties(), nodes=2)["tensor-parallel-size"] == 1


@pytest.mark.parametrize(
    ("memory_gib", "weights_gib", "flags", "tokens"),
    [
        # 10 GiB - 2.3 GiB - 1.02 x 2 GiB = 5.66 GiB in tokens of 1 MiB, in blocks of 16.
        (10, 2, {"gpu-memory-utilization": 1.0}, int(5.66 * 1024) // 16 * 16),
        (10, 2, {"gpu-memory-utilization": 0.5}, int(0.66 * 1024) // 16 * 16),
        (10, 2, {}, int((8.4 - 2.3 - 2.04) * 1024) // 16 * 16),
        # Two shards: half of the weights and of the cache on each.
        (10, 2, {"gpu-memory-utilization": 1.0, "tensor-parallel-size": 2}, int((10 - 2.3 - 1.02) * 2048) // 16 * 16),
        (10, 2, {"gpu-memory-utilization": 1.0, "pipeline-parallel-size": 2}, int((10 - 2.3 - 1.02) * 2048) // 16 * 16),
    ],
)
def test_context_is_what_the_memory_holds(
    memory_gib: int, weights_gib: int, flags: dict[str, Any], tokens: int
) -> None:
    model = ModelProperties(weights_gib * GIB, 10**9, MIB, 32)
    assert estimate_context(model, [gpu(memory_gib)], flags) == tokens


def test_context_depends_on_the_smallest_gpu() -> None:
    model = ModelProperties(2 * GIB, 10**9, MIB, 32)
    share = {"gpu-memory-utilization": 1.0}
    assert estimate_context(model, [gpu(40), gpu(10)], share) == estimate_context(model, [gpu(10)], share)


def test_context_is_left_to_vllm_if_it_fits_or_is_unknown() -> None:
    share = {"gpu-memory-utilization": 1.0}
    fitting = int((10 * GIB - int(2.3 * GIB) - 1.02 * 2 * GIB) / MIB)
    assert estimate_context(ModelProperties(2 * GIB, fitting, MIB, 32), [gpu(10)], share) is None
    assert estimate_context(ModelProperties(2 * GIB, fitting + 1, MIB, 32), [gpu(10)], share) == fitting // 16 * 16
    assert estimate_context(ModelProperties(2 * GIB, 0, MIB), [gpu(10)], share) is None
    assert estimate_context(ModelProperties(2 * GIB, 10**9, 0), [gpu(10)], share) is None
    assert estimate_context(ModelProperties(2 * GIB, 10**9, MIB), [], share) is None


def test_shortest_context_has_128_tokens() -> None:
    share = {"gpu-memory-utilization": 1.0}
    overhead = int(2.3 * GIB) / GIB
    fits = Gpu("T4", int(overhead * GIB) + 128 * MIB, 0, (7, 5))
    assert estimate_context(ModelProperties(0, 10**9, MIB), [fits], share) == 128
    short = Gpu("T4", int(overhead * GIB) + 128 * MIB - 1, 0, (7, 5))
    with pytest.raises(ConfigurationError) as raised:
        estimate_context(ModelProperties(0, 10**9, MIB), [short, short], share)
    assert str(raised.value) == (
        "the model's weights (0.0 GiB) leave no memory for a context on 2 x T4 (2 GiB)"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rank", "limit"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (128, 128), (257, 320), (512, 512)]
)
def test_lora_rank_is_rounded_up_to_a_rank_of_vllm(rank: int, limit: int) -> None:
    adapter = Adapter("a", Path("/a"), 1.0, rank, None)
    flags = engine_flags(
        {}, model=ModelProperties(), gpus=(), nodes=1, adapters=[adapter], adapter_paths={"a": Path("/b")}
    )
    assert flags == {
        "uvicorn-log-level": "error", "enable-lora": True, "max-lora-rank": limit, "max-loras": 1,
        "lora-modules": ["a=/b"],
    }  # fmt: skip


def test_rank_above_the_limit_names_the_adapter() -> None:
    adapters = [Adapter("small", Path("/a"), 1.0, 8, None), Adapter("huge", Path("/b"), 1.0, 513, None)]
    with pytest.raises(AdapterError) as raised:
        engine_flags({}, model=ModelProperties(), gpus=(), nodes=1, adapters=adapters, adapter_paths={})
    assert str(raised.value) == "adapter 'huge': rank 513 exceeds vLLM's limit of 512"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ["--x"]), ("", ["--x"]),
        (False, ["--no-x"]), (None, []), (0, ["--x=0"]), ("a", ["--x=a"]), (1.5, ["--x=1.5"]),
        ([1, "b"], ["--x", "1", "b"]), ({"b": 1, "a": [2]}, ['--x={"a": [2], "b": 1}']),
    ],
)  # fmt: skip
def test_flag_is_formatted_by_its_type(value: object, words: list[str]) -> None:
    assert command_line({"x": value}) == words


@pytest.mark.parametrize(
    ("output", "tried", "low", "expected"),
    [
        ("KV cache: the estimated maximum model length is 2999.", 10_000, 0, 2992),
        ("KV cache: the estimated maximum model length is 2992", 10_000, 0, 2992),
        # The last estimate counts, and never the failed length again.
        ("KV cache estimated maximum model length is 500, estimated maximum model length is 900", 10_000, 0, 896),
        ("KV cache estimated maximum model length is 900 of 5000 tokens", 10_000, 0, 896),
        ("KV cache estimated maximum model length is 1000", 1000, 0, 976),
        ("KV cache estimated maximum model length is 1000", 1008, 0, 992),
        ("KV cache estimated maximum model length is unknown", 1024, 0, 512),
        ("CUDA out of memory", 1024, 0, 512),
        ("CUDA out of memory", 1024, 512, 768),
        ("CUDA out of memory", 256, 0, 128),
        ("CUDA out of memory", 255, 0, None),
        ("KV cache estimated maximum model length is 127", 1024, 0, None),
        ("no such file", 1024, 0, None),
    ],
)
def test_next_context_of_the_search(output: str, tried: int, low: int, expected: int | None) -> None:
    assert smaller_context(output, tried, low) == expected


def test_model_properties_are_read_from_all_forms_of_a_config(tmp_path: Path) -> None:
    def read(**config: object) -> ModelProperties:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return read_model(str(tmp_path))

    assert read(num_hidden_layers=3, num_attention_heads=8, hidden_size=80, torch_dtype="float16") == ModelProperties(
        cache_bytes_per_token=2 * 8 * 10 * 3 * 2, attention_heads=8, dtype="float16"
    )
    assert read(num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, head_dim=64, dtype="bfloat16") == (
        ModelProperties(cache_bytes_per_token=2 * 2 * 64 * 3 * 2, attention_heads=8, dtype="bfloat16")
    )
    nested = {"max_position_embeddings": 77, "num_attention_heads": 4, "hidden_size": 8, "num_hidden_layers": 1}
    assert read(text_config=nested, max_position_embeddings=5) == ModelProperties(
        context_tokens=77, cache_bytes_per_token=2 * 4 * 2 * 1 * 2, attention_heads=4
    )
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "b.safetensors").write_bytes(b"123")
    (tmp_path / "model.bin").write_bytes(b"1")
    assert read() == ModelProperties(weight_bytes=8)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json: "):
        read_model(str(tmp_path))


def test_strength_scales_the_rank_if_the_adapter_has_no_alpha(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text('{"r": 10}')
    (tmp_path / "a" / "README.md").write_text("x")
    paths = scaled_adapters([Adapter("a", tmp_path / "a", 0.3, 10, None)], tmp_path / "scratch")
    assert paths == {"a": tmp_path / "scratch" / "a"}
    assert json.loads((paths["a"] / "adapter_config.json").read_text()) == {"r": 10, "lora_alpha": 3.0}
    assert (paths["a"] / "README.md").readlink() == tmp_path / "a" / "README.md"


def test_gpu_lines_are_parsed_from_the_right() -> None:
    assert parse_gpus("A, with comma, 2, 1, 8.6\nB, 4, 3, 9\n") == (
        Gpu("A, with comma", 2 * MIB, 1 * MIB, (8, 6)), Gpu("B", 4 * MIB, 3 * MIB, (9, 0)),
    )  # fmt: skip
    assert parse_gpus("") == ()
    with pytest.raises(ConfigurationError, match=r"^nvidia-smi: cannot read 'A, x, 1, 8\.0'$"):
        parse_gpus("A, x, 1, 8.0")


def test_gpus_are_read_with_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    monkeypatch.setattr(hardware, "QUERY", (str(script), "--query"))
    assert read_gpus() == ()
    script.write_text('#!/bin/sh\n[ "$1" = --query ] && echo "T4, 16384, 8192, 7.5"\n')
    script.chmod(0o755)
    assert read_gpus() == (Gpu("T4", 16 * GIB, 8 * GIB, (7, 5)),)
    script.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(ConfigurationError, match=r"nvidia-smi failed: .*status 9"):
        read_gpus()

    def hang(*_: object, timeout: float, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ConfigurationError, match=r"nvidia-smi failed: .*after 60 seconds"):
        read_gpus()


def test_query_reads_the_columns_that_are_parsed() -> None:
    assert hardware.QUERY == (
        "nvidia-smi", "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits",
    )  # fmt: skip


def test_defaults_of_the_wrapper() -> None:
    assert WrapperOptions().model_dump() == {
        "kaito_adapters_dir": Path("/mnt/adapter"),
        "kaito_config_file": None,
        "kaito_max_probe_steps": None,
        "kaito_kv_cache_cpu_memory_utilization": None,
        "kaito_disable_rate_limit": False,
        "kaito_nodes": 1,
        "kaito_node_rank": None,
        "kaito_leader": "",
        "kaito_group_port": 29502,
        "kaito_master_port": 29501,
        "kaito_group_timeout": 60.0,
        "kaito_engine": "vllm",
        "kaito_drain_seconds": 25.0,
        "kaito_dry_run": False,
    }


@pytest.mark.parametrize(
    "flag", ["--kaito-nodes=0", "--kaito-max-probe-steps=-1", "--kaito-drain-seconds=-1",
             "--kaito-kv-cache-cpu-memory-utilization=1.01", "--kaito-kv-cache-cpu-memory-utilization=-0.1"],
)  # fmt: skip
def test_values_below_or_above_the_limits_are_rejected(flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag.partition("=")[0].replace("-", ".")):
        read_options([flag])


def test_limits_themselves_are_accepted() -> None:
    options = read_options(["--kaito-nodes=1", "--kaito-max-probe-steps=0", "--kaito-drain-seconds=0"]).options
    assert (options.kaito_nodes, options.kaito_max_probe_steps, options.kaito_drain_seconds) == (1, 0, 0)


def test_words_without_a_flag_are_rejected_with_the_word() -> None:
    with pytest.raises(ConfigurationError, match=r"^unexpected argument 'stray'$"):
        split_flags(["--a=1", "stray"])
    assert split_flags(["--a", "1", "2", "3"]) == {"a": ["1", "2", "3"]}
    assert split_flags(["--a", "1", "--a"]) == {"a": True}
    assert split_flags(["--x-y.a_b", "1"]) == {"x-y.a_b": "1"}


@pytest.mark.parametrize(
    ("option", "field"),
    [("min_new_tokens", "min_tokens"), ("num_return_sequences", "n"), ("temperature", "temperature"),
     ("top_p", "top_p"), ("top_k", "top_k"), ("min_p", "min_p"), ("repetition_penalty", "repetition_penalty"),
     ("seed", "seed"),
     ("length_penalty", "length_penalty"), ("frequency_penalty", "frequency_penalty"), ("logit_bias", "logit_bias"),
     ("presence_penalty", "presence_penalty"), ("stop_token_ids", "stop_token_ids")],
)  # fmt: skip
def test_option_has_its_name_in_vllm(option: str, field: str) -> None:
    fields = sampling_fields({option: 3}, max_new_tokens=None)
    assert fields == {"max_tokens": 200, "top_k": 10} | {field: 3}


@pytest.mark.parametrize(
    ("option", "neutral", "other"),
    [("num_beams", 1, 2), ("early_stopping", False, True), ("typical_p", 1, 0.5), ("no_repeat_ngram_size", 0, 1),
     ("min_length", 0, 1), ("use_cache", True, False)],
)  # fmt: skip
def test_option_without_a_counterpart_is_accepted_at_its_neutral_value(
    option: str, neutral: object, other: object
) -> None:
    assert sampling_fields({option: neutral}, max_new_tokens=7) == {"max_tokens": 7, "top_k": 10}
    with pytest.raises(Exception, match=f"^generate_kwargs.{option}={other!r} has no counterpart") as raised:
        sampling_fields({option: other}, max_new_tokens=7)
    assert raised.value.param == option  # type: ignore[attr-defined]


def test_end_tokens_become_stop_tokens() -> None:
    assert sampling_fields({"eos_token_id": 5}, max_new_tokens=1)["stop_token_ids"] == [5]
    assert sampling_fields({"eos_token_id": [5, 6]}, max_new_tokens=1)["stop_token_ids"] == [5, 6]
    assert sampling_fields({"eos_token_id": None, "pad_token_id": 3}, max_new_tokens=1) == {
        "max_tokens": 1,
        "top_k": 10,
    }


def test_greedy_requests_have_temperature_0_and_no_top_k() -> None:
    assert sampling_fields({"do_sample": False}, max_new_tokens=1) == {"max_tokens": 1, "temperature": 0}
    assert sampling_fields({"do_sample": True}, max_new_tokens=1) == {"max_tokens": 1, "top_k": 10}
    with pytest.raises(Exception, match=r"^generate_kwargs\.nonsense is not an option of this server$") as raised:
        sampling_fields({"nonsense": 1}, max_new_tokens=1)
    assert raised.value.param == "nonsense"  # type: ignore[attr-defined]


def test_response_without_choices_is_a_failure() -> None:
    from kaito_presets.errors import GenerationFailed
    from kaito_presets.serving.chat import ChatMessage, ChatRequest

    prompt = ChatRequest(prompt="x")
    documents: list[dict[str, Any]] = [{}, {"choices": None}, {"choices": []}, {"choices": [{}]}]
    for document in documents:
        with pytest.raises(GenerationFailed, match=r"^the engine's response has no choices$"):
            chat_response(prompt, document, head="")
    two = {"choices": [{"text": "a"}, {"text": None}]}
    assert chat_response(prompt, two, head="h").Result == "hah"
    talk = ChatRequest(messages=[ChatMessage(role="user", content="x")])
    assert (
        chat_response(
            talk, {"choices": [{"message": {"content": "m"}}, {"message": {"content": "n"}}]}, head="h"
        ).Result
        == "m"
    )
