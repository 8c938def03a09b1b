"""Single values, boundaries and rejections of the contract that both servers share."""

import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from kaito_presets.errors import (
    AdapterError,
    BadRequest,
    ConfigurationError,
    GenerationFailed,
    Overloaded,
    PromptTooLong,
    RequestError,
    Unavailable,
    UnknownModel,
)
from kaito_presets.json_values import abbreviate
from kaito_presets.serving.adapters import Adapter, find_adapters
from kaito_presets.serving.chat import ChatMessage, ChatRequest, ChatResponse, LengthOptions, take_integer
from kaito_presets.serving.config import read_config_file, read_strengths
from kaito_presets.serving.health import require_healthy
from kaito_presets.serving.http_errors import errors_as_json, read_body
from pydantic import BaseModel, ValidationError


def lengths(hole: bool = False, **options: Any) -> LengthOptions:
    request = ChatRequest(prompt="x", handle_long_generation="hole" if hole else None)
    return LengthOptions.take_from(request, options)


# Lengths.


def test_length_options_are_removed_from_the_options() -> None:
    options: dict[str, Any] = {"max_new_tokens": 3, "max_length": 9, "top_k": 1}
    found = LengthOptions.take_from(ChatRequest(prompt="x"), options)
    assert options == {"top_k": 1}
    assert (found.max_new_tokens, found.max_length, found.truncates_prompt) == (3, 9, False)


@pytest.mark.parametrize("key", ["max_new_tokens", "max_length"])
@pytest.mark.parametrize("value", [0, -1, 2**31, True, 1.0, "5", [1]])
def test_length_must_be_a_positive_integer(key: str, value: object) -> None:
    with pytest.raises(BadRequest) as raised:
        LengthOptions.take_from(ChatRequest(prompt="x"), {key: value})
    assert raised.value.message == f"generate_kwargs.{key} must be a positive integer, not {value!r}"
    assert raised.value.param == key


@pytest.mark.parametrize("value", [1, 2**31 - 1, None])
def test_length_at_its_limits_is_accepted(value: int | None) -> None:
    assert lengths(max_new_tokens=value).max_new_tokens == value
    assert lengths(max_length=value).max_length == value


def test_integer_outside_its_range_is_rejected_with_the_range() -> None:
    assert take_integer({"seed": -5}, "seed", minimum=-5, maximum=5) == -5
    assert take_integer({"seed": 5}, "seed", minimum=-5, maximum=5) == 5
    for wrong in (-6, 6):
        with pytest.raises(BadRequest, match=rf"^generate_kwargs\.seed must be an integer from -5 to 5, not {wrong}$"):
            take_integer({"seed": wrong}, "seed", minimum=-5, maximum=5)


@pytest.mark.parametrize(
    ("options", "hole", "prompt", "new_tokens"),
    [
        ({}, False, 10, None),
        ({"max_new_tokens": 4}, False, 10, 4),
        ({"max_length": 11}, False, 10, 1),
        ({"max_length": 30}, False, 10, 20),
        # max_new_tokens takes precedence, as in transformers.
        ({"max_new_tokens": 4, "max_length": 5}, False, 10, 4),
        ({"max_length": 10}, True, 10, 1),
        ({"max_length": 5}, True, 10, 1),
        ({"max_length": 12}, True, 10, 2),
    ],
)
def test_new_tokens_follow_from_the_options(
    options: dict[str, Any], hole: bool, prompt: int, new_tokens: int | None
) -> None:
    assert lengths(hole, **options).new_tokens(prompt) == new_tokens


@pytest.mark.parametrize("prompt", [10, 11])
def test_max_length_without_a_token_for_the_completion_is_rejected(prompt: int) -> None:
    with pytest.raises(PromptTooLong) as raised:
        lengths(max_length=10).new_tokens(prompt)
    assert raised.value.message == (
        f"generate_kwargs.max_length is 10 and includes the prompt, which has {prompt} tokens; use max_new_tokens to "
        "bound the answer alone"
    )
    assert raised.value.param == "generate_kwargs.max_length"


