"""Helpers of the tests that run the tiny model through transformers: rows, whole runs, and transformers' own answer."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaito_presets.inference.language_model import Row
from kaito_presets.inference.options import InferenceOptions
from kaito_presets.serving.adapters import Adapter

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

GREEDY = {"do_sample": False}


def open_tiny(directory: Path, adapters: Sequence[Adapter] = (), **options: Any) -> "TransformersModel":
    from kaito_presets.inference.backend.model import open_model

    return open_model(InferenceOptions(pretrained_model_name_or_path=str(directory), threads=1, **options), adapters)


def row(model: "TransformersModel", prompt: str, length: int = 24, **options: Any) -> Row:
    names = ("seed", "adapter", "logprobs", "prompt_logprobs", "grammar")
    fields = {name: options.pop(name) for name in names if name in options}
    plan = model.plan({**GREEDY, **options})
    return Row(prompt=model.encode(prompt), plan=plan, max_new_tokens=length, **fields)


def advance(model: "TransformersModel", live: list[Row], outputs: Sequence[Any]) -> None:
    """What the scheduler does after each step: record tokens, let rows that ended leave."""
    for output in outputs:
        assert output.error is None, output.error
        output.row.output_tokens.append(output.token)
    done = [r for r in live if len(r.output_tokens) >= r.max_new_tokens or r.output_tokens[-1] in r.plan.end_tokens]
    model.remove(done)
    live[:] = [r for r in live if r not in done]


def run(model: "TransformersModel", rows: Sequence[Row]) -> list[list[int]]:
    """All rows together until each ends."""
    live = list(rows)
    outputs = model.prefill(live)
    while True:
        advance(model, live, outputs)
        if not live:
            return [r.output_tokens for r in rows]
        outputs = model.step()


def reference(directory: Path, prompt: str, length: int, **options: Any) -> list[int]:
    """What transformers itself generates."""
    transformers: Any = importlib.import_module("transformers")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory)
    encoded = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**encoded, max_new_tokens=length, **{**GREEDY, **options})
    return list(output[0, encoded["input_ids"].shape[1] :].tolist())
