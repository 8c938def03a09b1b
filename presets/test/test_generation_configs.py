"""Generation configs of models as they are published: they share the batch, stream and give log probabilities."""
# transformers is partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kaito_presets.errors import BadRequest
from real_model import GREEDY, open_tiny, reference, row, run

if TYPE_CHECKING:
    from kaito_presets.inference.backend.plan import TransformersPlan

pytestmark = pytest.mark.model

FAMILIES: dict[str, dict[str, Any]] = {
    "save_pretrained": {
        "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "output_attentions": False,
        "output_hidden_states": False, "pad_token_id": 2, "transformers_version": "5.23.0", "use_cache": True,
    },
    "Phi-3": {
        "_from_model_config": True, "bos_token_id": 1, "eos_token_id": [32000, 32001, 32007], "pad_token_id": 32000,
        "transformers_version": "4.39.3",
    },
    "Mistral": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.42.0"},
    "Falcon": {"_from_model_config": True, "bos_token_id": 11, "eos_token_id": 11, "transformers_version": "4.33.0"},
    "DeepSeek-R1 distill": {
        "_from_model_config": True, "bos_token_id": 151646, "eos_token_id": 151643, "do_sample": True,
        "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.39.3",
    },
    "Llama 3": {
        "bos_token_id": 128000, "do_sample": True, "eos_token_id": [128001, 128008, 128009], "temperature": 0.6,
        "top_p": 0.9, "transformers_version": "4.42.3",
    },
    "Llama 2": {
        "bos_token_id": 1, "do_sample": True, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.6,
        "max_length": 4096, "top_p": 0.9, "transformers_version": "4.31.0.dev0",
    },
    "Qwen 2.5": {
        "bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
        "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0",
    },
    "Qwen 1": {
        "chat_format": "chatml", "eos_token_id": 151643, "pad_token_id": 151643, "max_window_size": 24000,
        "max_new_tokens": 512, "do_sample": True, "top_k": 0, "top_p": 0.8, "transformers_version": "4.31.0",
    },
    "Gemma 3": {
        "bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 106],
        "pad_token_id": 0, "top_k": 64, "top_p": 0.95, "transformers_version": "4.50.0.dev0",
    },
    "Whisper-like": {
        "begin_suppress_tokens": [220, 50256], "bos_token_id": 50257, "decoder_start_token_id": 50258,
        "eos_token_id": 50257, "forced_decoder_ids": [[1, None], [2, 50359]], "is_multilingual": True,
        "lang_to_id": {"<|en|>": 50259}, "max_initial_timestamp_index": 50, "max_length": 448,
        "no_timestamps_token_id": 50363, "pad_token_id": 50257, "prev_sot_token_id": 50361,
        "return_timestamps": False, "suppress_tokens": [1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 50361],
        "transformers_version": "4.31.0.dev0",
    },
    "GPT-2": {"_from_model_config": True, "bos_token_id": 50256, "eos_token_id": 50256,
              "transformers_version": "4.26.0.dev0"},
    "SmolLM2": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
                "transformers_version": "4.42.3"},
    "BART-like": {
        "_from_model_config": True, "bos_token_id": 0, "decoder_start_token_id": 2, "early_stopping": True,
        "eos_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "length_penalty": 2.0,
        "no_repeat_ngram_size": 3, "num_beams": 1, "pad_token_id": 1,
    },
    "assisted and compiled": {
        "eos_token_id": 2, "assistant_early_exit": 4, "prompt_lookup_num_tokens": 3, "num_assistant_tokens": 5,
        "disable_compile": True, "prefill_chunk_size": 64, "return_dict_in_generate": True, "output_scores": True,
        "output_logits": True, "low_memory": False, "is_assistant": False, "renormalize_logits": True,
        "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "guidance_scale": 1.0, "num_beam_groups": 1,
        "diversity_penalty": 0.0, "remove_invalid_values": True,
    },
    "Gemma-2": {"_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid",
                "eos_token_id": [1, 107], "pad_token_id": 0, "transformers_version": "4.42.0.dev0"},
    "Phi-4": {"_from_model_config": True, "bos_token_id": 100257, "eos_token_id": [100257, 100265],
              "pad_token_id": 100349, "transformers_version": "4.47.0"},
    "Qwen3": {"bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643], "pad_token_id": 151643,
              "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"},
    "Mixtral": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "output_router_logits": True},
    "OLMo-2": {"_from_model_config": True, "eos_token_id": 100257, "pad_token_id": 100277},
    "BLOOM": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "max_length": 20, "pad_token_id": 3},
    "OPT": {"_from_model_config": True, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "prefix": "</s>"},
    "Yi": {"_from_model_config": True, "bos_token_id": 1, "do_sample": True, "eos_token_id": 7, "max_length": 4096,
           "pad_token_id": 0, "temperature": 0.6, "top_k": 40, "top_p": 0.8},
    "Command-R": {"_from_model_config": True, "bos_token_id": 5, "cache_implementation": "hybrid",
                  "eos_token_id": 255001, "pad_token_id": 0},
    "gpt-oss": {"bos_token_id": 199998, "do_sample": True, "eos_token_id": [200002, 199999, 200012],
                "pad_token_id": 199999, "transformers_version": "4.55.0.dev0"},
    "greedy temperature": {"eos_token_id": 2, "do_sample": False, "temperature": 0.0, "top_p": 1.0, "top_k": 1},
}  # fmt: skip
"""In the style of the published files."""


