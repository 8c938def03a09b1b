"""The real thing on CPU: a tiny random Phi-3 through transformers, compared with `model.generate`."""

import importlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kaito_presets.errors import AdapterError, BadRequest, ConfigurationError, ModelLoadError
from kaito_presets.inference.language_model import Message, Row, RowOutput
from kaito_presets.serving.adapters import find_adapters
from real_model import GREEDY, open_tiny, reference, row, run

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> "TransformersModel":
    return open_tiny(tiny_model)


@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 10}]
)
def test_row_has_the_tokens_of_generate(tiny: "TransformersModel", tiny_model: Path, options: dict[str, Any]) -> None:
    prompt = "Tell me about Tuscany and its wine"
    assert run(tiny, [row(tiny, prompt, **options)]) == [reference(tiny_model, prompt, 24, **options)]


def test_rows_of_a_batch_have_the_tokens_of_separate_runs(tiny: "TransformersModel") -> None:
    prompts = ["a", "Tell me about Tuscany", "How do I serve a model on Kubernetes? " * 4, "Paris"]
    apart = [run(tiny, [row(tiny, prompt)])[0] for prompt in prompts]
    together = run(tiny, [row(tiny, prompt) for prompt in prompts])
    assert together == apart


def test_adding_and_removing_rows_does_not_change_other_rows(tiny: "TransformersModel") -> None:
    """A seeded storm of arrivals; the cache grows, shifts and shrinks many times."""
    rng = random.Random(7)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "in", "Paris"]
    jobs = [(" ".join(rng.choices(words, k=rng.choice([1, 3, 30, 120]))), rng.randint(1, 60)) for _ in range(40)]
    apart = [run(tiny, [row(tiny, prompt, length)])[0] for prompt, length in jobs]
    rows = [row(tiny, prompt, length) for prompt, length in jobs]
    waiting, live = list(rows), list[Row]()

    def settle(outputs: list[RowOutput]) -> None:
        for output in outputs:
            output.row.output_tokens.append(output.token)
        done = [r for r in live if len(r.output_tokens) >= r.max_new_tokens or r.output_tokens[-1] in r.plan.end_tokens]
        tiny.remove(done)
        live[:] = [r for r in live if r not in done]

    while waiting or live:
        count = min(len(waiting), rng.choice([0, 0, 0, 1, 2, 5]))
        joining, waiting = waiting[:count], waiting[count:]
        live += joining
        settle(tiny.prefill(joining))
        settle(tiny.step())
    assert [r.output_tokens for r in rows] == apart


def test_seeded_sampling_is_reproducible_beside_other_rows(tiny: "TransformersModel") -> None:
    def sampled(seed: int) -> Row:
        return row(tiny, "Paris", do_sample=True, temperature=0.9, top_p=0.95, seed=seed)

    alone = run(tiny, [sampled(1)])[0]
    crowd = run(tiny, [row(tiny, "x"), sampled(1), sampled(2), row(tiny, "y y y y", do_sample=True)])
    assert crowd[1] == alone
    assert crowd[2] != alone


def test_temperature_zero_is_greedy(tiny: "TransformersModel") -> None:
    greedy = run(tiny, [row(tiny, "Paris")])
    assert run(tiny, [row(tiny, "Paris", do_sample=True, temperature=0)]) == greedy


def test_top_k_and_top_p_truncate_the_distribution(tiny: "TransformersModel") -> None:
    greedy = run(tiny, [row(tiny, "Paris")])
    assert run(tiny, [row(tiny, "Paris", do_sample=True, top_k=1)]) == greedy
    assert run(tiny, [row(tiny, "Paris", do_sample=True, top_p=0.0001)]) == greedy


def test_logprobs_are_those_of_the_model(tiny: "TransformersModel") -> None:
    import math

    subject = row(tiny, "Paris", length=1, logprobs=512)
    (output,) = tiny.prefill([subject])
    tiny.remove([subject])
    assert output.logprob is not None
    assert sum(math.exp(value) for _, value in output.logprob.top) == pytest.approx(1.0, abs=1e-3)
    best, logprob = output.logprob.top[0]
    assert best == output.token
    assert logprob == pytest.approx(output.logprob.logprob)


def test_beam_search_goes_through_generate(tiny: "TransformersModel", tiny_model: Path) -> None:
    subject = row(tiny, "Paris", num_beams=3)
    assert subject.plan.is_unbatched
    assert tiny.run_unbatched(subject, lambda: False) == [reference(tiny_model, "Paris", 24, num_beams=3)]
    two = row(tiny, "Paris", num_beams=3, num_return_sequences=2)
    assert len(tiny.run_unbatched(two, lambda: False)) == 2
    # Abandoned: ends at once.
    assert len(tiny.run_unbatched(row(tiny, "Paris", length=500, num_beams=3), lambda: True)[0]) < 5


