"""The chat templates of the images, rendered as transformers renders them."""

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "images" / "chat_templates"
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
]


def render(name: str, messages: list[dict[str, str]]) -> str:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    sandbox: Any = pytest.importorskip("jinja2.sandbox")
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string((FOLDER / f"{name}.jinja").read_text())
    words = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
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
