"""Two hundred requests with random sampling options over all routes, beside a stream that they must not disturb."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from real_model import open_tiny
from running_server import RunningServer, Serve

pytestmark = pytest.mark.model

REQUESTS = 200
NUMBERS: list[Any] = [
    *[0.5, 0.9, 1, 1.0, 2] * 8,
    0, 1, -1, 0.5, 1.0, 2, 0.999999, 1e-40, 1e-45, 1e-20, 1e-8, 1e38, 1e308, 10**400, -0.0, 100, 5e-324, True, False,
    "1", "x", [], [1], [[1]], {}, None, 2**31, 2**63, 2**64, 2**70, -(2**63), 511, 512, 99_999_999,
]  # fmt: skip
TOKENS: list[Any] = [
    *[7, 300] * 8,
    0,
    2,
    5,
    511,
    512,
    -1,
    2**40,
    True,
    None,
    "2",
    1.0,
    [2, 5],
    [512],
    [],
    [[]],
    [[2]],
    [True],
    {"2": 1},
]
LISTS: list[Any] = [
    *[[7, 8], [[7, 8]]] * 6,
    [], [[]], [[1, 2]], [[1], [2, 3]], [1, 2, 300], [512], [-1], [[512]], [[1], 2], list(range(512)), "abc", 5, None,
    [[[1, 2], 1.5]], [[[1], 1e40]], [[[1], "x"]], [1, 1.5], [0, 10], [3, 0], {}, [[[]]],
]  # fmt: skip
CHAT_POOLS: dict[str, list[Any]] = {
    **dict.fromkeys(
        (
            "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
            "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
            "min_length", "min_new_tokens", "seed", "num_return_sequences", "length_penalty", "frequency_penalty",
            "presence_penalty", "guidance_scale", "max_length", "diversity_penalty", "num_beam_groups", "penalty_alpha",
        ),
        NUMBERS,
    ),
    **dict.fromkeys(
        ("eos_token_id", "pad_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id"), TOKENS
    ),
    **dict.fromkeys(
        (
            "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "stop_token_ids",
            "exponential_decay_length_penalty", "force_words_ids", "constraints",
        ),
        LISTS,
    ),
    "logit_bias": [{}, {"5": 100}, {"5": -100, "6": 3}, {"512": 1}, {"x": 1}, {"-1": 1}, {"5": 1e9}, {"5": None}, 3],
    "num_beams": [1, 2, 3, 64, 65, 10**9, 0, True, "2", None],
    "max_new_tokens": [1, 3, 6, 0, -1, 10**6, 2**70, True, "3", None, 2.0],
    "do_sample": [True, False, 1, "yes", None],
    "early_stopping": [True, False, "never", "x", 3],
    "renormalize_logits": [True, False, 1],
    "remove_invalid_values": [True, False, "x"],
    "token_healing": [True, False],
    "use_cache": [True, False],
    "cache_implementation": ["static", "hybrid", None],
    "return_dict_in_generate": [True, False],
    "output_scores": [True, False],
    "max_time": [0.1, None],
    "no_such_option": [1],
}  # fmt: skip
OPENAI_POOLS: dict[str, list[Any]] = {
    **dict.fromkeys(
        (
            "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "frequency_penalty",
            "presence_penalty", "seed", "min_tokens", "max_tokens", "n", "best_of", "length_penalty", "priority",
        ),
        NUMBERS,
    ),
    "logit_bias": CHAT_POOLS["logit_bias"],
    "stop_token_ids": LISTS,
    "stop": ["a", ["a", "b"], [], "", ["x"] * 17, 5, None, [""]],
    "ignore_eos": [True, False, None, 3],
    "stream": [True, False, None],
    "logprobs": [True, False, 0, 1, 5, 21, -1, None, "1"],
    "echo": [True, False, None],
    "skip_special_tokens": [True, False],
    "use_beam_search": [True, False],
    "no_such_field": [1, None, [], ""],
}  # fmt: skip


def chosen(rng: random.Random, pools: dict[str, list[Any]]) -> dict[str, Any]:
    names = rng.sample(sorted(pools), rng.choice([1, 1, 1, 2, 3]))
    return {name: rng.choice(pools[name]) for name in names}


def request_of(rng: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A route, a body, and the options in it."""
    prompt = rng.choice(["a", "Tell me about Tuscany", "Paris " * 40])
    route = rng.choice(["/chat", "/v1/completions", "/v1/chat/completions"])
    if route == "/chat":
        options = {"max_new_tokens": 6} | chosen(rng, CHAT_POOLS)
        return route, {"prompt": prompt, "generate_kwargs": options}, options
    options = {"max_tokens": 6} | chosen(rng, OPENAI_POOLS)
    if rng.random() < 0.8 and isinstance(options.get("n"), int) and options["n"] > 8:
        options["n"] = 3
    subject = {"prompt": prompt} if route == "/v1/completions" else {"messages": [{"role": "user", "content": prompt}]}
    return route, subject | options, options


async def streamed(server: RunningServer, body: dict[str, Any]) -> str:
    text = ""
    async with server.session.post(server.url + "/v1/completions", json=body) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += event["choices"][0]["text"]
    return text


async def test_random_options_do_not_affect_other_requests(serve: Serve, tiny_model: Path) -> None:
    """Every answer is 200 or a refusal that names an option; a well-behaved stream
    gets the text it gets alone, and the server stays healthy."""
    model = await asyncio.to_thread(open_tiny, tiny_model)
    server = await serve(model, batch=16)
    behaved = {
        "prompt": "How do I serve a model",
        "max_tokens": 150,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    undisturbed = await streamed(server, behaved)
    rng = random.Random(20261128)
    requests = [request_of(rng) for _ in range(REQUESTS)]
    statuses: list[int] = []
    finished = asyncio.Event()
    texts: list[str] = []

    async def behave() -> None:
        while not finished.is_set():
            texts.append(await streamed(server, behaved))

    async def send(route: str, body: dict[str, Any], options: dict[str, Any]) -> None:
        async with server.session.post(server.url + route, json=body) as response:
            text = await response.text()
        statuses.append(response.status)
        assert response.status in (200, 400, 422), (response.status, route, body, text)
        if response.status != 200:
            assert any(name in text for name in options), (route, body, text)
        elif '"error"' in text or "NaN" in text or "Infinity" in text:
            raise AssertionError((route, body, text))

    async with asyncio.TaskGroup() as group:
        group.create_task(behave())
        try:
            for begin in range(0, REQUESTS, 5):
                async with asyncio.TaskGroup() as five:
                    for request in requests[begin : begin + 5]:
                        five.create_task(send(*request))
        finally:
            finished.set()
    assert set(texts) == {undisturbed}
    assert await server.get("/health") == (200, {"status": "Healthy"})
    await server.until(lambda: not server.scheduler.is_busy)
    assert statuses.count(200) > REQUESTS // 5
    assert statuses.count(400) > REQUESTS // 5