def test_models_own_generation_config_is_honored(tiny: "TransformersModel", tiny_model: Path) -> None:
    config = json.loads((tiny_model / "generation_config.json").read_text())
    assert len(config["eos_token_id"]) == 2
    plan = tiny.plan({}, {"do_sample": True, "top_k": 10})
    resolved: Any = plan.config
    assert plan.end_tokens == frozenset(config["eos_token_id"])
    assert (resolved.do_sample, resolved.top_k) == (True, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": -1}, "temperature must be"),
        ({"top_p": 2}, "top_p must be"),
        ({"top_k": 1.5}, "top_k must be an integer"),
        ({"do_sample": 1}, "do_sample must be true or false"),
        ({"eos_token_id": "x"}, "eos_token_id"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"assistant_model": "x"}, "assistant_model"),
        ({"to_dict": 1}, "to_dict"),
        ({"__class__": 1}, "__class__"),
    ],
)
def test_invalid_options_are_rejected(tiny: "TransformersModel", options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        tiny.plan({**GREEDY, **options})


def test_chat_template(tiny: "TransformersModel") -> None:
    tokens = tiny.encode_chat([Message("user", "hello")])
    assert tiny.decode(tokens, special=True) == "<|user|>\nhello<|end|>\n<|assistant|>\n"


def test_invalid_source_is_reported(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match="does not contain config"):
        open_tiny(tmp_path / "empty")
    with pytest.raises(ModelLoadError, match="does not exist"):
        open_tiny(tmp_path / "absent")
    corrupt = tmp_path / "corrupt"
    corrupt.mkdir()
    for file in tiny_model.iterdir():
        (corrupt / file.name).write_bytes(file.read_bytes())
    weights = corrupt / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=r"cannot load the weights of .*corrupt: Safetensor"):
        open_tiny(corrupt)
    with pytest.raises(ConfigurationError, match="float99"):
        open_tiny(tiny_model, torch_dtype="float99")
    with pytest.raises(ConfigurationError, match="max_model_len"):
        open_tiny(tiny_model, max_model_len=10_000_000)


def test_context_is_limited_by_max_model_len(tiny_model: Path) -> None:
    assert open_tiny(tiny_model, max_model_len=100).info.context_tokens == 100


# Adapters.


@pytest.fixture(scope="module")
def adapter_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random LoRA adapters of unequal rank."""
    torch: Any = importlib.import_module("torch")
    peft: Any = importlib.import_module("peft")
    transformers: Any = importlib.import_module("transformers")
    folder = tmp_path_factory.mktemp("adapters")
    for seed, (name, rank) in enumerate([("phi-3-adapter", 4), ("second.one", 8)]):
        torch.manual_seed(seed)
        base: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
        config = peft.LoraConfig(
            r=rank, lora_alpha=4 * rank, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False
        )
        peft.get_peft_model(base, config).save_pretrained(str(folder / name))
    return folder


def test_adapter_changes_the_completion_by_its_strength(
    tiny: "TransformersModel", tiny_model: Path, adapter_folder: Path
) -> None:
    def answer(strengths: dict[str, float], adapter: str | None = None, **options: Any) -> list[int]:
        model = open_tiny(tiny_model, find_adapters(adapter_folder, strengths), **options)
        return run(model, [row(model, "Tell me about Tuscany", adapter=adapter)])[0]

    base = run(tiny, [row(tiny, "Tell me about Tuscany")])[0]
    both = answer({})
    assert both != base
    assert answer({"phi-3-adapter": 0.0, "second.one": 0.0}) == base
    first = answer({"second.one": 0.0})
    assert first not in (base, both)
    # Selected by name, an adapter is alone and whole; "" is the base model.
    assert answer({}, "phi-3-adapter") == first
    assert answer({}, "") == base
    assert answer({}, combination_type="svd") != base
    # Selected by name, it has its configured strength: 0 is the base model, 0.5 lies between.
    assert answer({"phi-3-adapter": 0.0}, "phi-3-adapter") == base
    assert answer({"phi-3-adapter": 0.5}, "phi-3-adapter") == answer({"phi-3-adapter": 0.5, "second.one": 0.0})
    with pytest.raises(AdapterError, match="cannot be combined with linear"):
        answer({}, combination_type="linear")


def test_rows_with_different_adapters_run_concurrently(tiny_model: Path, adapter_folder: Path) -> None:
    model = open_tiny(tiny_model, find_adapters(adapter_folder, {}))
    names = [None, "", "phi-3-adapter", "second.one", None]
    apart = [run(model, [row(model, "Paris", adapter=name)])[0] for name in names]
    together = run(model, [row(model, "Paris", adapter=name) for name in names])
    assert together == apart
    assert len({tuple(tokens) for tokens in apart}) == 4


def test_broken_adapter_is_reported_with_its_name(tiny_model: Path, adapter_folder: Path, tmp_path: Path) -> None:
    good = adapter_folder / "phi-3-adapter"
    bad = tmp_path / "bad-one"
    bad.mkdir()
    (bad / "adapter_config.json").write_bytes((good / "adapter_config.json").read_bytes())
    (bad / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(AdapterError, match="'bad-one': cannot be loaded"):
        open_tiny(tiny_model, find_adapters(tmp_path, {}))


# Rotary regimes of the 128k variant.


def test_longrope_rows_below_and_above_the_original_context_run_concurrently(tiny_model: Path, tmp_path: Path) -> None:
    from kaito_presets.tiny_model import TinyModelOptions, write_tiny_model

    write_tiny_model(TinyModelOptions(directory=tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    config |= {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
            "short_factor": [1.0] * half,
            "long_factor": [4.0] * half,
            "original_max_position_embeddings": 64,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = open_tiny(tmp_path)
    short, long = row(model, "Paris", 10), row(model, "Tell me about Tuscany and wine " * 5, 40)
    assert len(long.prompt) + 40 > 64
    together = run(model, [short, long])
    assert together[0] == reference(tmp_path, "Paris", 10)
    assert together[1] == run(model, [row(model, "Tell me about Tuscany and wine " * 5, 40)])[0]
