"""The chat templates of the images, rendered as transformers renders them."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "images" / "chat_templates"
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
]


def render(name: str, messages: list[dict[str, Any]], **given: Any) -> str:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    sandbox: Any = pytest.importorskip("jinja2.sandbox")
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    template = environment.from_string((FOLDER / f"{name}.jinja").read_text())
    words = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True} | given
    return str(template.render(messages=messages, **words)).rstrip("\n")


PHI_3 = """<|system|>
Be brief.<|end|>
<|user|>
Hi<|end|>
<|assistant|>
Yes?<|end|>
<|user|>
Bye<|end|>
<|assistant|>"""
MISTRAL = "<s>[INST] Be brief.\n\nHi [/INST] Yes?</s>[INST] Bye [/INST]"
LLAMA_3 = """<s><|start_header_id|>system<|end_header_id|>

Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>

Yes?<|eot_id|><|start_header_id|>user<|end_header_id|>

Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>"""


@pytest.mark.parametrize(
    ("name", "text"), [("phi-3", PHI_3), ("mistral-instruct", MISTRAL), ("llama-3-instruct", LLAMA_3)]
)
def test_template_renders_the_format_of_its_model(name: str, text: str) -> None:
    assert render(name, TURNS) == text


def test_mistral_template_rejects_roles_that_do_not_alternate() -> None:
    with pytest.raises(ValueError, match="must alternate"):
        render("mistral-instruct", [TURNS[1], TURNS[1]])


TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Températures < 0",
    "parameters": {"type": "object", "properties": {}},
}
CALLING: list[dict[str, Any]] = [
    {"role": "user", "content": "Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
]


def test_phi_4_mini_without_tools_is_the_template_of_the_model() -> None:
    expected = "<|system|>Be brief.<|end|><|user|> Hi <|end|><|assistant|>Yes?<|end|><|user|>Bye<|end|><|assistant|>"
    assert render("phi-4-mini", TURNS) == expected


def test_phi_4_mini_offers_tools_in_the_system_message() -> None:
    """The model card: a list of functions between the tokens, at the end of the system message."""
    offered = f"<|tool|>[{json.dumps(TOOL, ensure_ascii=False)}]<|/tool|><|end|>"
    tools = [{"type": "function", "function": TOOL}]
    assert render("phi-4-mini", TURNS, tools=tools).startswith(f"<|system|>Be brief.{offered}<|user|> Hi <|end|>")
    without = render("phi-4-mini", TURNS[1:], tools=tools)
    assert without.startswith(f"<|system|>You are a helpful assistant with some tools.{offered}<|user|> Hi <|end|>")
    assert render("phi-4-mini", TURNS[1:], tools=[TOOL]) == without


def test_phi_4_mini_renders_calls_as_the_model_writes_them_and_their_results() -> None:
    assert render("phi-4-mini", CALLING) == (
        '<|user|>Rome?<|end|><|assistant|><|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]'
        "<|/tool_call|><|end|><|tool_response|>sunny<|end|><|assistant|>"
    )


def test_the_calls_of_the_phi_4_mini_template_are_read_by_its_format() -> None:
    tools = pytest.importorskip("kaito_presets.inference.tool_calls")
    text = render("phi-4-mini", CALLING[:2], add_generation_prompt=False).partition("<|assistant|>")[2]
    template = (FOLDER / "phi-4-mini.jinja").read_text()
    assert tools.detect_format(template) == "phi4_mini_json"
    _, (call,) = tools.parse_calls(tools.FormatParser("phi4_mini_json"), text.partition("<|end|>")[0])
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