def small(value: Any) -> Any:
    """Token ids of a large vocabulary moved into the tiny model's."""
    if isinstance(value, list):
        return [small(item) for item in value]
    return value % 500 if isinstance(value, int) and not isinstance(value, bool) and value > 511 else value


def with_config(tiny_model: Path, folder: Path, config: dict[str, Any] | None) -> Path:
    """The tiny model with another generation config, or none."""
    shutil.copytree(tiny_model, folder)
    file = folder / "generation_config.json"
    if config is None:
        file.unlink()
    else:
        file.write_text(json.dumps(config))
    return folder


def plan_of(config: dict[str, Any], options: dict[str, Any], vocabulary: int = 300_000) -> "TransformersPlan":
    from kaito_presets.inference.backend.plan import make_plan, usable_config
    from transformers import GenerationConfig

    own = usable_config(GenerationConfig.from_dict(config), end=None, pad=None, vocabulary=vocabulary)
    return make_plan(own, options, {"do_sample": True, "top_k": 0}, vocabulary)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"do_sample": False}, {"do_sample": True, "temperature": 0.9, "top_p": 0.5}])
def test_generation_configs_of_model_families_are_batched(family: str, options: dict[str, Any]) -> None:
    """Bookkeeping keys, unknown keys, switches at their off value and special tokens are not options."""
    config = FAMILIES[family]
    plan = plan_of(config, options)
    assert plan.unbatched_reasons == ()
    end: Any = config["eos_token_id"]
    assert plan.end_tokens == frozenset(end if isinstance(end, list) else [end])


