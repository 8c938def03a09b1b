"""`POST /chat`: every field, every refusal."""

import io
import json
from dataclasses import replace

import pytest
from fake_model import FakeModel
from running_server import Serve


async def test_result_contains_prompt_and_completion_by_default(serve: Serve) -> None:
    server = await serve()
    assert await server.post("/chat", {"prompt": "abc"}) == (200, {"Result": "abcABC"})


async def test_content_type_of_the_request_does_not_matter(serve: Serve) -> None:
    server = await serve()
    async with server.session.post(server.url + "/chat", data=b'{"prompt": "abc"}') as response:
        assert (response.status, await response.json()) == (200, {"Result": "abcABC"})


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"return_full_text": False}, "ABC"),
        ({"prefix": "x", "return_full_text": False}, "XABC"),
        ({"prefix": "x"}, "xabcXABC"),
        ({"generate_kwargs": {"max_new_tokens": 2}, "return_full_text": False}, "AB"),
        ({"generate_kwargs": {"max_length": 5}, "return_full_text": False}, "AB"),
        ({"generate_kwargs": None}, "abcABC"),
        ({"messages": None}, "abcABC"),
        ({"generate_kwargs": {"num_beams": 4}, "return_full_text": False}, "ABCA"),
    ],
)
async def test_fields_are_honored(serve: Serve, body: dict[str, object], result: str) -> None:
    server = await serve()
    assert await server.post("/chat", {"prompt": "abc"} | body) == (200, {"Result": result})


async def test_spaces_are_cleaned_up_if_requested(serve: Serve) -> None:
    server = await serve()
    body = {"prompt": "a , b", "return_full_text": False}
    assert await server.post("/chat", body) == (200, {"Result": "A , B"})
    assert await server.post("/chat", body | {"clean_up_tokenization_spaces": True}) == (200, {"Result": "A, B"})


async def test_result_of_a_conversation_is_the_new_message(serve: Serve) -> None:
    messages = [{"role": "user", "content": "hello"}]
    for conversational in (False, True):
        server = await serve(conversational=conversational)
        assert await server.post("/chat", {"messages": messages}) == (200, {"Result": "HELLO"})


async def test_completion_has_200_new_tokens_by_default(serve: Serve) -> None:
    server = await serve(FakeModel(reply=lambda _: "y" * 900, context=1000))
    _, body = await server.post("/chat", {"prompt": "x" * 300, "return_full_text": False})
    assert body == {"Result": "y" * 200}


async def test_default_length_is_reduced_to_the_remaining_context(serve: Serve) -> None:
    server = await serve(FakeModel(reply=lambda _: "y" * 900, context=1000))
    _, body = await server.post("/chat", {"prompt": "x" * 950, "return_full_text": False})
    assert body == {"Result": "y" * 50}


async def test_hole_truncates_a_prompt_on_the_left(serve: Serve) -> None:
    server = await serve(FakeModel(context=10))
    body = {
        "prompt": "abcdefghijklmno",
        "handle_long_generation": "hole",
        "return_full_text": False,
        "generate_kwargs": {"max_new_tokens": 4},
    }
    assert await server.post("/chat", body) == (200, {"Result": "JKLM"})
    _, full = await server.post("/chat", body | {"return_full_text": True})
    assert full == {"Result": "jklmnoJKLM"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "prompt required"),
        ({"prompt": ""}, 400, "prompt required"),
        ({"prompt": "x" * 1001}, 400, "context is 1000 tokens; the prompt has 1001"),
        ({"prompt": "abc", "generate_kwargs": {"max_new_tokens": 998}}, 400, "998 new tokens"),
        ({"prompt": "abc", "generate_kwargs": {"max_length": 3}}, 400, "use max_new_tokens"),
        ({"prompt": "abc", "generate_kwargs": {"max_new_tokens": -1}}, 400, "max_new_tokens must be a positive"),
        ({"prompt": "abc", "generate_kwargs": {"max_new_tokens": "many"}}, 400, "max_new_tokens must be a positive"),
        ({"prompt": "abc", "generate_kwargs": {"nonsense": 1}}, 400, "nonsense"),
        ({"messages": [{"role": "pope", "content": "x"}]}, 400, "roles must be"),
    ],
)
async def test_bad_request_is_rejected_with_the_reason(
    serve: Serve, body: dict[str, object], status: int, words: str
) -> None:
    server = await serve()
    code, answer = await server.post("/chat", body)
    assert code == status
    assert words in str(answer["detail"])


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"no json", ["body"]),
        (b'{"prompt": 7}', ["body", "prompt"]),
        (b'{"prompt": "x", "generate_kwargs": 3}', ["body", "generate_kwargs"]),
        (b'{"prompt": "x", "handle_long_generation": "crop"}', ["body", "handle_long_generation"]),
        (b'{"messages": [{"role": "user"}]}', ["body", "messages", 0, "content"]),
        (b'{"promt": "x"}', ["body", "promt"]),
    ],
)
async def test_wrong_types_are_422_in_fastapis_shape(serve: Serve, body: bytes, location: list[object]) -> None:
    server = await serve()
    async with server.session.post(server.url + "/chat", data=body) as response:
        assert response.status == 422
        document = json.loads(await response.text())
    assert document["detail"][0]["loc"] == location
    assert set(document["detail"][0]) == {"type", "loc", "msg", "input"}


async def test_conversational_mode_needs_messages(serve: Serve) -> None:
    server = await serve(conversational=True)
    assert await server.post("/chat", {}) == (400, {"detail": "Conversational parameter messages required"})


async def test_body_above_the_limit_is_a_413_and_the_server_continues(serve: Serve) -> None:
    server = await serve(max_request_bytes=50_000)
    body = io.BytesIO(json.dumps({"prompt": "x" * 10_000_000}).encode())
    async with server.session.post(server.url + "/chat", data=body) as response:
        assert response.status == 413
        assert "50000 bytes" in (await response.json())["detail"]
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_wrong_method_and_unknown_path_are_json_errors(serve: Serve) -> None:
    server = await serve()
    assert (await server.get("/chat"))[0] == 405
    assert (await server.get("/nowhere"))[0] == 404


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"prompt": "hi"}, "hi\nHI"),
        ({"prompt": "hi", "return_full_text": False}, "HI"),
        ({"prompt": "hi", "prefix": "oh "}, "oh hi\nOH HI"),
        ({"prompt": "hi", "apply_chat_template": True}, "hi\nHI"),
        ({"prompt": "hi", "apply_chat_template": False}, "hiHI"),
        ({"prompt": "<|user|>hi<|end|>"}, "<|user|>hi<|end|><|USER|>HI<|END|>"),
        ({"prompt": "[INST] hi [/INST]"}, "[INST] hi [/INST][INST] HI [/INST]"),
        ({"prompt": "<start_of_turn>user"}, "<start_of_turn>user<START_OF_TURN>USER"),
        ({"prompt": "a <b> c | d"}, "a <b> c | d\nA <B> C | D"),
    ],
)
async def test_a_bare_prompt_is_a_message_if_the_model_has_a_chat_template(
    serve: Serve, body: dict[str, object], result: str
) -> None:
    model = FakeModel()
    model.info = replace(model.info, has_chat_template=True)
    server = await serve(model)
    assert await server.post("/chat", body) == (200, {"Result": result})
    assert len(model.conversations) == ("\n" in result or result == "HI")


async def test_a_template_that_the_model_does_not_have_is_an_error(serve: Serve) -> None:
    server = await serve()
    status, body = await server.post("/chat", {"prompt": "hi", "apply_chat_template": True})
    assert (status, "no chat template" in body["detail"]) == (400, True)
