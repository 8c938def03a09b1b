"""The OpenAI routes, judged by the official client and by the raw wire where the client hides it."""

import json
from typing import Any

import openai
import pytest
from fake_model import FakeModel
from openai import AsyncOpenAI
from running_server import RunningServer, Serve


def client(server: RunningServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)


async def test_chat_completion(serve: Serve) -> None:
    server = await serve()
    async with client(server) as api:
        answer = await api.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "HELLO"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.model == "fake"
    assert answer.usage is not None
    # The end token is generated, so it counts.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 6, 11)


async def test_chat_completion_streams(serve: Serve) -> None:
    server = await serve()
    async with client(server) as api:
        stream = await api.chat.completions.create(
            model="fake",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "HELLO"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1


async def test_stream_of_server_sent_events_ends_with_done(serve: Serve) -> None:
    server = await serve()
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(line.removeprefix("data: "))["choices"] for line in lines[:-2])


async def test_text_completion_and_its_stream(serve: Serve) -> None:
    server = await serve()
    async with client(server) as api:
        answer = await api.completions.create(model="fake", prompt=["ab", "cd"], echo=True, max_tokens=10)
        stream = await api.completions.create(model="fake", prompt="abcdef", stream=True, max_tokens=4)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        from_tokens = await api.completions.create(model="fake", prompt=[97, 98])
    assert [choice.text for choice in answer.choices] == ["abAB", "cdCD"]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert text == "ABCD"
    assert from_tokens.choices[0].text == "AB"


async def test_legacy_route_has_16_tokens_by_default(serve: Serve) -> None:
    server = await serve()
    async with client(server) as api:
        answer = await api.completions.create(model="fake", prompt="x" * 50)
    assert answer.choices[0].text == "X" * 16
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("stop", "text"), [("LO", "HEL"), (["zz", "L"], "HE"), ("LOX", "HELLO WORLD")])
async def test_stop_string_ends_the_completion_and_is_not_part_of_it(
    serve: Serve, stop: str | list[str], text: str, stream: bool
) -> None:
    server = await serve()
    body = {"messages": [{"role": "user", "content": "hello world"}], "stop": stop, "stream": stream}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        raw = await response.text()
    if stream:
        events = [json.loads(line[6:]) for line in raw.split("\n\n") if line and "[DONE]" not in line]
        found = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
        finish_reason = events[-1]["choices"][0]["finish_reason"]
    else:
        choice = json.loads(raw)["choices"][0]
        found, finish_reason = choice["message"]["content"], choice["finish_reason"]
    assert (found, finish_reason) == (text, "stop")


async def test_several_completions_have_their_own_index_and_seed(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    async with client(server) as api:
        answer = await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "hi"}], n=3, seed=7
        )
        stream = await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "hi"}], n=2, stream=True
        )
        texts = {0: "", 1: ""}
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [row.seed for row in model.seen[:3]] == [7, 8, 9]
    assert texts == {0: "HI", 1: "HI"}


async def test_logprobs(serve: Serve) -> None:
    server = await serve()
    async with client(server) as api:
        answer = await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "a"}], logprobs=True, top_logprobs=2
        )
        text = await api.completions.create(model="fake", prompt="a", logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [item.token for item in logprobs.content] == ["A", "<end>"]
    assert [other.token for other in logprobs.content[0].top_logprobs] == ["A", "B"]
    legacy = text.choices[0].logprobs
    assert legacy is not None
    assert legacy.tokens == ["A", "<end>"]
    assert legacy.top_logprobs == [{"A": -0.5}, {"<end>": -0.5}]
    assert legacy.text_offset == [0, 1]


async def test_sampling_fields_are_converted_to_options_of_the_model(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    async with client(server) as api:
        await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "x"}], temperature=0.5, top_p=0.9
        )
        await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "x"}], temperature=0, extra_body={"top_k": 5}
        )
    options = [getattr(row.plan, "options") for row in model.seen]  # noqa: B009 - the fake's own attribute
    assert options[0] == {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 0}
    assert options[1] == {"do_sample": False, "temperature": 0, "top_k": 5}


async def test_models_are_listed_with_their_adapters_and_selectable(serve: Serve) -> None:
    server = await serve(FakeModel(adapters=("phi-3-adapter",)))
    async with client(server) as api:
        listed = [model async for model in api.models.list()]
        one = await api.models.retrieve("phi-3-adapter")
        answers = [
            (await api.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}]))
            .choices[0]
            .message.content
            for name in ("fake", "fake:base", "phi-3-adapter")
        ]
    assert [model.id for model in listed] == ["fake", "fake:base", "phi-3-adapter"]
    assert (one.created, one.owned_by) == (1_700_000_000, "kaito")
    assert answers == ["X", "[]X", "[phi-3-adapter]X"]


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "'gpt-4' does not exist"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 5000}, openai.BadRequestError, "context is 1000 tokens"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"n": 0}, openai.BadRequestError, "body.n"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "pope", "content": "x"}]}, openai.BadRequestError, "roles must be"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools.0.function"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format"),
        ({"frequency_penalty": 3}, openai.BadRequestError, "frequency_penalty"),
        ({"options": {"temperature": 1}}, openai.BadRequestError, "options"),
        ({"top_logprobs": 2}, openai.BadRequestError, "logprobs=true"),
    ],
)
async def test_errors_raise_the_exceptions_of_the_openai_client(
    serve: Serve, body: dict[str, object], error: type[openai.APIStatusError], words: str
) -> None:
    server = await serve()
    defaults: dict[str, object] = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
    async with client(server) as api:
        with pytest.raises(error, match=words) as caught:
            await api.post("/chat/completions", cast_to=object, body=defaults | body)
    error_object: Any = caught.value.body
    assert set(error_object) == {"message", "type", "param", "code"}


async def test_too_long_prompt_has_openais_error_code(serve: Serve) -> None:
    server = await serve(FakeModel(context=10))
    async with client(server) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.completions.create(model="fake", prompt="x" * 10)
    assert caught.value.code == "context_length_exceeded"


async def test_token_ids_outside_the_vocabulary_are_refused(serve: Serve) -> None:
    server = await serve()
    for token in (-1, 0x110000):
        status, body = await server.post("/v1/completions", {"prompt": [1, token]})
        assert status == 400
        assert f"token id {token} is out of vocabulary" in body["error"]["message"]


@pytest.mark.parametrize("n", [1, 3])
async def test_error_in_the_middle_of_a_stream_is_an_event(serve: Serve, n: int) -> None:
    model = FakeModel(reply=lambda _: "long answer")
    server = await serve(model)
    model.hold()
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "n": n}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200
        model.fail_next_step = True
        model.release()
        text = await response.text()
    assert "scripted failure" in text
    assert "[DONE]" not in text
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200
