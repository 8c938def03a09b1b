"""Prompts in slices and stored prefixes: the same tokens as separate runs, in every order of arrival."""

import importlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kaito_presets.inference.backend import model as model_module
from kaito_presets.inference.language_model import PrefixUsage, Row
from kaito_presets.serving.adapters import find_adapters
from kaito_presets.tiny_model import TinyModelOptions, write_tiny_model
from real_model import advance, open_tiny, reference, row, run

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = pytest.mark.model

SYSTEM = "You are a helpful assistant that answers questions about Tuscany, wine and Kubernetes. " * 3
QUESTIONS = ["What is Chianti?", "Where is Paris?", "How do I serve a model? " * 6, "the quick brown fox", "Why?"]


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> "TransformersModel":
    """Stores no prefixes."""
    return open_tiny(tiny_model, enable_prefix_caching=False)


@pytest.fixture
def caching(tiny_model: Path) -> "TransformersModel":
    """Starts without stored prefixes."""
    return open_tiny(tiny_model)


def in_slices(model: "TransformersModel", rows: list[Row], limit: int) -> list[list[int]]:
    """Like `run`, with `limit` tokens of prompts between two steps."""
    live: list[Row] = []
    joining = list(rows)
    while joining or live:
        outputs = model.prefill(joining, limit) if joining else []
        live += [output.row for output in outputs]
        joining = [r for r in joining if r not in live]
        advance(model, live, outputs)
        if live:
            advance(model, live, model.step())
    return [r.output_tokens for r in rows]


@pytest.mark.parametrize("limit", [1, 31, 32, 33, 2000])
def test_slices_give_the_tokens_of_whole_prompts(
    plain: "TransformersModel", caching: "TransformersModel", limit: int
) -> None:
    """Without stored prefixes, while they are stored, and with them."""
    prompts = [SYSTEM + QUESTIONS[0], "Paris", SYSTEM[:100]]
    expected = [run(plain, [row(plain, prompt, 8)])[0] for prompt in prompts]
    assert in_slices(plain, [row(plain, prompt, 8) for prompt in prompts], limit) == expected
    for _ in range(2):
        assert in_slices(caching, [row(caching, prompt, 8) for prompt in prompts], limit) == expected
    assert caching.prefix_usage.hits >= 2
    assert plain.prefix_usage == PrefixUsage()


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_arrivals_cancellations_and_shared_prefixes(
    plain: "TransformersModel", tiny_model: Path, seed: int
) -> None:
    """A seeded storm with a cache for about 20 blocks, so that blocks are evicted all the time."""
    rng = random.Random(seed)
    model = open_tiny(tiny_model)
    systems = ["", SYSTEM, SYSTEM[40:], SYSTEM[:150] + "x"]
    jobs = [(rng.choice(systems) + rng.choice(QUESTIONS) * rng.choice([1, 2]), rng.randint(1, 30)) for _ in range(30)]
    expected = [run(plain, [row(plain, prompt, length)])[0] for prompt, length in jobs]
    assert run(model, [row(model, SYSTEM, 2)])
    prefixes = model._prefixes  # pyright: ignore[reportPrivateUsage]
    assert prefixes is not None
    block_bytes = prefixes.used_bytes // (len(model.encode(SYSTEM)) // 32)
    limit_bytes = 20 * block_bytes
    prefixes._limit = limit_bytes  # pyright: ignore[reportPrivateUsage]
    rows = [row(model, prompt, length) for prompt, length in jobs]
    waiting, joining, live = list(rows), list[Row](), list[Row]()
    cancelled: set[int] = set()
    while waiting or joining or live:
        for _ in range(rng.choice([0, 0, 1, 3])):
            if waiting:
                joining.append(waiting.pop(0))
        if rng.random() < 0.1 and (joining or live):
            gone = rng.choice([*joining, *live])
            cancelled.add(id(gone))
            model.remove([gone])
            joining, live = [r for r in joining if r is not gone], [r for r in live if r is not gone]
        if joining:
            rng.shuffle(joining)
            outputs = model.prefill(joining, rng.choice([5, 40, 64, 300]))
            live += [output.row for output in outputs]
            joining = [r for r in joining if r not in live]
            advance(model, live, outputs)
        if live and rng.random() < 0.8:
            advance(model, live, model.step())
        assert model.prefix_usage.stored_bytes <= limit_bytes
    for subject, tokens in zip(rows, expected, strict=True):
        wanted = tokens[: len(subject.output_tokens)] if id(subject) in cancelled else tokens
        assert subject.output_tokens == wanted
    assert model.prefix_usage.hits > 5
    assert len(cancelled) < len(rows)


def test_prompts_that_arrive_together_compute_their_prefix_once(caching: "TransformersModel") -> None:
    rows = [row(caching, SYSTEM + question, 4) for question in QUESTIONS]
    in_slices(caching, rows, 64)
    shared = len(caching.encode(SYSTEM)) // 32 * 32
    assert [subject.cached_tokens >= shared - 32 for subject in rows] == [False, True, True, True, True]
    usage = caching.prefix_usage
    assert usage.hits == 4
    assert usage.reused_tokens == sum(subject.cached_tokens for subject in rows)


def test_next_turn_of_a_conversation_reuses_prompt_and_completion(caching: "TransformersModel") -> None:
    first = row(caching, SYSTEM, 60, eos_token_id=[])
    run(caching, [first])
    turn = row(caching, "x", 4)
    turn.prompt = [*first.prompt, *first.output_tokens, *caching.encode("and then?")]
    assert run(caching, [turn])
    assert turn.cached_tokens > len(first.prompt)


