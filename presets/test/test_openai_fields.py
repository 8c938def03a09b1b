"""Fields of well-known clients: honored, accepted where they ask for nothing, or refused by name."""

import json
from typing import Any

import pytest
from fake_model import END, FakeModel
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
    (CHAT, {"stream": True, "stream_options": {"include_obfuscation": True}}),
    (CHAT, {"verbosity": "low", "prompt_cache_retention": "24h", "prediction": {"type": "content"}}),
    # Bodies that clients send.
    (TEXT, {"ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, {"reasoning_effort": "low"}),
    (CHAT, {"frequency_penalty": 0.5, "presence_penalty": 0.1}),
    (CHAT, {"tools": [TOOL], "tool_choice": "none"}),
    (CHAT, {"tools": [TOOL], "tool_choice": "none", "response_format": {"type": "json_object"}}),
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
    (CHAT, {"model": "", "min_tokens": 4, "max_tokens": 4}),
    (CHAT, {"unheard_of": None, "unheard_of_too": []}),
    (CHAT, {"n": None, "stream": None, "temperature": None, "seed": None, "stop": None, "logprobs": None,
            "ignore_eos": None, "stream_options": None, "max_completion_tokens": None}),
]  # fmt: skip

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, {"tools": [TOOL] * 129}, "tools"),
    (CHAT, {"tools": [{"type": "web_search"}]}, "tools"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    (CHAT, {"response_format": {"type": "yaml"}}, "response_format"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities"),
    (CHAT, {"min_tokens": 5, "max_completion_tokens": 4}, "min_tokens"),
    (TEXT, {"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    (CHAT, {"chat_template": "{{ messages }}"}, "chat_template"),
    (CHAT, {"options": {"num_ctx": 5}}, "options"),
    (CHAT, {"function_call": {"name": "f"}}, "tool_choice"),
    (CHAT, {"response_format": {"type": "structural_tag", "structures": []}}, "response_format"),
    (CHAT, {"functions": [{"name": "f"}]}, "functions"),
    (TEXT, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    (TEXT, {"prompt_logprobs": 21}, "prompt_logprobs"),
    (TEXT, {"use_beam_search": True, "stream": True}, "use_beam_search"),
    (TEXT, {"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    (TEXT, {"best_of": 3}, "best_of"),
    (TEXT, {"suffix": "x"}, "suffix"),
    (TEXT, {"max_tokens": 0}, "max_tokens"),
    (TEXT, {"repeat_penalty": 1.2}, "repeat_penalty"),
    (TEXT, {"length_penalty": True}, "length_penalty"),
    (CHAT, {"chat_template_kwargs": {"tokenize": False}}, "tokenize"),
    (CHAT, {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"n": True}, "n"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"seed": 2**63}, "seed"),
    (TEXT, {"prompt": [True, False]}, "prompt"),
    (TEXT, {"stop_token_ids": [True]}, "stop_token_ids"),
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


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"unheard_of": 0, "my_option": 0.5, "user": "eva"}, "unheard_of, my_option"),
        ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, "stream_options.x"),
        ({"messages": [{"role": "user", "content": "x", "mood": "good", "audio": None}]}, "messages.mood"),
        ({"top_k": 1, "priority": 3, "store": True}, None),
    ],
)
async def test_unknown_fields_are_ignored_and_listed_in_a_header(
    serve: Serve, fields: dict[str, Any], names: str | None
) -> None:
    server = await serve()
    async with server.session.post(server.url + CHAT, json=body_for(CHAT, fields)) as response:
        assert response.status == 200, await response.text()
        assert response.headers.get("X-Kaito-Ignored-Fields") == names
    counted = server.metrics.registry.get_sample_value("kaito_requests_with_ignored_fields_total")
    assert counted == (names is not None)


def events_of(raw: str) -> list[dict[str, Any]]:
    """The documents of a stream, or the one document of a whole answer."""
    if not raw.startswith("data: "):
        return [json.loads(raw)]
    return [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")]


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string_is_included_on_request(serve: Serve, stream: bool) -> None:
    server = await serve()
    body = {"prompt": "hello", "max_tokens": 9, "stop": "LL", "include_stop_str_in_output": True, "stream": stream}
    async with server.session.post(server.url + TEXT, json=body) as response:
        choices = [event["choices"][0] for event in events_of(await response.text())]
    assert "".join(choice["text"] for choice in choices) == "HELL"
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", "LL")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include", [False, True])
async def test_stop_token_is_reported_and_its_text_is_not_part_of_the_answer(
    serve: Serve, include: bool, stream: bool
) -> None:
    server = await serve(FakeModel(end_tokens=frozenset({0, ord("L")})))
    body = {"prompt": "hello", "max_tokens": 9, "stop_token_ids": [ord("L")], "stream": stream}
    async with server.session.post(server.url + TEXT, json=body | {"include_stop_str_in_output": include}) as response:
        choices = [event["choices"][0] for event in events_of(await response.text())]
    assert "".join(choice["text"] for choice in choices) == ("HEL" if include else "HE")
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", ord("L"))


async def test_token_ids_are_returned_on_request(serve: Serve) -> None:
    server = await serve()
    fields = {"return_token_ids": True, "logprobs": 1, "return_tokens_as_token_ids": True}
    _, text = await server.post(TEXT, {"prompt": "ab", **fields})
    choice = text["choices"][0]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([97, 98], [65, 66, 0])
    assert choice["logprobs"]["tokens"] == ["token_id:65", "token_id:66", "token_id:0"]
    body = {"messages": [{"role": "user", "content": "ab"}], "return_token_ids": True}
    _, chat = await server.post(CHAT, body)
    assert (chat["prompt_token_ids"], chat["choices"][0]["token_ids"]) == ([97, 98], [65, 66, 0])
    async with server.session.post(server.url + CHAT, json=body | {"stream": True}) as response:
        events = events_of(await response.text())
    assert [event.get("prompt_token_ids") for event in events[:2]] == [[97, 98], None]
    assert [token for event in events for token in event["choices"][0].get("token_ids", [])] == [65, 66, 0]


async def test_prompt_logprobs_have_vllms_format(serve: Serve) -> None:
    server = await serve()
    _, text = await server.post(TEXT, {"prompt": "ab", "max_tokens": 0, "prompt_logprobs": 1})
    token = {"logprob": -0.25, "rank": 2, "decoded_token": "b"}
    best = {"logprob": -0.125, "rank": 1, "decoded_token": "c"}
    assert text["choices"][0]["prompt_logprobs"] == [None, {"98": token, "99": best}]
    assert text["usage"]["completion_tokens"] == 0
    body = {"messages": [{"role": "user", "content": "ab"}], "prompt_logprobs": 0}
    _, chat = await server.post(CHAT, body)
    assert chat["prompt_logprobs"] == [None, {"98": token}]


async def test_prompt_is_truncated_on_the_left(serve: Serve) -> None:
    server = await serve(FakeModel(context=8))
    for limit, side, prompt in ((3, None, "fgh"), (-1, "left", "bcdefgh"), (3, "right", "abc")):
        body: dict[str, Any] = {"prompt": "abcdefgh", "truncate_prompt_tokens": limit}
        body |= {"max_tokens": 1, "echo": True, "truncation_side": side}
        _, text = await server.post(TEXT, body)
        assert text["choices"][0]["text"] == prompt + prompt[0].upper()


@pytest.mark.parametrize(
    ("prompt", "special", "echoed", "offsets"),
    [
        ([97, END, 98], True, "a<end>b", [0, 1, 6]),
        ("ab", True, "ab", [0, 0, 1]),
        ("ab", False, "ab", [0, 1]),
        ([END, 97], True, "<end>a", [0, 5]),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_echo_repeats_the_prompt_with_its_special_tokens(
    serve: Serve, prompt: object, special: bool, echoed: str, offsets: list[int], stream: bool
) -> None:
    """The prompt is returned as it was given: with special tokens of the request, without those of the tokenizer."""
    model = FakeModel(reply=lambda _: "x")
    model.added_tokens = [END]
    server = await serve(model)
    body: dict[str, Any] = {"prompt": prompt, "echo": True, "logprobs": 0, "max_tokens": 1, "n": 2}
    body |= {"add_special_tokens": special, "stream": stream}
    async with server.session.post(server.url + TEXT, json=body) as response:
        choices = [choice for event in events_of(await response.text()) for choice in event["choices"]]
    for index in range(2):
        own = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == f"{echoed}x"
        found = [offset for choice in own if choice["logprobs"] for offset in choice["logprobs"]["text_offset"]]
        assert found == [*offsets, len(echoed)]


async def test_chat_echo_repeats_the_begun_answer(serve: Serve) -> None:
    server = await serve()
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "so "}]
    _, chat = await server.post(CHAT, {"messages": messages, "continue_final_message": True, "echo": True})
    assert chat["choices"][0]["message"]["content"] == "so SO "


async def test_beam_search_returns_n_beams(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    status, text = await server.post(TEXT, {"prompt": "ab", "use_beam_search": True, "n": 2, "temperature": 0})
    assert status == 200
    assert [choice["index"] for choice in text["choices"]] == [0, 1]
    options = getattr(model.unbatched_rows[0].plan, "options")  # noqa: B009 - the fake's own attribute
    assert (options["num_beams"], options["num_return_sequences"], options["do_sample"]) == (2, 2, False)


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
    chat = {"messages": [{"role": "user", "content": "ab"}], "stream": True, "stream_options": options}
    async with server.session.post(server.url + CHAT, json=chat) as response:
        counts = [event["usage"]["completion_tokens"] for event in events_of(await response.text())]
    assert counts == [0, 1, 2, 3, 3]
    body["stream_options"] = {"continuous_usage_stats": True}
    async with server.session.post(server.url + TEXT, json=body) as response:
        assert "usage" not in await response.text()
    assert json.loads(lines[-1])["choices"] == []


async def test_prompts_of_a_stream_run_concurrently(serve: Serve) -> None:
    """A list of prompts takes as many steps as its longest answer, not as all together."""
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


async def test_tokens_of_a_prompt_and_of_a_conversation(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    status, answer = await server.post("/tokenize", {"prompt": "ab", "return_token_strs": True})
    assert (status, answer) == (
        200,
        {"count": 2, "max_model_len": 1000, "tokens": [97, 98], "token_strs": ["<97>", "<98>"]},
    )
    body = {"messages": [{"role": "user", "content": "abc"}], "add_generation_prompt": False, "tools": [TOOL]}
    status, answer = await server.post("/tokenize", body)
    assert (status, answer["tokens"], answer["token_strs"]) == (200, [97, 98, 99], None)
    (_, template) = model.conversations[-1]
    assert (template.add_generation_prompt, len(template.tools)) == (False, 1)
    assert await server.post("/detokenize", {"tokens": [104, 105]}) == (200, {"prompt": "hi"})


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "gpt-4"}, "model"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [0x110000]}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/invocations", {"prompt": 5}, "prompt"),
        ("/v1/embeddings", {"input": "x"}, None),
    ],
)
async def test_errors_of_further_routes_have_openais_form(
    serve: Serve, path: str, body: dict[str, Any], param: str | None
) -> None:
    server = await serve()
    status, answer = await server.post(path, body)
    assert status in (400, 404)
    assert answer["error"]["param"] == param
    if param is None:
        return
    async with server.session.post(server.url + path, data=b"[" * 10_000) as response:
        assert response.status == 400