@pytest.mark.parametrize("family", [*FAMILIES, "no file"])
def test_batched_tokens_equal_those_of_generate(
    family: str, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same tokens as `generate` with the same file, in a batch, with log probabilities."""
    config = None if family == "no file" else {name: small(value) for name, value in FAMILIES[family].items()}
    folder = with_config(tiny_model, tmp_path / "model", config)
    with caplog.at_level(logging.WARNING, logger="kaito_presets"):
        model = open_tiny(folder)
    assert model.info.unbatched_reasons == ()
    assert not caplog.records
    prompts = ["Tell me about Tuscany", "Paris", "How do I serve a model on Kubernetes?"]
    rows = [row(model, prompt, 12, logprobs=1) for prompt in prompts]
    outputs = model.prefill(rows)
    assert all(output.logprob is not None for output in outputs)
    model.remove(rows)
    # What does not change the text is left out of the reference, which would return objects or read the prompt twice.
    speed = {"return_dict_in_generate": False, "prompt_lookup_num_tokens": None, "assistant_early_exit": None}
    expected = [reference(folder, prompt, 12, **speed) for prompt in prompts]
    assert run(model, [row(model, prompt, 12) for prompt in prompts]) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"suppress_tokens": [10, 300, 301]},
        {"begin_suppress_tokens": [5, 300]},
        {"bad_words_ids": [[300], [280, 290]]},
        {"sequence_bias": [[[300], 5.0], [[310], -3.5]]},
        {"forced_eos_token_id": 7},
        {"forced_bos_token_id": 9},
        {"encoder_repetition_penalty": 0.7},
        {"encoder_no_repeat_ngram_size": 2},
        {"exponential_decay_length_penalty": [4, 1.4]},
        {"remove_invalid_values": True, "renormalize_logits": True},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 9, "suppress_tokens": [40]},
    ],
)
def test_options_that_change_the_logits_are_applied_in_the_batch(tiny_model: Path, options: dict[str, Any]) -> None:
    """What transformers does with a logits processor is done row by row, beside other rows."""
    model = open_tiny(tiny_model)
    prompt = "Tell me about Tuscany and its wine"
    subject = row(model, prompt, **options)
    assert subject.plan.unbatched_reasons == ()
    plain = row(model, "Paris")
    together = run(model, [plain, subject, row(model, "The quick brown fox")])
    assert together[1] == reference(tiny_model, prompt, 24, **options)
    assert together[0] == reference(tiny_model, "Paris", 24)


def test_only_options_of_generate_run_outside_the_batch() -> None:
    """The reason is named, for the metric and the log."""
    base = {"eos_token_id": 2}
    assert plan_of(base | {"num_beams": 4}, {}).unbatched_reasons == ("num_beams",)
    assert plan_of(base | {"num_beams": 4}, {"num_beams": 1}).unbatched_reasons == ()
    assert plan_of(base, {"num_beams": 2, "do_sample": False}).unbatched_reasons == ("num_beams",)
    assert plan_of(base | {"guidance_scale": 1.5}, {}).unbatched_reasons == ("guidance_scale",)
    assert plan_of(base | {"max_time": 3.0}, {}).unbatched_reasons == ("max_time",)
    assert plan_of(base | {"token_healing": True}, {}).unbatched_reasons == ("token_healing",)
    assert plan_of(base, {"num_return_sequences": 3}).sequences == 3
    assert plan_of(base | {"stop_strings": ["END"]}, {}).stop_strings == ("END",)


def test_unknown_key_of_a_generation_config_does_not_disable_batching() -> None:
    """An unknown key of a model's file changes nothing, whatever its value."""
    plan = plan_of({"eos_token_id": 2, "quantum_mode": {"deep": [1]}, "is_fancy": True, "thinking_budget": 7}, {})
    assert plan.unbatched_reasons == ()


def test_wrong_values_of_a_generation_config_are_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A file is not a request; a wrong value in it may not fail every request."""
    config = {"eos_token_id": [2, 99_999], "suppress_tokens": [3, -1], "typical_p": 0, "temperature": -1.0}
    with caplog.at_level(logging.WARNING, logger="kaito_presets"):
        plan = plan_of(config, {"do_sample": True}, vocabulary=512)
    assert plan.end_tokens == {2}
    used: Any = plan.config
    assert used.suppress_tokens == [3]
    assert (used.typical_p, used.temperature) == (None, None)
    assert [name for name in ("eos_token_id", "suppress_tokens", "typical_p", "temperature") if name in caplog.text]


def test_unsupported_option_is_accepted_at_its_default() -> None:
    """A client that spells a default out requests nothing."""
    plan_of(
        {"eos_token_id": 2}, {"use_cache": True, "num_beam_groups": 1, "diversity_penalty": 0.0, "low_memory": False}
    )
    for name, value in {"use_cache": False, "num_beam_groups": 2, "penalty_alpha": 0.6, "dola_layers": "low"}.items():
        with pytest.raises(BadRequest, match=name):
            plan_of({"eos_token_id": 2}, GREEDY | {name: value})


@pytest.mark.parametrize("own", [None, -1, [], [512], [99_999, -5], "2"])
def test_end_token_of_the_tokenizer_replaces_an_unusable_one(own: Any) -> None:
    """Ids that the model does not have were left out, and then no answer ended before its bound."""
    from kaito_presets.inference.backend.plan import make_plan, usable_config
    from transformers import GenerationConfig

    config = usable_config(GenerationConfig.from_dict({"eos_token_id": own}), end=2, pad=2, vocabulary=512)
    assert make_plan(config, {}, {}, 512).end_tokens == {2}
    assert config.pad_token_id == 2
