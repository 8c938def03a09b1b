"""Calls of tools: request fields, the formats of model families, streams, and forced calls."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_model import FakeModel
from kaito_presets.inference.language_model import Message, ModelInfo
from kaito_presets.inference.openai_schema import ChatCompletionRequest
from kaito_presets.inference.tool_calls import (
    FORMATS,
    ForcedCallParser,
    FormatParser,
    ToolCall,
    detect_format,
    parse_calls,
)
from kaito_presets.inference.tool_prompts import with_tools
from openai import AsyncOpenAI
from real_model import open_tiny
from running_server import RunningServer, Serve

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}

PARIS = '{"name": "get_weather", "arguments": {"city": "Paris \\"}\\" {"}}'
ROME = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
FOUND = [("get_weather", {"city": 'Paris "}" {'}), ("get_weather", {"city": "Rome"})]

CASES: list[tuple[str, str, str, list[tuple[str, Any]]]] = [
    ("hermes", "plain <text", "plain <text", []),
    ("hermes", f"<tool_call>\n{PARIS}\n</tool_call>\n<tool_call>\n{ROME}\n</tool_call>", "", FOUND),
    ("hermes", f"Let me see.\n<tool_call>{PARIS}</tool_call>", "Let me see.\n", FOUND[:1]),
    ("hermes", "<tool_call>\n{'name': 1}\n</tool_call>", "\n{'name': 1}\n", []),
    ("hermes", '<tool_call>\n{"name": "get_wea', '\n{"name": "get_wea', []),
    ("hermes", f'<tool_call>{{"x": 1}}</tool_call>\n<tool_call>{ROME}</tool_call>', "", FOUND[1:]),
    ("llama3_json", f'{{"x": 1}} {ROME}', "", FOUND[1:]),
    ("hermes", '{"name": "x", "arguments": {}}', '{"name": "x", "arguments": {}}', []),
    ("llama3_json", f" {ROME}; {PARIS}", "", [FOUND[1], FOUND[0]]),
    ("llama3_json", f"<|python_tag|>{ROME}", "", FOUND[1:]),
    ("llama3_json", "The answer is {4}.", "The answer is {4}.", []),
    ("llama3_json", '{"answer": 4}', '{"answer": 4}', []),
    ("mistral", f"[TOOL_CALLS] [{PARIS}, {ROME}]", "", FOUND),
    ("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}[TOOL_CALLS]clock{}', "", [FOUND[1], ("clock", {})]),
    ("mistral", "[1] is a reference", "[1] is a reference", []),
    ("phi4_mini_json", f"functools[{ROME}]", "", FOUND[1:]),
    ("phi4_mini_json", f"<|tool_call|>[{PARIS}, {ROME}]<|/tool_call|>", "", FOUND),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>3</parameter></function>",
        "",
        [("get_weather", {"city": "Rome", "days": 3})],
    ),
    ("qwen3_coder", "<function=clock>\n</function>", "", [("clock", {})]),
]


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(("name", "text", "content", "calls"), CASES)
def test_calls_are_found_in_every_partition_of_the_text(
    name: str, text: str, content: str, calls: list[tuple[str, Any]], size: int
) -> None:
    parser = FormatParser(name)
    found_text = ""
    found: list[ToolCall] = []
    for start in range(0, len(text), size):
        piece, more = parser.push(text[start : start + size])
        found_text += piece
        found += more
    piece, more = parser.finish()
    assert (found_text + piece).strip(" \t\r\n") == content.strip(" \t\r\n")
    assert [(call.name, json.loads(call.arguments)) for call in [*found, *more]] == calls
    assert len({call.identity for call in found}) == len(found)


def test_forced_calls_are_read_from_json() -> None:
    text = '[{"name": "clock", "parameters": {}}, {"name": "get_weather", "parameters": {"city": "Rome"}}]'
    assert [call.name for call in parse_calls(ForcedCallParser(None), text)[1]] == ["clock", "get_weather"]
    [call] = parse_calls(ForcedCallParser("clock"), '{"a": 1')[1]
    assert (call.name, call.arguments) == ("clock", '{"a": 1')


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{% for t in tools %}<tool_call>{% endfor %}", "hermes"),
        ("<tool_call>\n<function=x>\n<parameter=y>", "qwen3_coder"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ('<|start_header_id|> {"name": x, "parameters": y}', "llama3_json"),
        ("<|tool|>", "phi4_mini_json"),
        ("{{ messages }}", None),
    ],
)
def test_format_is_recognized_by_the_template(template: str, name: str | None) -> None:
    assert detect_format(template) == name
    assert name is None or name in FORMATS


@pytest.mark.model
@pytest.mark.parametrize(
    ("template", "flag", "facts"),
    [
        (None, "auto", (False, None, False, False)),
        ("{{ messages }}", "auto", (True, "hermes", False, False)),
        ("{{ messages }}", "none", (True, None, False, False)),
        ("{% if tools %}<tool_call>{% endif %}{{ m.tool_calls }}", "auto", (True, "hermes", True, True)),
        ("{% if tools %}odd{% endif %}", "auto", (True, None, True, False)),
        ("{% if tools %}odd{% endif %}", "mistral", (True, "mistral", True, False)),
        ("<|tool|>{{ message['tools'] }}", "auto", (True, "phi4_mini_json", False, False)),
        ("{% generation %}{{ tools }}{% endgeneration %}[TOOL_CALLS]", "auto", (True, "mistral", True, False)),
        ({"default": "{{ messages }}", "tool_use": "{{ tools }}<tool_call>"}, "auto", (True, "hermes", True, False)),
    ],
)
def test_facts_about_a_template(template: Any, flag: str, facts: tuple[Any, ...]) -> None:
    from kaito_presets.inference.backend.chat_template import template_facts

    found = template_facts(SimpleNamespace(chat_template=template), flag)
    assert tuple(found.values()) == facts


def call_of(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    USER,
    {"role": "assistant", "content": None, "tool_calls": [call_of('{"city": "Rome"}')]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]


def messages_of(body: dict[str, Any]) -> list[Message]:
    request = ChatCompletionRequest.model_validate(body)
    return [Message(message.role, message.text, message.extra) for message in request.messages]


def test_template_without_tools_gets_a_system_message_and_text() -> None:
    info = ModelInfo("m", 100, 0, tool_format="hermes")
    messages, tools = with_tools(messages_of({"messages": HISTORY}), [WEATHER], info)
    assert list(tools) == []
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0].content.startswith("Be brief.\n\n# Tools")
    assert '"name": "get_weather"' in messages[0].content
    assert messages[2].content == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    )  # fmt: skip
    assert messages[3].content == "<tool_response>\nsunny\n</tool_response>"
    assert with_tools(messages_of({"messages": [USER]}), [WEATHER], info)[0][0].role == "system"


def test_template_with_tools_gets_them_as_they_are() -> None:
    info = ModelInfo("m", 100, 0, tool_format="hermes", renders_tools=True, renders_tool_calls=True)
    given = messages_of({"messages": HISTORY})
    assert with_tools(given, [WEATHER], info) == (given, [WEATHER])


def test_phi_4_mini_gets_tools_in_a_field_of_the_system_message() -> None:
    info = ModelInfo("m", 100, 0, tool_format="phi4_mini_json")
    messages, tools = with_tools(messages_of({"messages": [USER]}), [WEATHER], info)
    assert (messages[0].role, json.loads(messages[0].extra["tools"]), list(tools)) == ("system", [WEATHER], [])


def client(server: RunningServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)


async def test_the_openai_client_reads_calls(serve: Serve) -> None:
    model = FakeModel(reply=lambda _: f"Wait. <tool_call>{ROME}</tool_call><tool_call>{PARIS}</tool_call>")
    server = await serve(model)
    async with client(server) as api:
        answer = await api.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "x"}], tools=[WEATHER, CLOCK]  # type: ignore[list-item]
        )  # fmt: skip
    [choice] = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Wait. ")
    assert choice.message.tool_calls is not None
    functions = [getattr(call, "function") for call in choice.message.tool_calls]  # noqa: B009 - a union of kinds
    assert [(one.name, json.loads(one.arguments)) for one in functions] == [FOUND[1], FOUND[0]]
    (_, template) = model.conversations[-1]
    assert [dict(tool) for tool in template.tools] == [WEATHER, CLOCK]


async def test_calls_are_streamed_as_deltas(serve: Serve) -> None:
    server = await serve(
        FakeModel(reply=lambda _: f"Wait. <tool_call>{ROME}</tool_call><tool_call>{PARIS}</tool_call>")
    )
    async with client(server) as api, api.chat.completions.stream(
        model="fake", messages=[{"role": "user", "content": "x"}], tools=[WEATHER]  # type: ignore[list-item]
    ) as stream:  # fmt: skip
        final = await stream.get_final_completion()
    [choice] = final.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Wait. ")
    assert choice.message.tool_calls is not None
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [FOUND[1][1], FOUND[0][1]]
    assert [call.function.name for call in choice.message.tool_calls] == ["get_weather"] * 2


async def test_answer_without_a_call_is_content(serve: Serve) -> None:
    server = await serve(FakeModel(reply=lambda _: "Hello <tool"))
    status, answer = await server.post(CHAT, {"messages": [USER], "tools": [WEATHER]})
    assert status == 200
    message = answer["choices"][0]["message"]
    assert (message["content"], message["tool_calls"]) == ("Hello <tool", [])
    assert answer["choices"][0]["finish_reason"] == "stop"
    async with server.session.post(
        server.url + CHAT, json={"messages": [USER], "tools": [WEATHER], "stream": True}
    ) as response:
        events = [json.loads(line[6:]) for line in (await response.text()).split("\n\n") if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Hello <tool"


async def test_unknown_format_is_refused_with_the_flag(serve: Serve) -> None:
    server = await serve(FakeModel(tool_format=None, reply=lambda _: '[{"name": "clock", "parameters": {}}]'))
    status, answer = await server.post(CHAT, {"messages": [USER], "tools": [CLOCK]})
    assert (status, answer["error"]["param"]) == (400, "tools")
    assert "--tool_call_parser" in answer["error"]["message"]
    status, answer = await server.post(CHAT, {"messages": [USER], "tools": [CLOCK], "tool_choice": "required"})
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_definitions_of_parameters_move_to_the_root_of_the_grammar() -> None:
    def tool(name: str, definition: dict[str, Any]) -> dict[str, Any]:
        parameters = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": definition}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    body = {
        "messages": [USER],
        "tool_choice": "required",
        "tools": [tool("f", {"type": "null"}), tool("g", {"type": "null"})],
    }
    grammar = ChatCompletionRequest.model_validate(body).grammar
    assert grammar is not None
    schema = json.loads(grammar.source)
    assert schema["$defs"] == {"A": {"type": "null"}}
    assert [call["properties"]["name"] for call in schema["items"]["anyOf"]] == [{"const": "f"}, {"const": "g"}]
    with pytest.raises(ValueError, match="different meanings"):
        ChatCompletionRequest.model_validate(body | {"tools": [tool("f", {"type": "null"}), tool("g", {})]})


@pytest.mark.model
async def test_forced_calls_of_a_model_that_writes_noise_are_valid(tiny_model: Path, serve: Serve) -> None:
    """The tiny model has random weights: only the grammar makes its calls valid."""
    server = await serve(open_tiny(tiny_model))
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, reason in (("required", "tool_calls"), (named, "stop")):
        for stream in (False, True):
            body = {"messages": [USER], "tools": [WEATHER], "tool_choice": choice, "temperature": 1, "seed": 1}
            body |= {"max_tokens": 200, "parallel_tool_calls": False, "stream": stream}
            async with server.session.post(server.url + CHAT, json=body) as response:
                raw = await response.text()
            assert response.status == 200, raw
            events = [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")] or [
                json.loads(raw)
            ]
            choices = [event["choices"][0] for event in events]
            parts: list[dict[str, Any]] = [one.get("delta") or one.get("message") or {} for one in choices]
            calls: list[dict[str, Any]] = []
            for part in parts:
                calls += part.get("tool_calls") or []
            [call] = calls
            assert call["function"]["name"] == "get_weather"
            assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
            assert choices[-1]["finish_reason"] == reason
