"""Log probabilities of prompts, penalties and biases: the numbers of a plain forward pass, over HTTP."""

import asyncio
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from real_model import open_tiny, row, run
from running_server import RunningServer, Serve

if TYPE_CHECKING:
    from kaito_presets.inference.backend.model import TransformersModel

pytestmark = pytest.mark.model

PROMPT = "Tell me about Tuscany \N{DRAGON} and its wine"


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> "TransformersModel":
    return open_tiny(tiny_model)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    transformers: Any = importlib.import_module("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_model)


def scores_of(plain: Any, tokens: list[int]) -> list[float]:
    """Log probability of every token after the first, by one forward pass."""
    torch: Any = importlib.import_module("torch")
    with torch.inference_mode():
        values = torch.log_softmax(plain(input_ids=torch.tensor([tokens])).logits[0].float(), dim=-1)
    return [float(values[index, token]) for index, token in enumerate(tokens[1:])]


async def test_echo_returns_log_probabilities_of_the_prompt(
    serve: Serve, tiny: "TransformersModel", plain: Any
) -> None:
    """What lm-evaluation-harness sends; first null, offsets in the whole text."""
    server = await serve(tiny)
    tokens = tiny.encode(PROMPT)
    body = {"prompt": [tokens, tokens[:5]], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1}
    status, answer = await server.post("/v1/completions", body)
    assert status == 200
    for choice, prompt in zip(answer["choices"], [tokens, tokens[:5]], strict=True):
        found = choice["logprobs"]
        assert len(found["tokens"]) == len(prompt) + 1
        assert found["token_logprobs"][0] is None
        assert found["top_logprobs"][0] is None
        assert found["token_logprobs"][1:-1] == pytest.approx(scores_of(plain, prompt), abs=1e-3)
        # Every dictionary holds the token itself and the most probable one.
        for name, score, top in list(zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True))[
            1:
        ]:
            assert top[name] >= score
            assert max(top.values()) >= score
            assert 1 <= len(top) <= 2
        assert choice["text"].startswith(tiny.decode(prompt))
        for name, offset in zip(found["tokens"], found["text_offset"], strict=True):
            assert choice["text"][offset:].startswith(name)


