"""Finds out what the model's chat template renders.

Used by `model`.
"""
# transformers and jinja2 are partly untyped here; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import re
from typing import Any, TypedDict

import jinja2
import jinja2.meta

from kaito_presets.inference.tool_calls import detect_format
from kaito_presets.inference.tool_prompts import FALLBACK_FORMAT


class TemplateFacts(TypedDict):
    """Fields of `ModelInfo` that depend on the chat template."""

    has_chat_template: bool
    tool_format: str | None
    renders_tools: bool
    renders_tool_calls: bool


def template_facts(tokenizer: Any, tool_call_parser: str) -> TemplateFacts:
    """Inspects the template that conversations with tools use.

    Args:
        tokenizer: the tokenizer with the template.
        tool_call_parser: the format of the model's calls, "auto", or "none".
    """
    if not tokenizer.chat_template:
        return TemplateFacts(
            has_chat_template=False, tool_format=None, renders_tools=False, renders_tool_calls=False
        )  # fmt: skip
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default") or ""
    renders = _reads_variable(template, "tools")
    if tool_call_parser == "auto":
        tool_format = detect_format(template) or (None if renders else FALLBACK_FORMAT)
    else:
        tool_format = None if tool_call_parser == "none" else tool_call_parser
    return TemplateFacts(
        has_chat_template=True,
        tool_format=tool_format,
        renders_tools=renders,
        renders_tool_calls="tool_calls" in template,
    )


def _reads_variable(template: str, name: str) -> bool:
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701 - not rendered
    except jinja2.TemplateError:  # an extension of transformers, or an error that rendering reports
        return re.search(rf"(?<![.\[\"'\w]){name}\b", template) is not None
    return name in jinja2.meta.find_undeclared_variables(tree)
