"""`/chat` and the rest of the wrapper's routes in front of a stub engine, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from kaito_presets.vllm import proxy as proxies
from kaito_presets.vllm.proxy import Proxy
from kaito_presets.vllm.translate import clean_up_spaces
from openai import AsyncOpenAI
from stub_engine import StubEngine


class Wrapped:
    def __init__(self, url: str, proxy: Proxy, engine: StubEngine, session: ClientSession) -> None:
        self.url, self.proxy, self.engine, self.session = url, proxy, engine, session

    async def chat(self, **body: object) -> tuple[int, Any]:
        async with self.session.post(self.url + "/chat", json=body) as response:
            return response.status, await response.json()


async def listen(app: web.Application, runners: list[web.AppRunner]) -> str:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    runners.append(runner)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def wrapped() -> AsyncIterator[Wrapped]:
    runners: list[web.AppRunner] = []
    engine = StubEngine()
    engine_url = await listen(engine.application(), runners)
    proxy = Proxy(engine_url, model="phi", adapters=["phi-3-adapter"], in_flight_limit=2)
    url = await listen(proxy.application(), runners)
    async with ClientSession() as session:
        proxy.state = "Healthy"
        yield Wrapped(url, proxy, engine, session)
    for runner in reversed(runners):
        await runner.cleanup()


async def test_prompt_becomes_a_completion_with_upstreams_defaults(wrapped: Wrapped) -> None:
    assert await wrapped.chat(prompt="abc") == (200, {"Result": "abcABC"})
    assert wrapped.engine.bodies == [{"model": "phi-3-adapter", "prompt": "abc", "max_tokens": 200, "top_k": 10}]


async def test_fields_of_chat_are_honored(wrapped: Wrapped) -> None:
    assert await wrapped.chat(prompt="bc", prefix="a", return_full_text=False) == (200, {"Result": "ABC"})
    assert await wrapped.chat(prompt="a .", clean_up_tokenization_spaces=True) == (200, {"Result": "a .A."})
    assert await wrapped.chat(messages=[{"role": "user", "content": "hi"}]) == (200, {"Result": "HI"})
    twice = await wrapped.chat(prompt="x", return_full_text=False, generate_kwargs={"num_return_sequences": 2})
    assert twice == (200, {"Result": "XX"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9}, {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9}),
        ({"do_sample": False}, {"temperature": 0, "top_k": None}),
        ({"max_length": 10}, {"max_tokens": 7}),
        ({"repetition_penalty": 1.1, "seed": 3, "min_new_tokens": 2}, {"repetition_penalty": 1.1, "min_tokens": 2}),
        ({"eos_token_id": 7, "num_beams": 1, "early_stopping": False}, {"stop_token_ids": [7]}),
    ],
)
async def test_options_are_translated(wrapped: Wrapped, options: dict[str, Any], expected: dict[str, Any]) -> None:
    status, _ = await wrapped.chat(prompt="abc", generate_kwargs=options)
    assert status == 200
    assert {key: wrapped.engine.bodies[-1].get(key) for key in expected} == expected


async def test_hole_keeps_the_right_end_of_the_prompt(wrapped: Wrapped) -> None:
    prompt = "".join(chr(97 + index % 26) for index in range(100))
    body = {"prompt": prompt, "handle_long_generation": "hole", "generate_kwargs": {"max_new_tokens": 60}}
    assert await wrapped.chat(**body) == (200, {"Result": prompt[-4:] + prompt[-4:].upper()})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "prompt required"),
        ({"prompt": 7}, 422, "string"),
        ({"prompt": "x", "generate_kwargs": {"num_beams": 4}}, 400, "num_beams=4 has no counterpart"),
        ({"prompt": "x", "generate_kwargs": {"nonsense": 4}}, 400, "nonsense"),
        ({"prompt": "abc", "generate_kwargs": {"max_length": 2}}, 400, "use max_new_tokens"),
        ({"prompt": "abc", "generate_kwargs": {"max_new_tokens": 5000}}, 400, "context exceeded"),
    ],
)
async def test_errors_are_those_of_the_contract(
    wrapped: Wrapped, body: dict[str, Any], status: int, words: str
) -> None:
    code, answer = await wrapped.chat(**body)
    assert code == status
    assert words in str(answer["detail"])


async def test_openai_routes_are_forwarded_with_streams(wrapped: Wrapped) -> None:
    async with AsyncOpenAI(base_url=wrapped.url + "/v1", api_key="unused", max_retries=0) as api:
        stream = await api.completions.create(model="phi", prompt="hello", max_tokens=10, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == "HELLO"


async def test_requests_above_the_limit_are_a_429(wrapped: Wrapped) -> None:
    wrapped.engine.hold = asyncio.Event()
    tasks = [asyncio.create_task(wrapped.chat(prompt="x")) for _ in range(2)]  # noqa: TID251 - awaited below
    async with asyncio.timeout(10):
        while len(wrapped.engine.bodies) < 2:  # noqa: ASYNC110 - the stub is only looked at
            await asyncio.sleep(0.01)
    async with wrapped.session.post(wrapped.url + "/v1/responses", json={}) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
    async with wrapped.session.get(wrapped.url + "/health") as response:
        assert response.status == 200
    async with wrapped.session.get(wrapped.url + "/metrics") as response:
        text = await response.text()
    assert "kaito_ratelimit_rejected_total 1.0" in text
    assert "vllm:num_requests_running" in text
    wrapped.engine.hold.set()
    assert [(await task)[0] for task in tasks] == [200, 200]


async def test_disconnected_client_ends_its_request_to_the_engine(wrapped: Wrapped) -> None:
    wrapped.engine.hold = asyncio.Event()
    task = asyncio.create_task(wrapped.chat(prompt="x"))  # noqa: TID251 - awaited below
    async with asyncio.timeout(10):
        while not wrapped.engine.bodies:  # noqa: ASYNC110 - the stub is only looked at
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not (wrapped.proxy.idle and wrapped.engine.cancelled):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_state_is_in_health_and_version(wrapped: Wrapped) -> None:
    wrapped.proxy.state = "Loading"
    async with wrapped.session.get(wrapped.url + "/healthz") as response:
        assert (response.status, await response.json()) == (503, {"status": "Loading"})
    assert (await wrapped.chat(prompt="x"))[0] == 503
    wrapped.proxy.state = "Healthy"
    async with wrapped.session.get(wrapped.url + "/version") as response:
        version = await response.json()
    assert (version["engine"], version["engine_version"], version["model"]) == ("vllm", "9.9", "phi")


def test_spaces_are_cleaned_up_as_by_transformers() -> None:
    assert clean_up_spaces("do n't , you ?") == "don't, you?"


@pytest.mark.parametrize(
    ("requested", "engine"),
    [("phi", "phi-3-adapter"), (None, "phi-3-adapter"), ("phi:base", "phi"), ("phi-3-adapter", "phi-3-adapter")],
)
async def test_served_name_means_the_adapter_as_in_the_transformers_runtime(
    wrapped: Wrapped, requested: str | None, engine: str
) -> None:
    """One meaning of each name on both runtimes."""
    body: dict[str, object] = {"prompt": "a", "max_tokens": 3}
    if requested is not None:
        body["model"] = requested
    async with wrapped.session.post(wrapped.url + "/v1/completions", json=body) as response:
        assert response.status == 200
    assert wrapped.engine.bodies[-1]["model"] == engine


async def test_length_of_a_conversation_is_counted_by_the_engine(wrapped: Wrapped) -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert await wrapped.chat(messages=messages, generate_kwargs={"max_length": 8}) == (200, {"Result": "HELLO"})
    assert wrapped.engine.bodies[-1] == {"model": "phi-3-adapter", "messages": messages, "max_tokens": 3, "top_k": 10}
    status, answer = await wrapped.chat(messages=messages, generate_kwargs={"max_length": 5})
    assert (status, "has 5 tokens" in answer["detail"]) == (400, True)
    await wrapped.chat(messages=messages)
    assert wrapped.engine.bodies[-1]["max_tokens"] == 200


@pytest.mark.parametrize("name", [7, None, "", [], "other", {"a": 1}])
async def test_names_without_an_alias_are_forwarded(wrapped: Wrapped, name: object) -> None:
    body = {"prompt": "a", "max_tokens": 3, "model": name}
    async with wrapped.session.post(wrapped.url + "/v1/completions", json=body) as response:
        assert response.status == 200
    assert wrapped.engine.bodies[-1]["model"] == (name or "phi-3-adapter")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": {"message": ""}, "message": "b"}, "b"),
        ({"error": "x", "detail": "c"}, "c"),
        ({"message": "d", "detail": "e"}, "d"),
        ({"other": 1}, "{'other': 1}"),
        ([1], "[1]"),
    ],
)
def test_message_of_an_engine_error_is_extracted(document: object, message: str) -> None:
    assert proxies.error_message(document) == message


@pytest.mark.parametrize(
    ("status", "expected", "error"),
    [(429, 429, "Overloaded"), (400, 400, "x"), (404, 400, "x"), (499, 400, "x"), (500, 500, "x"), (302, 500, "x")],
)
async def test_status_of_an_engine_error_is_mapped(status: int, expected: int, error: str) -> None:
    runners: list[web.AppRunner] = []
    app = web.Application()

    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"detail": error}, status=status)

    app.router.add_post("/v1/completions", fail)
    proxy = Proxy(await listen(app, runners), model="phi")
    proxy.state = "Healthy"
    url = await listen(proxy.application(), runners)
    async with ClientSession() as session, session.post(url + "/chat", json={"prompt": "x"}) as response:
        assert response.status == expected
        assert await response.json() == {"detail": error}
    for runner in reversed(runners):
        await runner.cleanup()


async def test_engine_that_cannot_be_reached_is_a_500() -> None:
    runners: list[web.AppRunner] = []
    proxy = Proxy("http://127.0.0.1:9", model="phi")
    proxy.state = "Healthy"
    url = await listen(proxy.application(), runners)
    async with ClientSession() as session:
        for path, key in (("/chat", "detail"), ("/v1/completions", "error")):
            async with session.post(url + path, json={"prompt": "x"}) as response:
                assert response.status == 500
                assert "the request to the engine failed: " in str((await response.json())[key])
        async with session.get(url + "/health") as response:
            assert (response.status, await response.json()) == (503, {"status": "Unhealthy"})
    for runner in reversed(runners):
        await runner.cleanup()


async def test_requests_are_counted_by_route_and_status(wrapped: Wrapped) -> None:
    await wrapped.chat(prompt="abc")
    await wrapped.chat()
    for path in ("/health", "/healthz", "/metrics", "/v1/none", "/"):
        async with wrapped.session.get(wrapped.url + path):
            pass
    async with wrapped.session.get(wrapped.url + "/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = (await response.text()).splitlines()
    counted = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if "kaito_http_requests_total{" in line
    }
    assert counted == {
        'kaito_http_requests_total{code="200",route="/chat"}': 1,
        'kaito_http_requests_total{code="400",route="/chat"}': 1,
        'kaito_http_requests_total{code="200",route="/health"}': 1,
        'kaito_http_requests_total{code="200",route="/healthz"}': 1,
        'kaito_http_requests_total{code="200",route="/metrics"}': 1,
        'kaito_http_requests_total{code="404",route="engine"}': 1,
        'kaito_http_requests_total{code="200",route="/"}': 1,
    }
    assert "# HELP kaito_http_requests_total Requests answered." in lines
    assert "kaito_generation_in_flight 0.0" in lines


@pytest.mark.parametrize(
    ("adapters", "chat", "warned"), [([], "phi", False), (["a"], "a", False), (["a", "b"], "phi", True)]
)
async def test_chat_uses_a_single_adapter(
    adapters: list[str], chat: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy("http://127.0.0.1:9", model="phi", adapters=adapters)
    assert proxy.names.chat_model == chat
    assert ("vLLM cannot combine adapters" in caplog.text) is warned


async def test_version_of_an_engine_that_does_not_report_one_is_empty(wrapped: Wrapped) -> None:
    wrapped.proxy.state = "Loading"
    async with wrapped.session.get(wrapped.url + "/version") as response:
        assert (await response.json())["engine_version"] == ""


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"prompt": "hi"}, "hi\nHI"),
        ({"prompt": "hi", "return_full_text": False}, "HI"),
        ({"prompt": "hi", "apply_chat_template": False}, "hiHI"),
        ({"prompt": "<|user|>hi"}, "<|user|>hi<|USER|>HI"),
    ],
)
async def test_a_bare_prompt_is_a_message_if_the_model_has_a_chat_template(
    wrapped: Wrapped, body: dict[str, object], result: str
) -> None:
    wrapped.engine.has_chat_template = True
    for _ in range(2):
        assert await wrapped.chat(**body) == (200, {"Result": result})
    assert ["messages" in sent for sent in wrapped.engine.bodies] == ["\n" in result or result == "HI"] * 2


async def test_a_template_that_the_model_does_not_have_is_an_error(wrapped: Wrapped) -> None:
    status, answer = await wrapped.chat(prompt="hi", apply_chat_template=True)
    assert (status, "no chat template" in answer["detail"]) == (400, True)
