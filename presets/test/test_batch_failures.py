"""Failures of single rows: exceptions at every line of `prefill`, invalid options, and rows that fail in a step."""

import linecache
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import Row
from real_model import advance, open_tiny, row, run

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = pytest.mark.model

MODULES = (
    "backend/batch.py", "backend/key_values.py", "backend/model.py", "backend/prefix_cache.py", "backend/prompts.py",
    "backend/sampling.py",
)  # fmt: skip
CANNOT_RAISE = frozenset({"_commit", "_move_back", "shift_back"})
"""Assignments, and copies within allocated memory: the code that undoes a failure relies on them."""
CANNOT_RAISE_LINES = ("moved.append(", "= copy", "buffer[:, :, :distance] = 0")
"""The same within functions that can raise elsewhere."""


class InjectedError(Exception):
    """Raised where no real error occurs."""


@contextmanager
def fault_at(number: int) -> Generator[list[str], None, None]:
    """Raises at the line number `number` (counted as executed) of the batch's modules; 0 only counts. Yields the list
    of executed lines."""
    lines: list[str] = []

    def trace_line(frame: FrameType, event: str, _: object) -> Any:
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        safe = frame.f_code.co_name in CANNOT_RAISE or any(words in source for words in CANNOT_RAISE_LINES)
        if event == "line" and not safe:
            lines.append(f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}")
            if len(lines) == number:
                raise InjectedError(lines[-1])
        return trace_line

    def trace_call(frame: FrameType, event: str, _: object) -> Any:
        return trace_line if event == "call" and frame.f_code.co_filename.endswith(MODULES) else None

    sys.settrace(trace_call)
    try:
        yield lines
    finally:
        sys.settrace(None)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> "TransformersModel":
    """A model with two layers: enough for a failure between layers, and half of the lines to execute."""
    from kaito_presets.tiny_model import TinyModelOptions, write_tiny_model

    directory = tmp_path_factory.mktemp("shallow")
    write_tiny_model(TinyModelOptions(directory=directory, layers=2, hidden_size=64))
    return open_tiny(directory)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> "TransformersModel":
    return open_tiny(tiny_model)


Joining = Callable[["TransformersModel"], list[Row]]

TOKENS = 4
"""Tokens of the rows that were in the batch before."""

