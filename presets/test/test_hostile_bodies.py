"""Bodies that are large or malformed in unusual places: refused at once with a short answer, without holding up the
event loop (which answers the health probes and hands out everybody's tokens)."""

import asyncio
import io
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from fake_model import FakeModel
from kaito_presets.inference.language_model import Message, TemplateOptions
from kaito_presets.inference.service import Completion
from kaito_presets.inference.text_completions import CompletionChoices
from running_server import RunningServer, Serve

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
MANY = 100_000
LIMIT = 4 * 2**20
"""Of the server as it is delivered."""
USER = {"role": "user", "content": "hi"}


def call_with(arguments: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call]}]}


LARGE: list[tuple[str, dict[str, Any], str]] = [
    (TEXT, {"prompt": ["a"] * MANY}, "prompts x n"),
    (TEXT, {"prompt": [""] * MANY}, "prompts x n"),
    (TEXT, {"prompt": [[1]] * MANY}, "prompts x n"),
    (TEXT, {"prompt": [True] * MANY}, "prompt"),
    (TEXT, {"prompt": [1, *[None] * MANY]}, "prompt[1]"),
    (TEXT, {"prompt": [[1], *[[{}] * MANY]]}, "prompt[1][0]"),
    (TEXT, {"prompt": {"a": 1}}, "prompt"),
    (TEXT, {"prompt": "a", "stop_token_ids": [[]] * MANY}, "stop_token_ids"),
    (TEXT, {"prompt": "a", "stop_token_ids": [1] * MANY}, "stop_token_ids"),
    (TEXT, {"prompt": "a", "stop": [1] * MANY}, "stop"),
    (TEXT, {"prompt": "a", "logit_bias": {str(token): "x" for token in range(MANY)}}, "logit_bias"),
    (TEXT, {"prompt": 5, **{f"unknown{number}": 1 for number in range(MANY)}}, "prompt"),
    (CHAT, {"messages": [1] * MANY}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": [1] * MANY}]}, "messages"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [1] * MANY}]}, "tool_calls"),
    (CHAT, {"messages": [USER], "model": "x" * MANY}, "model"),
    (CHAT, call_with("[" * MANY), "tool_calls"),
    ("/chat", {"messages": [{"role": 1, "content": []}] * MANY}, "messages"),
    ("/chat", {"prompt": "a", **{f"unknown{number}": 1 for number in range(MANY)}}, "keys"),
    ("/chat", {"messages": [{f"unknown{number}": 1 for number in range(MANY)}]}, "keys"),
]


@pytest.mark.parametrize(("path", "body", "words"), LARGE, ids=range(len(LARGE)))
async def test_error_for_a_large_wrong_body_is_short(serve: Serve, path: str, body: dict[str, Any], words: str) -> None:
    """The cost of a refusal is bounded. A validation error for each of the items took the
    event loop 5 s and answered 12 MB; every prompt was tokenized before they were counted."""
    server = await serve(FakeModel(), max_request_bytes=LIMIT)
    async with server.session.post(server.url + path, data=io.BytesIO(json.dumps(body).encode())) as response:
        answer = await response.text()
    assert response.status in (400, 404, 422)
    assert words in answer
    assert len(answer) < 5_000
    status, health = await server.get("/health")
    assert (status, health) == (200, {"status": "Healthy"})


async def test_number_of_prompts_is_checked_before_tokenization(serve: Serve) -> None:
    """Too many prompts cost no call of the tokenizer."""
    model = FakeModel()
    encoded: list[str] = []

    def encode(text: str, *, special: bool = True) -> list[int]:
        encoded.append(text)
        return [1]

    model.encode = encode  # type: ignore[method-assign]
    server = await serve(model, max_request_bytes=LIMIT)
    status, answer = await server.post(TEXT, {"prompt": ["a"] * MANY})
    assert status == 400
    assert answer["error"]["param"] == "prompt"
    assert encoded == []


NAMED: list[tuple[str, dict[str, Any], str]] = [
    (TEXT, {"prompt": "a", "best_of": 3}, "best_of"),
    (TEXT, {"prompt": "a", "suffix": "x"}, "suffix"),
    (TEXT, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    (TEXT, {"prompt": "a", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    (TEXT, {"prompt": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    (TEXT, {"prompt": "a", "use_beam_search": True, "stop": "x"}, "stop"),
    (TEXT, {"prompt": [1.5]}, "prompt"),
    (TEXT, {}, "prompt"),
    (CHAT, {"messages": [USER], "chat_template": "x"}, "chat_template"),
    (CHAT, {"messages": [USER], "tools": [{}]}, "tools.0.type"),
    (CHAT, {"messages": [USER], "response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"messages": [USER], "stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"messages": [USER], "top_logprobs": 2}, "top_logprobs"),
]


@pytest.mark.parametrize(("path", "body", "field"), NAMED)
async def test_rejected_field_is_named_in_param(serve: Serve, path: str, body: dict[str, Any], field: str) -> None:
    """OpenAI's error object has a `param`; a field that is refused by a check of the whole body had null there."""
    server = await serve(FakeModel())
    status, answer = await server.post(path, body)
    assert (status, answer["error"]["param"]) == (400, field)
    assert "Value error" not in answer["error"]["message"]


async def test_header_with_many_ignored_fields_is_short(serve: Serve) -> None:
    server = await serve(FakeModel(), max_request_bytes=LIMIT)
    body = {"prompt": "a", **{f"unknown\r\n{number}é": 1 for number in range(MANY // 2)}}
    async with server.session.post(server.url + TEXT, data=io.BytesIO(json.dumps(body).encode())) as response:
        assert response.status == 200
        header = response.headers["X-Kaito-Ignored-Fields"]
    assert header.startswith("unknown%0D%0A0%C3%A9, ")
    assert len(header) < 1_000


@pytest.mark.parametrize("body", ['{"prompt":1e999}', '{"prompt":[NaN]}', '{"messages":-1e999}'])
async def test_error_about_infinity_is_valid_json(serve: Serve, body: str) -> None:
    """A 422 repeats the wrong value; JSON has no infinity, and a strict client could not read the answer."""
    server: RunningServer = await serve(FakeModel())
    async with server.session.post(server.url + "/chat", data=body) as response:
        text = await response.text()
    assert response.status == 422

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not JSON: {text}")

    detail = json.loads(text, parse_constant=refuse)["detail"]
    assert detail[0]["loc"][:2] == ["body", "prompt" if "prompt" in body else "messages"]


@pytest.mark.parametrize("path", ["/chat", TEXT, CHAT])
async def test_body_with_a_wrong_content_encoding_is_a_400(serve: Serve, path: str) -> None:
    """It was a 500, as if the server had failed."""
    server = await serve(FakeModel())
    headers = {"Content-Encoding": "gzip"}
    async with server.session.post(server.url + path, data=b'{"prompt":"a"}', headers=headers) as response:
        text = await response.text()
    assert response.status == 400
    assert "the request body cannot be read" in text


async def test_event_loop_is_free_while_many_prompts_are_tokenized(serve: Serve) -> None:
    """Prompts that are long together are tokenized on a thread, also if each of them is short."""
    model = FakeModel()
    threads: set[str] = set()

    def encode(text: str, *, special: bool = True) -> list[int]:
        threads.add(threading.current_thread().name)
        return [1]

    model.encode = encode  # type: ignore[method-assign]
    server = await serve(model)
    status, _ = await server.post(TEXT, {"prompt": ["word " * 1000] * 8, "max_tokens": 1})
    assert status == 200
    assert threading.main_thread().name not in threads


async def test_long_conversation_of_empty_messages_is_tokenized_on_a_thread(serve: Serve) -> None:
    """A chat template visits every message, whatever is in it."""
    model = FakeModel()
    threads: set[str] = set()

    def encode_chat(messages: Sequence[Message], template: TemplateOptions | None = None) -> list[int]:
        threads.add(threading.current_thread().name)
        return [1]

    model.encode_chat = encode_chat  # type: ignore[method-assign]
    server = await serve(model)
    for messages in ([{"role": "user"}] * 1000, [{**USER, "reasoning": "x" * 10_000}]):
        status, _ = await server.post(CHAT, {"messages": messages, "max_tokens": 1})
        assert status == 200
    assert threading.main_thread().name not in threads


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT, {"prompt": "abcabcabc", "max_tokens": 9, "echo": True, "logprobs": 0, "n": 20}),
        (CHAT, {"messages": [USER], "max_tokens": 9, "logprobs": True, "n": 20}),
    ],
)
async def test_text_of_a_token_is_decoded_once(serve: Serve, path: str, body: dict[str, Any]) -> None:
    """Answers with log probabilities hold up to 21 texts for each token: decoding each of them took 12 s of the event
    loop for 128 answers to a prompt of 1900 tokens."""
    model = FakeModel()
    decode, decoded = model.decode, list[Sequence[int]]()

    def counted(tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        if special:
            decoded.append(tokens)
        return decode(tokens, clean_up_spaces=clean_up_spaces, special=special)

    model.decode = counted  # type: ignore[method-assign]
    server = await serve(model, batch=20)
    for _ in range(2):
        status, _ = await server.post(path, body)
        assert status == 200
    assert decoded
    repeated = len(decoded) - len({tuple(tokens) for tokens in decoded})
    # In TEXT, the prompt of each request is decoded once, from a few tokens before each of its 9 tokens.
    assert repeated <= 2 * 20 * (path == TEXT)


async def test_event_loop_is_free_between_choices(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole answer is rendered choice by choice, so that a health probe waits for one choice at most."""
    order: list[str] = []
    server = await serve(FakeModel(), batch=8)

    async def turns() -> None:
        while True:
            order.append("loop")
            await asyncio.sleep(0)

    original = CompletionChoices.choice

    def choice(answers: CompletionChoices, group: int, index: int, answer: Completion) -> dict[str, Any]:
        order.append("choice")
        return original(answers, group, index, answer)

    monkeypatch.setattr(CompletionChoices, "choice", choice)
    async with asyncio.TaskGroup() as tasks:
        turning = tasks.create_task(turns())
        status, answer = await server.post(TEXT, {"prompt": "abc", "n": 4, "max_tokens": 2})
        turning.cancel()
    assert (status, len(answer["choices"])) == (200, 4)
    rendering = " ".join(order).split("choice")[1:-1]
    assert len(rendering) == 3
    assert all("loop" in between for between in rendering)
