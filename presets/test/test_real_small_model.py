"""SmolLM2-135M-Instruct with its own files: batched, streamed, with log probabilities, and the tokens of `generate`.

The model is in the cache (`python -m hack.models.smollm2` at the root of the repository), or fetched by the first test.
Without network, these tests are skipped, except in CI.
"""

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kaito_presets.inference.backend import cpu_linear
from kaito_presets.inference.language_model import Message, Row
from real_model import GREEDY, advance, open_tiny
from running_server import Serve

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
TOPICS = ["Tuscany", "wine", "the moon", "Kubernetes", "a lighthouse", "bread", "the sea", "Paris", "iron", "bees"]
ASKS = ["Tell me about {}.", "Write one sentence about {}.", "Why do people like {}?", "{}", "Explain {} to a child."]
PROMPTS = [ask.format(topic) for topic in TOPICS for ask in ASKS]
COUNT = int(os.environ.get("KAITO_EQUALITY_PROMPTS", "6"))
"""Prompts of the comparison with `generate`; 50 take about ten minutes of CPU time."""


@pytest.fixture(scope="module")
def directory() -> Path:
    python = ROOT / ".venv" / "bin" / "python"
    command = [str(python), "-m", "hack.models.smollm2"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) if python.exists() else None
    if found is not None and found.returncode == 0:
        return Path(found.stdout.strip())
    reason = f"SmolLM2 cannot be fetched: {found.stderr.strip() if found else f'{python} is missing'}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_model_with_its_own_files_is_served_in_a_batch(directory: Path) -> None:
    """A generation config that disables batching is the most expensive fault that a user cannot see."""
    config = json.loads((directory / "generation_config.json").read_text())
    assert {"do_sample", "temperature", "top_p"} <= config.keys()
    model = open_tiny(directory)
    assert model.info.unbatched_reasons == ()
    assert not model.plan({}).is_unbatched


async def test_answers_are_streamed_with_log_probabilities(directory: Path, serve: Serve) -> None:
    server = await serve(open_tiny(directory))
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    status, answer = await server.post("/v1/chat/completions", question | {"max_tokens": 12, "logprobs": True})
    assert status == 200
    (choice,) = answer["choices"]
    assert "Paris" in choice["message"]["content"]
    assert len(choice["logprobs"]["content"]) >= answer["usage"]["completion_tokens"] - 1
    body = question | {"max_tokens": 12, "stream": True}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        events = [line async for line in response.content if line.startswith(b"data: {")]
    assert len(events) >= 6
    value = server.metrics.registry.get_sample_value
    assert value("kaito_generation_unbatched_total", {"option": "num_beams"}) is None
    assert not [sample for metric in server.metrics.registry.collect() for sample in metric.samples
                if sample.name in ("kaito_generation_unbatched_total", "kaito_model_unbatched")]  # fmt: skip
    assert (value("kaito_prefix_cache_hits_total") or 0) >= 1


def test_greedy_tokens_equal_those_of_generate(directory: Path) -> None:
    """In float32: one at a time and together, with an empty prefix cache and a full one."""
    transformers: Any = importlib.import_module("transformers")
    torch: Any = importlib.import_module("torch")
    model = open_tiny(directory, torch_dtype="float32")
    judge: Any = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prompts = [model.encode_chat([Message("user", text)]) for text in PROMPTS[:: max(1, 50 // COUNT)][:COUNT]]
    expected: list[list[int]] = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        output = judge.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=16, **GREEDY, temperature=None,
            top_p=None,
        )  # fmt: skip
        expected.append(output[0, len(prompt) :].tolist())

    def rows() -> list[Row]:
        plan = model.plan(dict(GREEDY))
        return [Row(prompt=prompt, plan=plan, max_new_tokens=16) for prompt in prompts]

    assert together(model, rows(), 10_000) == expected
    assert [together(model, [one], 64)[0] for one in rows()] == expected
    model.reset()
    assert [together(model, [one], 64)[0] for one in rows()] == expected
    assert together(model, rows(), 64) == expected
    assert model.prefix_usage.hits >= len(prompts)


def together(model: "TransformersModel", rows: list[Row], limit: int) -> list[list[int]]:
    """All rows, with at most `limit` prompt tokens between two steps."""
    joining, live = list(rows), list[Row]()
    while joining or live:
        outputs = model.prefill(joining, limit) if joining else []
        live += [output.row for output in outputs]
        joining = [one for one in joining if one not in live]
        advance(model, live, outputs)
        if live:
            advance(model, live, model.step())
    return [one.output_tokens for one in rows]


def test_conversion_for_cpus_without_bfloat16_keeps_the_values(directory: Path) -> None:
    """The weights are those of the checkpoint, and the computation is closer to float32 than that of bfloat16."""
    transformers: Any = importlib.import_module("transformers")
    torch: Any = importlib.import_module("torch")
    tokens = torch.tensor([open_tiny(directory).encode("The capital of France is")])

    def logits(dtype: Any, *, convert: bool = False) -> Any:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
        if convert:
            assert cpu_linear.convert(model)
            assert model.dtype == torch.float32
        with torch.inference_mode():
            return model(input_ids=tokens).logits.float()

    exact = logits(torch.float32)
    converted = (logits(torch.bfloat16, convert=True) - exact).abs().max()
    assert converted < 0.02
    assert converted < (logits(torch.bfloat16) - exact).abs().max() / 5