@pytest.mark.parametrize(
    ("options", "hole", "depends"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"max_length": 5}, False, True),
        ({"max_length": 5, "max_new_tokens": 1}, False, False),
        ({"max_new_tokens": 1}, False, False),
        ({"max_length": 5, "max_new_tokens": None}, False, True),
    ],
)
def test_prompt_is_counted_only_if_a_length_depends_on_it(options: dict[str, Any], hole: bool, depends: bool) -> None:
    assert lengths(hole, **options).depends_on_prompt is depends


@pytest.mark.parametrize(
    ("options", "prompt", "context", "kept"),
    [
        ({"max_new_tokens": 4}, 15, 10, 6),
        ({"max_new_tokens": 4}, 6, 10, 6),
        ({"max_new_tokens": 4}, 7, 10, 6),
        ({"max_new_tokens": 4}, 3, 10, 3),
        ({"max_new_tokens": 9}, 15, 10, 1),
        ({}, 500, 300, 100),
        ({"max_length": 20}, 15, 18, 13),
    ],
)
def test_hole_keeps_the_end_of_the_prompt(options: dict[str, Any], prompt: int, context: int, kept: int) -> None:
    assert lengths(True, **options).kept_prompt_tokens(prompt, context) == kept
    assert lengths(False, **options).kept_prompt_tokens(prompt, context) == prompt


def test_completion_that_does_not_fit_the_context_is_rejected_by_hole() -> None:
    for new_tokens in (10, 11):
        with pytest.raises(PromptTooLong) as raised:
            lengths(True, max_new_tokens=new_tokens).kept_prompt_tokens(5, 10)
        assert raised.value.message == f"{new_tokens} new tokens do not fit a context of 10 tokens"
        assert raised.value.param == "generate_kwargs"


# Bodies of /chat.


def test_defaults_of_a_chat_request() -> None:
    assert ChatRequest().model_dump() == {
        "prompt": None, "messages": None, "return_full_text": True, "clean_up_tokenization_spaces": False,
        "prefix": None, "handle_long_generation": None, "generate_kwargs": None, "apply_chat_template": None,
    }  # fmt: skip


def test_prompt_has_its_prefix_in_front() -> None:
    assert ChatRequest(prompt="b", prefix="a").require_prompt() == "ab"
    assert ChatRequest(prompt="b").require_prompt() == "b"
    for request in (ChatRequest(), ChatRequest(prompt="", prefix="a")):
        with pytest.raises(BadRequest) as raised:
            request.require_prompt()
        assert raised.value.message == "Text generation parameter prompt required"
        assert raised.value.param == "prompt"


def test_completions_of_a_prompt_are_joined() -> None:
    assert ChatResponse.of_prompt(["a", "b"], head="-").model_dump() == {"Result": "-a-b"}


def test_messages_have_text_fields_only() -> None:
    with pytest.raises(ValidationError):
        ChatMessage.model_validate({"role": "user", "content": 1})
    with pytest.raises(ValidationError):
        ChatMessage.model_validate({"role": "user", "content": "x", "name": "y"})


def test_number_of_keys_is_limited() -> None:
    with pytest.raises(ValidationError, match="65 keys, of which at most 8 are known"):
        ChatRequest.model_validate({f"k{number}": 1 for number in range(65)})
    with pytest.raises(ValidationError, match="k63"):
        ChatRequest.model_validate({f"k{number}": 1 for number in range(64)})


# Errors.


class Body(BaseModel):
    number: int
    text: str = ""


Handler = Callable[[web.Request], Awaitable[web.Response]]


async def respond(handler: Handler, path: str, **request: Any) -> tuple[int, dict[str, str], Any]:
    app = web.Application(middlewares=[errors_as_json], client_max_size=1000)
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        async with ClientSession() as session, session.post(url, **request) as response:
            return response.status, dict(response.headers), await response.json()
    finally:
        await runner.cleanup()


def raising(error: Exception) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (BadRequest("m", param="p"), 400, "invalid_request_error", None),
        (PromptTooLong("m", param="p"), 400, "invalid_request_error", "context_length_exceeded"),
        (UnknownModel("m", param="p"), 404, "invalid_request_error", "model_not_found"),
        (GenerationFailed("m", param="p"), 500, "server_error", "generation_failed"),
        (Unavailable("m", param="p"), 503, "server_error", "unavailable"),
        (RequestError("m", param="p"), 500, "server_error", None),
    ],
)
async def test_error_has_its_status_and_the_shape_of_its_route(
    error: RequestError, status: int, kind: str, code: str | None
) -> None:
    assert (await respond(raising(error), "/chat"))[::2] == (status, {"detail": "m"})
    found = await respond(raising(error), "/v1/x")
    assert found[::2] == (status, {"error": {"message": "m", "type": kind, "param": "p", "code": code}})