SCENES: dict[str, tuple[list[str], Joining]] = {
    "into an empty batch": ([], lambda model: [row(model, "one"), row(model, "two and three", seed=3, do_sample=True)]),
    "beside others": (
        ["Tell me about Tuscany", "Paris"],
        lambda model: [row(model, "x", logprobs=2, repetition_penalty=1.2), row(model, "y", do_sample=True, seed=1)],
    ),
    "longer than the others": (
        ["Tell me about Tuscany", "Paris"],
        lambda model: [row(model, "How do I serve a model on Kubernetes? " * 3, prompt_logprobs=1)],
    ),
    "beyond what is allocated": (
        ["Tell me about Tuscany"],
        lambda model: [row(model, "The quick brown fox jumps over the lazy dog " * 30)],
    ),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", SCENES)
def test_prefill_that_fails_at_any_line_leaves_the_batch_unchanged(shallow: "TransformersModel", scene: str) -> None:
    """`prefill` keeps its guarantee for an exception at every line."""
    prompts, make_rows = SCENES[scene]
    apart = [run(shallow, [row(shallow, prompt, TOKENS)])[0] for prompt in prompts]
    later = run(shallow, [row(shallow, "afterwards", 3)])[0]

    def scene_with_fault(number: int) -> list[str]:
        # A new cache each time, so that growing it is part of the scene.
        shallow.reset()
        rows = [row(shallow, prompt, TOKENS) for prompt in prompts]
        live = list(rows)
        if live:
            advance(shallow, live, shallow.prefill(rows))
            advance(shallow, live, shallow.step())
        joining = make_rows(shallow)
        raised = False
        with fault_at(number) as lines:
            try:
                shallow.prefill(joining)
            except InjectedError:
                raised = True
        assert raised == bool(number), f"the fault at {lines[-1]} was swallowed"
        if not raised:
            shallow.remove(joining)
        # The rows that were there go on, and a new one joins them.
        new = row(shallow, "afterwards", 3)
        live.append(new)
        advance(shallow, live, shallow.prefill([new]))
        while live:
            advance(shallow, live, shallow.step())
        assert [r.output_tokens for r in rows] == apart, f"after a fault at {lines[-1]}"
        assert new.output_tokens == later, f"after a fault at {lines[-1]}"
        return lines

    scene_with_fault(0)  # fills caches, which would make the second run shorter
    executed = scene_with_fault(0)
    # Lines of the loops over layers repeat; their last time is when the most has been done.
    for number in sorted({line: number for number, line in enumerate(executed, start=1)}.values()):
        scene_with_fault(number)


def test_row_whose_options_exclude_every_token_fails_without_affecting_others(tiny: "TransformersModel") -> None:
    """What raises inside a shared step fails its own row, the others get their tokens."""
    everything = list(range(512))
    apart = [run(tiny, [row(tiny, prompt, 8)])[0] for prompt in ("Paris", "Tuscany")]
    first, broken, second = (
        row(tiny, "Paris", 8),
        row(tiny, "x", suppress_tokens=everything),
        row(tiny, "Tuscany", 8),
    )
    live = [first, broken, second]
    outputs = tiny.prefill(live)
    assert [type(output.error) for output in outputs] == [type(None), BadRequest, type(None)]
    assert "exclude every token" in str(outputs[1].error)
    tiny.remove([broken])
    live.remove(broken)
    advance(tiny, live, [output for output in outputs if output.row is not broken])
    while live:
        advance(tiny, live, tiny.step())
    assert [first.output_tokens, second.output_tokens] == apart


def test_row_with_nan_logits_fails_without_affecting_its_group(shallow: "TransformersModel") -> None:
    """`multinomial` would raise for all rows of the group, and on a GPU make the process unusable."""
    import torch
    from kaito_presets.inference.backend.sampling import Sampler

    rows = [row(shallow, "Paris", do_sample=True) for _ in range(3)]
    logits = torch.zeros((3, 512))
    logits[0, 7] = logits[2, 9] = 1000.0
    logits[1] = torch.nan
    choice = Sampler().choose(rows, logits)
    assert [int(token) for token in choice.tokens] == [7, 0, 9]
    assert list(choice.errors) == [1]


IMPOSSIBLE: list[tuple[str, Any]] = [
    ("temperature", 1e-40), ("temperature", 1e-45), ("temperature", float("inf")), ("temperature", float("nan")),
    ("temperature", 10**400), ("temperature", True), ("temperature", [0.5]), ("temperature", -0.1),
    ("typical_p", 0), ("typical_p", 0.0), ("typical_p", 1.1), ("typical_p", -1), ("top_p", -1e-9), ("top_p", "1"),
    ("top_k", 2**63), ("top_k", -1), ("top_k", True), ("top_k", 1.0), ("min_p", 2), ("top_h", 0),
    ("epsilon_cutoff", 1), ("eta_cutoff", -1), ("repetition_penalty", 0), ("repetition_penalty", 1e300),
    ("repetition_penalty", -1.0), ("encoder_repetition_penalty", 0), ("no_repeat_ngram_size", 2**30),
    ("no_repeat_ngram_size", True), ("encoder_no_repeat_ngram_size", 10**6), ("eos_token_id", 99_999_999),
    ("eos_token_id", -5), ("eos_token_id", [1, 512]), ("eos_token_id", True), ("eos_token_id", [[1]]),
    ("eos_token_id", 1.0), ("pad_token_id", -1), ("bos_token_id", 2**70), ("stop_token_ids", [512]),
    ("stop_token_ids", 5), ("suppress_tokens", [-1]), ("suppress_tokens", [[1]]), ("begin_suppress_tokens", [2**64]),
    ("bad_words_ids", [[]]), ("bad_words_ids", [1]), ("bad_words_ids", [[512]]), ("bad_words_ids", [[1]] * 5000),
    ("forced_bos_token_id", 10**9), ("forced_eos_token_id", 10**9), ("forced_eos_token_id", [1, -1]),
    ("sequence_bias", {"1": 2}), ("sequence_bias", []), ("sequence_bias", [[[1], 1e40]]),
    ("sequence_bias", [[[600], 1.0]]), ("sequence_bias", [[[1], True]]), ("logit_bias", {"512": 1}),
    ("logit_bias", {"-1": 1}), ("logit_bias", {"x": 1}), ("logit_bias", {"1": 101}), ("logit_bias", {"9" * 5000: 1}),
    ("exponential_decay_length_penalty", [1]), ("exponential_decay_length_penalty", [1, 0]),
    ("exponential_decay_length_penalty", [-1, 1.5]), ("exponential_decay_length_penalty", ["a", "b"]),
    ("frequency_penalty", 3), ("presence_penalty", float("nan")), ("guidance_scale", -1), ("guidance_scale", 1e9),
    ("num_beams", 65), ("num_beams", 10**12), ("num_beams", True), ("num_return_sequences", 10**12),
    ("min_new_tokens", -1), ("min_new_tokens", 2**40), ("min_length", 1.5), ("early_stopping", "sometimes"),
    ("length_penalty", 1e9), ("do_sample", 1), ("remove_invalid_values", 1), ("renormalize_logits", "yes"),
    ("max_time", 1), ("token_healing", True), ("watermarking_config", {}), ("constraints", []), ("use_mtp", True),
    ("stop_strings", ["x"]), ("cache_implementation", "static"), ("dola_layers", "high"), ("penalty_alpha", 0.6),
    ("num_beam_groups", 2), ("force_words_ids", [[1]]), ("no_such_option", 1), ("__class__", 1), ("to_dict", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE, ids=[f"{i}-{name}" for i, (name, _) in enumerate(IMPOSSIBLE)])
def test_invalid_option_is_rejected_by_name(tiny: "TransformersModel", name: str, value: Any) -> None:
    """Every option is validated by type and range before it reaches a tensor."""
    with pytest.raises(BadRequest, match=name) as caught:
        tiny.plan({"do_sample": True, name: value})
    assert caught.value.param == name
    assert len(str(caught.value)) < 400


POSSIBLE: list[dict[str, Any]] = [
    {"temperature": 1e-20}, {"temperature": 100}, {"temperature": 0}, {"typical_p": 1e-300}, {"typical_p": 0.2},
    {"top_p": 0}, {"top_p": 1e-40}, {"top_k": 2**31 - 1}, {"min_p": 1}, {"top_h": 0.4}, {"epsilon_cutoff": 0.999},
    {"eta_cutoff": 0.999}, {"repetition_penalty": 1e6}, {"repetition_penalty": 1e-6}, {"no_repeat_ngram_size": 64},
    {"eos_token_id": 511, "min_new_tokens": 5}, {"eos_token_id": []}, {"suppress_tokens": []},
    {"bad_words_ids": [[2]]}, {"bad_words_ids": []}, {"sequence_bias": [[[1, 2], 1e6]]},
    {"exponential_decay_length_penalty": [0, 10]}, {"exponential_decay_length_penalty": [0, 10], "min_new_tokens": 5},
    {"logit_bias": {"5": 100, "6": -100}}, {"logit_bias": {}}, {"frequency_penalty": -2, "presence_penalty": 2},
    {"stop_token_ids": [9, 9]}, {"forced_eos_token_id": [3, 4]},
]  # fmt: skip


@pytest.mark.parametrize("options", POSSIBLE, ids=str)
@pytest.mark.parametrize("seed", [None, -(2**63), 2**63 - 1])
def test_option_at_its_limit_works(tiny: "TransformersModel", options: dict[str, Any], seed: int | None) -> None:
    """Every accepted value gives tokens and disturbs no other row."""
    alone = run(tiny, [row(tiny, "Paris", 8)])[0]
    plain, subject = row(tiny, "Paris", 8), row(tiny, "Tuscany", 8, do_sample=True, seed=seed, **options)
    assert run(tiny, [plain, subject])[0] == alone
    assert 1 <= len(subject.output_tokens) <= 8


@pytest.mark.parametrize(
    "options",
    [
        {"suppress_tokens": list(range(512))},
        {"exponential_decay_length_penalty": [0, 10], "min_new_tokens": 400},
    ],
    ids=["no token", "overflow"],
)
def test_beam_search_with_invalid_options_is_a_400(tiny: "TransformersModel", options: dict[str, Any]) -> None:
    """What runs alone fails with a 400 as well, and names what made it run alone or the options."""
    subject = row(tiny, "Paris", 450, num_beams=3, do_sample=True, **options)
    with pytest.raises(BadRequest, match=r"num_beams|suppress_tokens"):
        tiny.run_unbatched(subject, lambda: False)
    assert run(tiny, [row(tiny, "Paris", 4)])
