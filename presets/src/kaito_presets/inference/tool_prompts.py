"""Prepares conversations with tools for the model's chat template.

Used by `chat_completions`. A template that knows tools gets them as they are. For another one, the tools become a
system message and earlier calls and results become text, in the format hermes, which many models without tools in
their template follow to some degree.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from kaito_presets.inference.language_model import Message, ModelInfo
from kaito_presets.inference.tool_calls import history_text

FALLBACK_FORMAT: Final = "hermes"

_INSTRUCTIONS: Final = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def with_tools(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], info: ModelInfo
) -> tuple[list[Message], Sequence[dict[str, Any]]]:
    """Returns messages and tools for the chat template."""
    if not info.renders_tool_calls:
        messages = [_as_text(message) for message in messages]
    if not tools or info.renders_tools:
        return list(messages), tools
    if info.tool_format == "phi4_mini_json":
        # Its template reads the tools from a field of the system message.
        return _with_system(messages, "", {"tools": json.dumps(list(tools))}), ()
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return _with_system(messages, _INSTRUCTIONS.format(tools=listed), {}), ()


def _with_system(messages: Sequence[Message], text: str, extra: dict[str, Any]) -> list[Message]:
    """Appends to the system message, or adds one."""
    if messages and messages[0].role == "system":
        first, rest = messages[0], messages[1:]
    else:
        first, rest = Message("system", ""), messages
    content = "\n\n".join(part for part in (first.content, text) if part)
    return [replace(first, content=content, extra={**first.extra, **extra}), *rest]


def _as_text(message: Message) -> Message:
    """Writes calls and results of tools as text."""
    if calls := message.extra.get("tool_calls"):
        content = "\n".join(part for part in (message.content, history_text(calls)) if part)
        extra = {name: value for name, value in message.extra.items() if name != "tool_calls"}
        return replace(message, content=content, extra=extra)
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    return message