async def test_invocations_are_chat_or_text_completions(serve: Serve) -> None:
    server = await serve()
    _, chat = await server.post("/invocations", {"messages": [{"role": "user", "content": "hi"}]})
    _, text = await server.post("/invocations", {"prompt": "hi"})
    assert (chat["choices"][0]["message"]["content"], text["choices"][0]["text"]) == ("HI", "HI")


async def test_ping_load_and_openapi(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model, ready=False)
    assert (await server.get("/ping"))[0] == 503
    assert await server.get("/load") == (200, {"server_load": 0})
    status, document = await server.get("/openapi.json")
    assert status == 200
    schema = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert "temperature" in named["properties"]
    assert set(document["paths"]["/ping"]) == {"get", "post"}


async def test_text_parts_of_a_message_are_separated_by_line_breaks(serve: Serve) -> None:
    """As in vLLM, so that a conversation has the same tokens on both runtimes."""
    model = FakeModel()
    server = await serve(model)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert (await server.post(CHAT, {"messages": [{"role": "user", "content": parts}]}))[0] == 200
    assert model.conversations[-1][0][-1].content == "one\ntwo"


@pytest.mark.parametrize(("begins", "role"), [(True, "assistant"), (False, "user")])
async def test_answer_has_the_role_of_the_turn_that_it_continues(serve: Serve, begins: bool, role: str) -> None:
    server = await serve(FakeModel())
    body = {"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": begins}
    _, answer = await server.post(CHAT, body)
    assert answer["choices"][0]["message"]["role"] == role
    async with server.session.post(server.url + CHAT, json=body | {"stream": True}) as response:
        first = json.loads((await response.text()).split("\n\n")[0].removeprefix("data: "))
    assert first["choices"][0]["delta"]["role"] == role