async def test_429_and_503_have_retry_after() -> None:
    _, headers, body = await respond(raising(Overloaded("m", retry_after_seconds=7)), "/v1/x")
    assert headers["Retry-After"] == "7"
    assert body["error"]["type"] == "requests"
    _, headers, _ = await respond(raising(Unavailable("m")), "/chat")
    assert headers["Retry-After"] == "5"
    _, headers, _ = await respond(raising(BadRequest("m")), "/chat")
    assert "Retry-After" not in headers


async def test_unexpected_exception_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    status, _, body = await respond(raising(ZeroDivisionError("secret")), "/chat")
    assert (status, body) == (500, {"detail": "internal error; see the log of the server"})
    assert "POST /chat failed" in caplog.text
    assert "secret" in caplog.text


async def test_server_errors_are_logged_and_client_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    await respond(raising(BadRequest("client")), "/chat")
    assert "client" not in caplog.text
    await respond(raising(GenerationFailed("server")), "/chat")
    assert "POST /chat: server" in caplog.text


async def read(request: web.Request) -> web.Response:
    body = await read_body(request, Body)
    return web.json_response(body.model_dump())


async def test_valid_body_is_read() -> None:
    assert (await respond(read, "/chat", data=b'{"number": 3}'))[::2] == (200, {"number": 3, "text": ""})


async def test_validation_errors_have_the_shape_of_the_route() -> None:
    status, _, body = await respond(read, "/chat", json={"number": "x", "text": 1})
    assert status == 422
    assert body["detail"][0] == {
        "type": "int_parsing", "loc": ["body", "number"], "input": "x",
        "msg": "Input should be a valid integer, unable to parse string as an integer",
    }  # fmt: skip
    assert [detail["loc"] for detail in body["detail"]] == [["body", "number"], ["body", "text"]]
    status, _, body = await respond(read, "/v1/x", json={"number": "x", "text": 1})
    assert status == 400
    assert body["error"]["param"] == "number"
    assert body["error"]["message"].startswith("body.number: Input should be a valid integer")
    assert "; body.text: Input should be a valid string" in body["error"]["message"]


async def test_at_most_ten_validation_errors_are_listed() -> None:
    class Many(BaseModel):
        values: list[int]

    async def handler(request: web.Request) -> web.Response:
        await read_body(request, Many)
        return web.Response()

    _, _, body = await respond(handler, "/v1/x", json={"values": ["x"] * 12})
    assert body["error"]["message"].endswith("; and 2 more")
    assert body["error"]["message"].count("; ") == 10
    _, _, body = await respond(handler, "/v1/x", json={"values": ["x"] * 10})
    assert "more" not in body["error"]["message"]
    _, _, body = await respond(handler, "/chat", json={"values": ["x"] * 12})
    assert len(body["detail"]) == 10


async def test_rejected_input_is_shortened() -> None:
    for length, shown in ((198, "x" * 198), (199, '"' + "x" * 199 + "…")):
        _, _, body = await respond(read, "/chat", json={"number": "x" * length})
        assert body["detail"][0]["input"] == shown, length


async def test_body_that_is_not_json_is_rejected() -> None:
    status, _, body = await respond(read, "/chat", data=b"{")
    assert (status, body["detail"][0]["type"], body["detail"][0]["loc"]) == (422, "json_invalid", ["body"])
    status, _, body = await respond(read, "/v1/x", data=b"\xff{")
    assert (status, body["error"]["param"]) == (400, None)


async def test_body_above_the_limit_is_a_413() -> None:
    status, _, body = await respond(read, "/chat", data=b"x" * 2000)
    assert (status, body) == (413, {"detail": "the request body is larger than 1000 bytes"})


