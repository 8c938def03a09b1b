"""Fields of well-known clients: honored, accepted where they ask for nothing, or refused by name."""

import json
from typing import Any

import pytest
from fake_model import FakeModel
from running_server import Serve

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    # 13: OpenAI's own fields at values that ask for nothing.
    (CHAT, {"web_search_options": None}),
    (CHAT, {"modalities": ["text"]}),
    (CHAT, {"functions": [], "function_call": "none", "audio": None}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
    (CHAT, {"verbosity": "medium", "prompt_cache_retention": "24h", "prediction": {"type": "content"}}),
    # Bodies that clients send.
    (TEXT, {"ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, {"reasoning_effort": "low"}),
    (CHAT, {"frequency_penalty": 0.5, "presence_penalty": 0.1}),
    (CHAT, {"tools": [TOOL], "tool_choice": "none"}),
    (TEXT, {"typical_p": 1, "skip_special_tokens": True, "add_bos_token": True}),
    (CHAT, {"stop_token_ids": [2], "skip_special_tokens": True, "add_generation_prompt": True,
            "chat_template_kwargs": {"enable_thinking": False}}),
    (TEXT, {"max_tokens": 0, "echo": True, "logprobs": 1}),
    # The same kind.
    (CHAT, {"best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "priority": 0, "echo": False}),
    (TEXT, {"best_of": 1, "suffix": "", "logit_bias": {}, "stop": "", "user": "me", "min_p": 0}),
    (CHAT, {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "response_format": {"type": "text"}}),
    (CHAT, {"top_logprobs": 0, "logprobs": False, "logit_bias": {"5": 3}, "seed": -(2**63)}),
    (CHAT, {"guided_json": None, "structured_outputs": None, "bad_words": [], "allowed_token_ids": None}),
    (CHAT, {"cache_prompt": True, "repeat_penalty": 1.0, "mirostat": 0, "keep_alive": "5m", "options": {}}),
    (CHAT, {"unheard_of": None, "unheard_of_too": []}),
    (CHAT, {"n": None, "stream": None, "temperature": None, "seed": None, "stop": None, "logprobs": None,
            "ignore_eos": None, "stream_options": None, "max_completion_tokens": None}),
]  # fmt: skip

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"tools": [TOOL]}, "tools"),
    (CHAT, {"tools": [TOOL], "tool_choice": "auto"}, "tools"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities"),
    (CHAT, {"verbosity": "low"}, "verbosity"),
    (CHAT, {"guided_json": {"type": "object"}}, "guided_json"),
    (CHAT, {"functions": [{"name": "f"}]}, "functions"),
    (TEXT, {"prompt_logprobs": 1}, "prompt_logprobs"),
    (TEXT, {"use_beam_search": True}, "use_beam_search"),
    (TEXT, {"best_of": 3}, "best_of"),
    (TEXT, {"suffix": "x"}, "suffix"),
    (TEXT, {"max_tokens": 0}, "max_tokens"),
    (TEXT, {"include_stop_str_in_output": True}, "include_stop_str_in_output"),
    (TEXT, {"repeat_penalty": 1.2}, "repeat_penalty"),
    (TEXT, {"length_penalty": True}, "length_penalty"),
    (CHAT, {"unheard_of": 0}, "unheard_of"),
    (CHAT, {"chat_template_kwargs": {"tokenize": False}}, "tokenize"),
    (CHAT, {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"stream": True, "stream_options": {"include_obfuscation": True}}, "include_obfuscation"),
    (CHAT, {"n": True}, "n"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"seed": 2**63}, "seed"),
    (TEXT, {"prompt": [True, False]}, "prompt"),
    (TEXT, {"stop_token_ids": [True]}, "stop_token_ids"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "mood": "good"}]}, "mood"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"type": "function"}]}]}, "tool_calls"),
]


def body_for(route: str, fields: dict[str, Any]) -> dict[str, Any]:
    subject = {"prompt": "hi"} if route == TEXT else {"messages": [{"role": "user", "content": "hi"}]}
    return subject | {"max_tokens": 5} | fields


@pytest.mark.parametrize(("route", "fields"), ACCEPTED)
async def test_neutral_and_supported_fields_are_accepted(serve: Serve, route: str, fields: dict[str, Any]) -> None:
    server = await serve()
    async with server.session.post(server.url + route, json=body_for(route, fields)) as response:
        assert response.status == 200, await response.text()


@pytest.mark.parametrize(("route", "fields", "name"), REFUSED)
async def test_unsupported_field_is_rejected_by_name(
    serve: Serve, route: str, fields: dict[str, Any], name: str
) -> None:
    server = await serve()
    status, answer = await server.post(route, body_for(route, fields))
    assert status == 400
    assert name in json.dumps(answer["error"])


async def test_message_fields_reach_the_chat_template(serve: Serve) -> None:
    """serving review: `tool_calls` and `name` are honored by the template instead of dropped."""
    model = FakeModel()
    server = await serve(model)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "x", "name": "eva"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "user", "content": "y"},
    ]
    assert (await server.post(CHAT, {"messages": messages, "reasoning_effort": "low", "max_tokens": 1}))[0] == 200
    (sent, template) = model.conversations[-1]
    assert sent[0].extra == {"name": "eva"}
    assert sent[1].extra["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert template.variables == {"reasoning_effort": "low"}
    assert template.add_generation_prompt
    body = {
        "messages": messages[:1],
        "continue_final_message": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert (await server.post(CHAT, body))[0] == 200
    (_, template) = model.conversations[-1]
    assert (template.add_generation_prompt, template.continue_final_message) == (False, True)
    assert template.variables == {"enable_thinking": False}


async def test_continuous_usage_is_in_every_chunk(serve: Serve) -> None:
    """Guidellm counts tokens by `continuous_usage_stats`."""
    server = await serve()
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "abcd", "max_tokens": 3, "stream": True, "stream_options": options}
    async with server.session.post(server.url + TEXT, json=body) as response:
        lines = [line[6:] for line in (await response.text()).split("\n\n") if line.startswith("data: {")]
    counts = [json.loads(line)["usage"]["completion_tokens"] for line in lines]
    assert counts == [1, 2, 3, 3]
    assert json.loads(lines[-1])["choices"] == []


async def test_prompts_of_a_stream_run_concurrently(serve: Serve) -> None:
    """serving review, fault 06: a list of prompts takes as many steps as its longest answer, not as all together."""
    model = FakeModel()
    server = await serve(model, batch=8)
    body = {"prompt": ["a" * 20, "b" * 20, "c" * 20], "max_tokens": 20, "stream": True}
    async with server.session.post(server.url + TEXT, json=body) as response:
        chunks = [json.loads(line[6:]) for line in (await response.text()).split("\n\n") if line.startswith("data: {")]
    texts = dict.fromkeys(range(3), "")
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == {0: "A" * 20, 1: "B" * 20, 2: "C" * 20}
    assert max(model.batch_sizes) == 3
    assert len(model.batch_sizes) < 25


async def test_loading_and_draining_servers_return_retry_after(serve: Serve) -> None:
    server = await serve(ready=False)
    async with server.session.post(server.url + TEXT, json={"prompt": "x"}) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