async def test_prompt_is_scored_without_a_new_token(serve: Serve, tiny: "TransformersModel", plain: Any) -> None:
    """Max_tokens 0 with echo; also with a prompt that fills the context, several prompts, and streamed."""
    server = await serve(tiny)
    tokens = (tiny.encode(PROMPT) * 300)[: tiny.info.context_tokens]
    body = {"prompt": [tokens, [5]], "echo": True, "logprobs": 0, "max_tokens": 0}
    status, answer = await server.post("/v1/completions", body)
    assert status == 200
    assert answer["usage"] == {"prompt_tokens": 2049, "completion_tokens": 0, "total_tokens": 2049}
    first, second = answer["choices"]
    assert first["text"] == tiny.decode(tokens)
    assert first["logprobs"]["token_logprobs"][1:] == pytest.approx(scores_of(plain, tokens), abs=1e-2)
    # logprobs 0 lists the token itself.
    assert all(len(top) == 1 for top in first["logprobs"]["top_logprobs"][1:])
    assert second["logprobs"]["token_logprobs"] == [None]
    assert [first["finish_reason"], second["finish_reason"]] == ["length", "length"]
    chunks = await events(server, body | {"prompt": PROMPT, "stream": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == tiny.decode(tiny.encode(PROMPT))
    assert (await server.post("/v1/completions", {"prompt": "x", "max_tokens": 0}))[0] == 400


async def test_every_choice_repeats_the_prompt_before_its_completion(serve: Serve, tiny: "TransformersModel") -> None:
    """The answers to one prompt have its tokens in common, with offsets of their own behind it."""
    server = await serve(tiny)
    body = {"prompt": [PROMPT, "Paris"], "echo": True, "logprobs": 2, "max_tokens": 6, "n": 3, "seed": 7}
    status, answer = await server.post("/v1/completions", body)
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    for number, choice in enumerate(answer["choices"]):
        prompt = tiny.encode(PROMPT if number < 3 else "Paris")
        found, first = choice["logprobs"], answer["choices"][number - number % 3]["logprobs"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert len(found[name]) > len(prompt)
            assert found[name][: len(prompt)] == first[name][: len(prompt)]
        offsets = found["text_offset"]
        assert offsets == sorted(offsets)
        assert offsets[len(prompt)] == len(tiny.decode(prompt))
        assert offsets[-1] <= len(choice["text"])
    assert len({choice["text"] for choice in answer["choices"][:3]}) == 3


CHARACTERS = "\N{DRAGON}\N{ROCKET}"
"""Each has several tokens of the tiny model, which are parts of it."""


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_of_a_character_have_its_bytes_together(
    serve: Serve, tiny: "TransformersModel", stream: bool
) -> None:
    """OpenAI's API: clients concatenate the bytes of tokens to get the text; the last token has the character."""
    server = await serve(tiny)
    body = {
        "messages": [{"role": "user", "content": "x"}], "structured_outputs": {"choice": [CHARACTERS]},
        "logprobs": True, "top_logprobs": 2, "stream": stream,
    }  # fmt: skip
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        text = await response.text()
    documents = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")] if stream else [
        json.loads(text)
    ]  # fmt: skip
    scores = [choice["logprobs"] for document in documents for choice in document["choices"] if choice["logprobs"]]
    tokens = [token for part in scores for token in part["content"] if not token["token"].startswith("<")]
    assert len(tokens) > len(CHARACTERS)
    assert "".join(token["token"] for token in tokens) == CHARACTERS
    assert bytes(byte for token in tokens for byte in token["bytes"]).decode() == CHARACTERS
    assert not [token for token in tokens if "\N{REPLACEMENT CHARACTER}" in token["token"]]


async def test_prompt_logprobs_name_whole_characters(serve: Serve, tiny: "TransformersModel") -> None:
    server = await serve(tiny)
    prompt = tiny.encode("a" + CHARACTERS)
    body = {"prompt": prompt, "prompt_logprobs": 0, "max_tokens": 1, "temperature": 0}
    _, answer = await server.post("/v1/completions", body)
    entries = answer["choices"][0]["prompt_logprobs"][1:]
    names = [entry[str(token)]["decoded_token"] for token, entry in zip(prompt[1:], entries, strict=True)]
    assert "".join(names).endswith(CHARACTERS)


async def events(server: RunningServer, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with server.session.post(server.url + "/v1/completions", json=body) as response:
        assert response.status == 200
        lines = (await response.text()).split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("echo", [False, True])
async def test_stream_has_the_same_log_probabilities_and_offsets(
    serve: Serve, tiny: "TransformersModel", echo: bool
) -> None:
    """Offsets go on from chunk to chunk."""
    server = await serve(tiny)
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 2, "echo": echo, "n": 2}
    _, whole = await server.post("/v1/completions", body)
    chunks = await events(server, body | {"stream": True})
    for index, choice in enumerate(whole["choices"]):
        parts = [part["choices"][0] for part in chunks if part["choices"][0]["index"] == index]
        assert "".join(part["text"] for part in parts) == choice["text"]
        for name, values in choice["logprobs"].items():
            streamed = [value for part in parts for value in part["logprobs"][name]]
            if name in ("tokens", "text_offset"):
                assert streamed == values
            assert len(streamed) == len(values)


async def test_scoring_does_not_change_a_running_batch(serve: Serve, tiny: "TransformersModel", plain: Any) -> None:
    """Prompts are scored while other requests run, and join them."""
    server = await serve(tiny)
    long = {"prompt": "How do I serve", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    _, alone = await server.post("/v1/completions", long)
    tokens = tiny.encode(PROMPT * 3)
    score = {"prompt": tokens, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    answers = await asyncio.gather(
        server.post("/v1/completions", long), *(server.post("/v1/completions", score) for _ in range(4))
    )
    assert answers[0][1]["choices"][0]["text"] == alone["choices"][0]["text"]
    for _, answer in answers[1:]:
        assert answer["choices"][0]["logprobs"]["token_logprobs"][1:-1] == pytest.approx(
            scores_of(plain, tokens), abs=1e-3
        )


def test_penalties_and_bias_change_the_logits_as_openai_defines(tiny: "TransformersModel", plain: Any) -> None:
    """Frequency_penalty, presence_penalty and logit_bias, against a plain loop."""
    torch: Any = importlib.import_module("torch")
    prompt = "The quick brown fox"
    options: dict[str, Any] = {
        "frequency_penalty": 0.7,
        "presence_penalty": 0.9,
        "logit_bias": {"300": 4.0, "40": -100},
    }
    tokens = tiny.encode(prompt)
    expected: list[int] = []
    with torch.inference_mode():
        for _ in range(20):
            scores = plain(input_ids=torch.tensor([tokens + expected])).logits[0, -1]
            scores[300] += 4.0
            scores[40] -= 100
            for token in set(expected):
                scores[token] -= 0.7 * expected.count(token) + 0.9
            expected.append(int(scores.argmax()))
            if expected[-1] in (2, 5):
                break
    together = run(tiny, [row(tiny, "Paris"), row(tiny, prompt, 20, **options)])
    assert together[1] == expected


async def test_stop_token_ids_end_the_text_with_ignore_eos(serve: Serve, tiny: "TransformersModel") -> None:
    """As in vLLM."""
    server = await serve(tiny)
    body = {"prompt": "Paris", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    third = run(tiny, [row(tiny, "Paris", 3, eos_token_id=[])])[0][2]
    _, answer = await server.post("/v1/completions", body | {"stop_token_ids": [third]})
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] <= 3