async def test_http_errors_of_the_framework_are_json() -> None:
    status, headers, body = await respond(raising(web.HTTPMethodNotAllowed("POST", ["GET"])), "/v1/x")
    assert (status, headers["Allow"]) == (405, "GET")
    assert body["error"]["message"] == "POST /v1/x: Method Not Allowed"
    status, _, body = await respond(raising(web.HTTPBadRequest()), "/chat")
    assert (status, body) == (400, {"detail": "POST /chat: Bad Request"})


# Health, configuration, adapters.


def test_requests_are_served_in_the_state_healthy_only() -> None:
    require_healthy("Healthy")
    with pytest.raises(Unavailable, match=r"^the server is still loading its model$"):
        require_healthy("Loading")
    with pytest.raises(Unavailable, match=r"^the server is shutting down$"):
        require_healthy("Draining")


@pytest.mark.parametrize(
    ("text", "strengths"), [("", {}), (" \n", {}), ("{}", {}), ('{"a": 0, "b": "1"}', {"a": 0, "b": 1})]
)
def test_strengths_are_read_from_the_environment(text: str, strengths: dict[str, float]) -> None:
    assert read_strengths({"KAITO_ADAPTER_STRENGTHS": text}) == strengths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1.001}', "KAITO_ADAPTER_STRENGTHS: the strength of 'a' is 1.001, must be in [0, 1]"),
        ('{"a": -0.001}', "KAITO_ADAPTER_STRENGTHS: the strength of 'a' is -0.001, must be in [0, 1]"),
        ('{"a": NaN}', "KAITO_ADAPTER_STRENGTHS: the strength of 'a' is nan, must be in [0, 1]"),
        ("[]", "KAITO_ADAPTER_STRENGTHS: expected an object, found list"),
    ],
)
def test_wrong_strengths_are_rejected(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_strengths({"KAITO_ADAPTER_STRENGTHS": text})
    assert str(raised.value) == message


def test_configuration_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    with pytest.raises(ConfigurationError, match=rf"^--config {file}: .*No such file"):
        read_config_file(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=rf"^--config {file}: .*utf-8"):
        read_config_file(file)
    file.write_text("vllm: {max-model-len: 5}")
    assert read_config_file(file).vllm == {"max-model-len": 5}


def adapter(directory: Path, config: object = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"r": 4} if config is None else config))
    (directory / "adapter_model.safetensors").write_bytes(b"")
    return directory


def test_adapters_are_sorted_with_their_properties(tmp_path: Path) -> None:
    b, a = adapter(tmp_path / "b", {"r": 8, "base_model_name_or_path": 7}), adapter(tmp_path / "a")
    adapter(tmp_path / ".hidden")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "file").write_text("x")
    assert find_adapters(tmp_path, {"b": 0.5}) == (Adapter("a", a, 1.0, 4, None), Adapter("b", b, 0.5, 8, None))


@pytest.mark.parametrize("config", [[], {}, {"r": "8"}, {"r": 1.5}])
def test_configuration_without_a_rank_is_no_adapter(tmp_path: Path, config: object) -> None:
    adapter(tmp_path / "a", config)
    with pytest.raises(AdapterError) as raised:
        find_adapters(tmp_path, {})
    assert str(raised.value) == "adapter 'a': adapter_config.json is not a LoRA configuration (no integer 'r')"


def test_first_missing_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as raised:
        find_adapters(tmp_path, {"z": 1.0, "y": 1.0})
    assert str(raised.value) == f"adapter 'y': has a strength, but {tmp_path / 'y'} does not exist"
    assert raised.value.name == "y"


# Values in messages.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), ("a", "'a'"), (True, "True"), (None, "None"), ([1, "a"], "[1, 'a']"), ([], "[]"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7]"),
        ("x" * 78, "'" + "x" * 78 + "'"), ("x" * 79, "'" + "x" * 76 + "..."),
        (10**40 - 1, "9" * 40), (10**40, "a number of about 40 digits"), (-(10**40), "a number of about 40 digits"),
        ({"a": 10**5000}, "a value of type dict"), ([10**5000], "[a number of about 5000 digits]"),
        (math.inf, "inf"),
    ],
)  # fmt: skip
def test_value_is_abbreviated_to_80_characters(value: object, text: str) -> None:
    assert abbreviate(value) == text
    assert len(text) <= 80
