"""Requests that both servers have to answer alike.

Each request is greedy or fails, so that its response is determined. `comparison` compares the responses.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hack.clients.comparison import Json, Response, joined


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `model` is added to its body."""

    name: str
    path: str
    body: Json | str | None
    """None: a GET request."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
PROMPT = "The capital of France is"
TOKENS = [504, 3575, 282, 4649, 314]
QUESTION = [{"role": "user", "content": "Name three colors."}]
SAYING = [{"role": "user", "content": "Tell me a saying."}, {"role": "assistant", "content": "An apple a day keeps"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Returns the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
CALLED = [
    {"role": "user", "content": "How is the weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]

COMPLETION_FIELDS: dict[str, Json] = {
    "plain": {},
    "prompt of token ids": {"prompt": TOKENS},
    "list of prompts": {"prompt": [PROMPT, "Two plus two is"]},
    "list of lists of token ids": {"prompt": [TOKENS, TOKENS[:3]]},
    "list of one prompt": {"prompt": [PROMPT]},
    "default max_tokens": {"max_tokens": None},
    "n": {"n": 2},
    "n and several prompts": {"n": 2, "prompt": [PROMPT, "Two plus two is"], "logprobs": 1},
    "echo": {"echo": True},
    "echo of token ids": {"echo": True, "prompt": TOKENS},
    "echo and logprobs": {"echo": True, "logprobs": 2},
    "echo, logprobs and no new tokens": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "echo, several prompts and logprobs": {"echo": True, "logprobs": 1, "prompt": [PROMPT, "Two plus"], "n": 2},
    "logprobs 0": {"logprobs": 0},
    "logprobs": {"logprobs": 3},
    "too many logprobs": {"logprobs": 200_000},
    "negative logprobs": {"logprobs": -2},
    "prompt_logprobs 0": {"prompt_logprobs": 0},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "prompt_logprobs in a stream": {"prompt_logprobs": 2, "stream": True},
    "prompt_logprobs as token ids": {"prompt_logprobs": 1, "return_tokens_as_token_ids": True},
    "stop": {"stop": ",", "max_tokens": 32},
    "stop list": {"stop": ["\n", " the"], "max_tokens": 32},
    "stop is included": {"stop": [" the"], "max_tokens": 32, "include_stop_str_in_output": True},
    "stop over token borders": {"stop": ["is, t"], "max_tokens": 32, "logprobs": 1},
    "empty stop": {"stop": []},
    "stop_token_ids": {"stop_token_ids": [30, 28, 260], "max_tokens": 32},
    "stop_token_ids is included": {"stop_token_ids": [28, 260], "max_tokens": 32, "include_stop_str_in_output": True},
    "min_tokens": {"min_tokens": 24, "max_tokens": 24},
    "min_tokens over max_tokens": {"min_tokens": 24, "max_tokens": 8},
    "ignore_eos": {"ignore_eos": True, "max_tokens": 24},
    "logit_bias forces": {"logit_bias": {"1000": 100}, "max_tokens": 4},
    "logit_bias forbids": {"logit_bias": {"7042": -100, "260": -100}},
    "logit_bias outside the vocabulary": {"logit_bias": {"999999": 1}},
    "logit_bias of text": {"logit_bias": {"Paris": 1}},
    "logit_bias over 100": {"logit_bias": {"1000": 1000}, "max_tokens": 4},
    "frequency_penalty": {"frequency_penalty": 1.5, "max_tokens": 32},
    "presence_penalty": {"presence_penalty": 1.5, "max_tokens": 32},
    "repetition_penalty": {"repetition_penalty": 1.3, "max_tokens": 32},
    "penalty out of range": {"frequency_penalty": 3},
    "negative repetition_penalty": {"repetition_penalty": -1},
    "top_k 1": {"temperature": 1, "top_k": 1},
    "small top_p": {"temperature": 1, "top_p": 1e-6},
    "min_p 1": {"temperature": 1, "min_p": 1},
    "return_token_ids": {"return_token_ids": True},
    "return_token_ids in a stream": {"return_token_ids": True, "stream": True},
    "return_tokens_as_token_ids": {"return_tokens_as_token_ids": True, "logprobs": 1},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 3, "return_token_ids": True},
    "truncate_prompt_tokens right": {
        "truncate_prompt_tokens": 3, "truncation_side": "right", "return_token_ids": True,
    },
    "truncate_prompt_tokens -1": {"truncate_prompt_tokens": -1},
    "skip_special_tokens": {"prompt": "<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n", "max_tokens": 40},
    "special tokens are returned": {
        "prompt": "<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n", "skip_special_tokens": False,
        "max_tokens": 40, "stop_token_ids": [2], "include_stop_str_in_output": True,
    },
    "spaces_between_special_tokens": {"spaces_between_special_tokens": False},
    "add_special_tokens": {"add_special_tokens": False, "return_token_ids": True},
    "stream": {"stream": True},
    "stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
    "stream with usage in each chunk": {
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "stream without usage": {"stream": True, "stream_options": {"include_usage": False}},
    "stream with only continuous_usage_stats": {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    "stream of several prompts": {"stream": True, "prompt": [PROMPT, "Two plus two is"], "n": 2},
    "stream with echo": {"stream": True, "echo": True},
    "stream with echo and logprobs": {"stream": True, "echo": True, "logprobs": 1},
    "stream with echo and no new tokens": {"stream": True, "echo": True, "max_tokens": 0, "logprobs": 1},
    "stream with logprobs": {"stream": True, "logprobs": 2},
    "stream with stop": {"stream": True, "stop": [" the"], "max_tokens": 32},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "multi-byte text": {"prompt": "日本の首都は", "max_tokens": 12, "logprobs": 1, "echo": True},
    "stream of multi-byte text": {"prompt": "🎉🎉🎉🎉🎉🎉", "max_tokens": 12, "stream": True, "logprobs": 1},
    "beam search": {"use_beam_search": True, "n": 2},
    "beam search of three": {"use_beam_search": True, "n": 3, "max_tokens": 6, "prompt": "My favorite color is"},
    "structured choice": {"structured_outputs": {"choice": ["Paris", "London"]}},
    "structured regex": {"structured_outputs": {"regex": "[0-9]{3}-[0-9]{2}"}, "max_tokens": 16},
    "structured json": {"structured_outputs": {"json": SCHEMA}, "max_tokens": 48},
    "response_format json_object": {"response_format": {"type": "json_object"}, "max_tokens": 24},
    "two structures": {"structured_outputs": {"json": SCHEMA, "regex": "a"}},
    "allowed_token_ids": {"allowed_token_ids": [1000, 1001], "max_tokens": 4},
    "bad_words": {"bad_words": ["Paris"], "max_tokens": 8},
    "logprob_token_ids": {"logprobs": 1, "logprob_token_ids": [1000, 1001], "max_tokens": 2},
    "suffix": {"suffix": "!"},
    "empty prompt": {"prompt": ""},
    "no prompt": {"prompt": None},
    "empty list of prompts": {"prompt": []},
    "empty list of token ids": {"prompt": [[]]},
    "token id outside the vocabulary": {"prompt": [999_999]},
    "negative token id": {"prompt": [-1]},
    "prompt is a number": {"prompt": 5},
    "unknown model": {"model": "other"},
    "empty model": {"model": ""},
    "unknown field": {"unknown": 1},
    "negative temperature": {"temperature": -1},
    "temperature over 2": {"temperature": 2.5, "top_k": 1},
    "top_p 0": {"top_p": 0},
    "top_p over 1": {"top_p": 1.1},
    "top_k -2": {"top_k": -2},
    "n 0": {"n": 0},
    "negative max_tokens": {"max_tokens": -1},
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens over the context": {"max_tokens": 5000},
    "prompt over the context": {"prompt": "word " * 3000},
    "seed of 64 bits": {"seed": 2**63 - 1},
    "seed over 64 bits": {"seed": 2**64},
    "best_of": {"best_of": 2, "n": 2},
    "temperature is text": {"temperature": "warm"},
    "stop is a number": {"stop": 5},
    "user": {"user": "ann"},
    "priority": {"priority": 0},
}  # fmt: skip
"""Fields of a text completion that differ from `COMPLETION`."""

COMPLETION: Json = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}

CHAT_FIELDS: dict[str, Json] = {
    "plain": {},
    "system role": {"messages": [{"role": "system", "content": "Answer in one word."}, *QUESTION]},
    "content parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Name"}, {"type": "text", "text": "one."}]}],
    },
    "max_completion_tokens": {"max_tokens": None, "max_completion_tokens": 3},
    "both limits": {"max_tokens": 5, "max_completion_tokens": 3},
    "finish by end token": {"messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 200},
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 3},
    "top_logprobs 0": {"logprobs": True, "top_logprobs": 0},
    "top_logprobs without logprobs": {"top_logprobs": 2},
    "top_logprobs -1": {"logprobs": True, "top_logprobs": -1, "max_tokens": 1},
    "prompt_logprobs": {"prompt_logprobs": 1},
    "stop": {"stop": ["\n"], "max_tokens": 40},
    "return_token_ids": {"return_token_ids": True},
    "return_token_ids in a stream": {"return_token_ids": True, "stream": True},
    "return_tokens_as_token_ids": {"return_tokens_as_token_ids": True, "logprobs": True, "top_logprobs": 1},
    "continue_final_message": {
        "messages": SAYING, "continue_final_message": True, "add_generation_prompt": False, "return_token_ids": True,
    },
    "echo of a continued message": {
        "messages": SAYING, "continue_final_message": True, "add_generation_prompt": False, "echo": True,
    },
    "stream with echo": {
        "messages": SAYING, "continue_final_message": True, "add_generation_prompt": False, "echo": True,
        "stream": True,
    },
    "continue and generation prompt": {
        "messages": SAYING, "continue_final_message": True, "add_generation_prompt": True,
    },
    "no generation prompt": {"add_generation_prompt": False, "return_token_ids": True},
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "reasoning_effort": {"reasoning_effort": "low"},
    "unknown role": {"messages": [{"role": "critic", "content": "Hello"}], "return_token_ids": True},
    "name of a message": {"messages": [{"role": "user", "name": "Ann", "content": "Hello"}], "return_token_ids": True},
    "empty content": {"messages": [{"role": "user", "content": ""}], "return_token_ids": True},
    "no content": {"messages": [{"role": "user"}], "return_token_ids": True},
    "stream": {"stream": True},
    "stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
    "stream with usage in each chunk": {
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "stream with logprobs": {"stream": True, "logprobs": True, "top_logprobs": 2},
    "stream of two": {"stream": True, "n": 2},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "response_format text": {"response_format": {"type": "text"}},
    "response_format json_object": {"response_format": {"type": "json_object"}, "max_tokens": 24},
    "response_format json_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        "max_tokens": 48,
    },
    "structured choice with logprobs": {
        "structured_outputs": {"choice": ["red", "blue"]}, "logprobs": True, "top_logprobs": 2,
    },
    "invalid schema": {"structured_outputs": {"json": {"type": "nothing"}}},
    "tools": {"tools": [TOOL], "max_tokens": 24},
    "tools and tool_choice none": {"tools": [TOOL], "tool_choice": "none", "return_token_ids": True},
    "tools and tool_choice required": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 64},
    "named tool": {
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}, "max_tokens": 64,
    },
    "stream of a named tool": {
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}, "max_tokens": 64,
        "stream": True,
    },
    "stream of a required tool": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 64, "stream": True},
    "named tool that does not exist": {
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}},
    },
    "tool_choice without tools": {"tool_choice": "required"},
    "tool_choice auto without tools": {"tool_choice": "auto"},
    "no tools": {"tools": []},
    "results of tools": {"messages": CALLED, "tools": [TOOL], "return_token_ids": True},
    "no messages": {"messages": []},
    "messages are missing": {"messages": None},
    "message without a role": {"messages": [{"content": "Hello"}]},
    "image": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        ],
    },
    "unknown content part": {"messages": [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]},
    "max_tokens 0": {"max_tokens": 0},
    "negative max_tokens": {"max_tokens": -1},
    "max_tokens over the context": {"max_tokens": 5000},
    "messages over the context": {"messages": [{"role": "user", "content": "word " * 3000}]},
    "logit_bias": {"logit_bias": {"1000": 100}, "max_tokens": 4},
    "logit_bias outside the vocabulary": {"logit_bias": {"999999": 1}},
    "beam search": {"use_beam_search": True, "n": 2},
    "unknown model": {"model": "other"},
    "unknown field": {"unknown": {"a": 1}},
    "chat_template": {"chat_template": "{{ messages[0].content }}", "return_token_ids": True},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "include_reasoning": {"include_reasoning": False},
    "modalities": {"modalities": ["text"]},
    "modalities audio": {"modalities": ["audio"]},
    "logprobs is a number": {"logprobs": 2},
}  # fmt: skip
"""Fields of a chat completion that differ from `CHAT_COMPLETION`."""

CHAT_COMPLETION: Json = {"messages": QUESTION, "max_tokens": 8, "temperature": 0}

OTHERS = [
    Request("models", "/v1/models", None),
    Request("unknown model", "/v1/models/other", None),
    Request("unknown route", "/v1/other", None),
    Request("health", "/health", None),
    Request("ping", "/ping", None),
    Request("get completions", COMPLETIONS, None),
    Request("body is not JSON", COMPLETIONS, "{"),
    Request("body is a list", CHAT, "[1]"),
    Request("wrong content type", CHAT, json.dumps(CHAT_COMPLETION), {"Content-Type": "text/plain"}),
    Request("tokenize", "/tokenize", {"prompt": "Hello <|im_end|> world"}),
    Request("tokenize with texts", "/tokenize", {"prompt": "Hello wörld 🎉", "return_token_strs": True}),
    Request("tokenize without special tokens", "/tokenize", {"prompt": "Hello", "add_special_tokens": False}),
    Request("tokenize messages", "/tokenize", {"messages": QUESTION, "return_token_strs": True}),
    Request("tokenize tools", "/tokenize", {"messages": QUESTION, "tools": [TOOL]}),
    Request("tokenize results of tools", "/tokenize", {"messages": CALLED}),
    Request(
        "tokenize a continued message", "/tokenize",
        {"messages": SAYING, "continue_final_message": True, "add_generation_prompt": False},
    ),
    Request("tokenize without generation prompt", "/tokenize", {"messages": QUESTION, "add_generation_prompt": False}),
    Request("tokenize empty text", "/tokenize", {"prompt": ""}),
    Request("detokenize", "/detokenize", {"tokens": TOKENS}),
    Request("detokenize special tokens", "/detokenize", {"tokens": [1, 504, 2]}),
    Request("detokenize outside the vocabulary", "/detokenize", {"tokens": [999_999]}),
    Request("invocations of a chat", "/invocations", CHAT_COMPLETION),
    Request("invocations of a completion", "/invocations", COMPLETION),
    Request("embeddings", "/v1/embeddings", {"input": "Hello"}),
    Request("responses", "/v1/responses", {"input": "Say hi", "temperature": 0, "max_output_tokens": 4}),
    Request("messages", "/v1/messages", {"messages": QUESTION, "max_tokens": 4}),
    Request("batch of chats", CHAT + "/batch", {"messages": [QUESTION, QUESTION], "max_tokens": 4}),
]  # fmt: skip


def requests() -> Iterator[Request]:
    """Yields all requests."""
    for name, fields in COMPLETION_FIELDS.items():
        yield Request(f"completion: {name}", COMPLETIONS, COMPLETION | fields)
    for name, fields in CHAT_FIELDS.items():
        yield Request(f"chat: {name}", CHAT, CHAT_COMPLETION | fields)
    yield from OTHERS


def send(url: str, model: str, request: Request, timeout_seconds: float) -> Response:
    """Sends a request, and reads the whole response."""
    body = request.body
    text = json.dumps({"model": model, **body}) if isinstance(body, dict) else body
    data = None if text is None else text.encode()
    headers = {"Content-Type": "application/json", **request.headers}
    message = urllib.request.Request(url + request.path, data, headers)
    try:
        with urllib.request.urlopen(message, timeout=timeout_seconds) as response:
            text, stream = response.read().decode(), "event-stream" in response.headers.get("Content-Type", "")
            status = response.status
    except urllib.error.HTTPError as error:
        return Response(error.code, None)
    if stream:
        return Response(status, joined(text))
    try:
        return Response(status, json.loads(text))
    except ValueError:
        return Response(status, "text" if text else "")