@pytest.mark.parametrize("window", [16, 40])
def test_sliding_window_layers_reuse_prefixes(tmp_path: Path, window: int) -> None:
    """The cache has all positions, also those outside the window, so a prefix is complete."""
    write_tiny_model(TinyModelOptions(directory=tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": window}))
    model = open_tiny(tmp_path)
    prompts = [SYSTEM + question for question in QUESTIONS[:3]]
    expected = [reference(tmp_path, prompt, 12) for prompt in prompts]
    assert in_slices(model, [row(model, prompt, 12) for prompt in prompts], 50) == expected
    assert run(model, [row(model, prompt, 12) for prompt in prompts]) == expected
    assert model.prefix_usage.hits == 5


def test_models_with_other_state_than_keys_and_values_store_no_prefixes(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "BATCHABLE_LAYERS", frozenset[str]())
    model = open_tiny(tiny_model)
    assert model.run_unbatched(row(model, SYSTEM, 4), lambda: False)
    assert model.prefix_usage == PrefixUsage()
    assert model._prefixes is None  # pyright: ignore[reportPrivateUsage]


def test_prefixes_of_adapters_and_strengths_are_separate(tiny_model: Path, tmp_path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    peft: Any = importlib.import_module("peft")
    transformers: Any = importlib.import_module("transformers")
    for seed, name in enumerate(["first", "second"]):
        torch.manual_seed(seed)
        base: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
        config = peft.LoraConfig(r=4, lora_alpha=32, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False)
        peft.get_peft_model(base, config).save_pretrained(str(tmp_path / name))
    names = [None, "", "first", "second", "first"]
    for strengths in ({}, {"first": 0.5}):
        found = find_adapters(tmp_path, strengths)
        without = open_tiny(tiny_model, found, enable_prefix_caching=False)
        model = open_tiny(tiny_model, found)
        expected = [run(without, [row(without, SYSTEM, 8, adapter=name)])[0] for name in names]
        for _ in range(2):
            assert [run(model, [row(model, SYSTEM, 8, adapter=name)])[0] for name in names] == expected
        assert run(model, [row(model, SYSTEM, 8, adapter=name) for name in names]) == expected
        assert len({tuple(tokens) for tokens in expected}) == 4
        keys = {model._prefix_key((name, False)) for name in names}  # pyright: ignore[reportPrivateUsage]
        assert len(keys) == 4


def test_arithmetic_failures_are_not_stored(tiny_model: Path) -> None:
    """Prompts that begin alike are computed again after a request with NaN."""
    torch: Any = importlib.import_module("torch")
    model = open_tiny(tiny_model)
    expected = run(model, [row(model, SYSTEM, 4)])
    model.reset()
    layer: Any = model._model.model.layers[0].input_layernorm  # pyright: ignore[reportPrivateUsage]
    good = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.fill_(float("nan"))
    neighbor = row(model, SYSTEM, 4)
    model.prefill([neighbor])
    model.remove([neighbor])
    with torch.no_grad():
        layer.weight.copy_(good)
    assert model.prefix_usage.stored_bytes == 0
    # A short row is placed over the columns of the broken one, which must not affect it or the next one.
    assert run(model, [row(model, SYSTEM, 4), row(model, "Paris", 4)])[0] == expected[0]


def test_prompt_log_probabilities_are_complete_with_stored_prefixes(caching: "TransformersModel") -> None:
    run(caching, [row(caching, SYSTEM, 1)])
    subject = row(caching, SYSTEM, 1, prompt_logprobs=0)
    in_slices(caching, [subject], 40)
    assert subject.cached_tokens == 0
    assert len(subject.prompt_token_logprobs) == len(subject.prompt)
    assert all(score is not None for score in subject.prompt_token_logprobs[1:])


# Outside the batch.


def test_prompt_of_a_beam_search_is_computed_in_slices(tiny_model: Path) -> None:
    """A step of the batch is possible after each; the tokens are those of `generate`."""
    model = open_tiny(tiny_model)
    prompt = SYSTEM * 2
    subject = row(model, prompt, 6, num_beams=4)
    start = model.start_unbatched(subject)
    turns = 0
    neighbor = row(model, "Paris", 24)
    alone = run(model, [row(model, "Paris", 24)])
    live = [neighbor]
    advance(model, live, model.prefill([neighbor]))
    while (progress := start.advance()).sequences is None:
        turns += 1
        if live:
            advance(model, live, model.step())
    assert turns >= len(subject.prompt) * 4 // 256 - 1 + 4
    assert [list(sequence) for sequence in progress.sequences] == [reference(tiny_model, prompt, 6, num_beams=4)]
    while live:
        advance(model, live, model.step())
    assert [neighbor.output_tokens] == alone
    cancelled = model.start_unbatched(row(model, prompt, 6, num_beams=4))
    cancelled.advance()
    cancelled.finish_early()
    assert cancelled.advance().sequences == [[]]


def test_stored_prefixes_leave_room_for_every_row(
    caching: "TransformersModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row outside the batch, prompts that are computed in part and the batch count at each admission."""
    reserved: list[int] = []
    reserve: Any = vars(model_module)["_reserved_tokens"]

    def record(rows: Any) -> int:
        reserved.append(len(rows))
        tokens: int = reserve(rows)
        return tokens

    monkeypatch.setattr(model_module, "_reserved_tokens", record)
    first, second, third = (row(caching, text * 60, 4) for text in ("a", "b", "c"))
    beams = row(caching, "Tell me", 4, num_beams=2)
    caching.prefill([first])
    assert caching.prefill([second], 1) == []  # one slice of its prompt
    generation = caching.start_unbatched(beams)
    caching.prefill([second, third], 1)
    generation.cancel()
    caching.prefill([second, third])
    assert reserved == [1, 2, 3, 4, 3]
