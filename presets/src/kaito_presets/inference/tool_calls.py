"""Finds the calls of tools in the text of a completion, whole or as a stream.

Used by `chat_completions`. A format is what a family of models was trained to write; the names are those of vLLM's
`--tool-call-parser`. A call is reported when it is complete. Text before the mark of the first call is content, and so
is text after it if no call follows; text between a mark and its call is dropped.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

from kaito_presets.inference.partial_match import overlap
from kaito_presets.json_values import is_list, is_object


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family of models writes calls."""

    marks: tuple[str, ...]
    """Texts that precede calls."""
    end: str = ""
    """Text after a call, which is not content."""
    special: bool = False
    """Whether the marks are special tokens."""
    bare: bool = False
    """Whether a completion that starts with `{` is a call."""


FORMATS: Final[Mapping[str, ToolFormat]] = {
    "hermes": ToolFormat(("<tool_call>",), end="</tool_call>"),
    "llama3_json": ToolFormat(("<|python_tag|>",), special=True, bare=True),
    "mistral": ToolFormat(("[TOOL_CALLS]",), special=True),
    "phi4_mini_json": ToolFormat(("functools", "<|tool_call|>"), end="<|/tool_call|>", special=True),
    "qwen3_coder": ToolFormat(("<tool_call>", "<function="), end="</tool_call>"),
}

_MISTRAL_NAME: Final = re.compile(r"([A-Za-z0-9_.-]{1,64})\s*(?:\[CALL_ID\][A-Za-z0-9]*)?(?:\[ARGS\])?\s*$")
_XML_FUNCTION: Final = re.compile(r"<function=([^>\s]{1,64})>(.*?)</function>", re.DOTALL)
_XML_PARAMETER: Final = re.compile(r"<parameter=([^>\s]{1,64})>\n?(.*?)\n?</parameter>", re.DOTALL)


def detect_format(template: str) -> str | None:
    """Returns the name of the format that a chat template requests; None if it is not known."""
    signs = (
        ("qwen3_coder", ("<function=", "<parameter=")),
        ("hermes", ("<tool_call>",)),
        ("mistral", ("[TOOL_CALLS]",)),
        ("llama3_json", ("<|python_tag|>",)),
        ("llama3_json", ("<|start_header_id|>", '"parameters"')),
        ("phi4_mini_json", ("<|tool|>",)),
        ("phi4_mini_json", ("functools",)),
    )
    return next((name for name, texts in signs if all(text in template for text in texts)), None)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function."""

    name: str
    arguments: str
    """JSON."""
    identity: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


class ToolParser(Protocol):
    """Splits a growing text into content and calls."""

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Appends text; returns the content and the calls that it completes."""
        ...

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Returns the rest, when no more text follows."""
        ...


@final
class FormatParser:
    """Finds calls in the format of the model."""

    def __init__(self, name: str) -> None:
        self._format = FORMATS[name]
        self._next_call = {"mistral": _mistral_call, "qwen3_coder": _xml_call}.get(name, _json_call)
        self._text = ""
        self._started = False
        self._in_calls = False
        self._scanner = _ObjectScanner()

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """See `ToolParser.push`."""
        self._text += text
        content = "" if self._in_calls else self._take_content()
        return content, self._take_calls() if self._in_calls else []

    def finish(self) -> tuple[str, list[ToolCall]]:
        """See `ToolParser.finish`."""
        rest, self._text = self._text, ""
        if self._in_calls:
            rest = rest.replace(self._format.end, "") if self._format.end else rest
            rest = "" if not rest.strip(" \t\r\n[],;") else rest
        return rest, []

    def _take_content(self) -> str:
        """Takes the text before the first mark, or all that cannot be the start of one."""
        if self._format.bare and not self._started:
            beginning = self._text.lstrip()
            if not beginning:
                return ""
            self._started = True
            if beginning.startswith("{"):
                self._text, self._in_calls = beginning, True
                return ""
        found = min(((self._text.find(mark), mark) for mark in self._format.marks if mark in self._text), default=None)
        if found is None:
            held = max(overlap(self._text, mark) for mark in self._format.marks)
            content, self._text = self._text[: len(self._text) - held], self._text[len(self._text) - held :]
            return content
        position, mark = found
        content = self._text[:position]
        # "<function=" is part of the call.
        self._text = self._text[position if mark.endswith("=") else position + len(mark) :]
        self._in_calls = True
        return content if content.strip() else ""

    def _take_calls(self) -> list[ToolCall]:
        calls: list[ToolCall] = []
        while (found := self._next_call(self._text, self._scanner)) is not None:
            call, end = found
            self._scanner = _ObjectScanner()
            self._text = self._text[end:]
            calls.append(call)
        return calls


@final
class ForcedCallParser:
    """Reads a completion that follows the grammar of `tools.forced_grammar`."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        """The named function, None for a list of calls."""
        self._text = ""
        self._scanner = _ObjectScanner()

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """See `ToolParser.push`."""
        self._text += text
        calls: list[ToolCall] = []
        if self._name is None:
            while (found := _json_call(self._text, self._scanner)) is not None:
                call, end = found
                self._scanner = _ObjectScanner()
                self._text = self._text[end:]
                calls.append(call)
        return "", calls

    def finish(self) -> tuple[str, list[ToolCall]]:
        """See `ToolParser.finish`; incomplete arguments of a named function are reported as they are, as in OpenAI's
        API."""
        if self._name is None:
            return "", []
        return "", [ToolCall(self._name, self._text.strip())]


@final
class _ObjectScanner:
    """Finds the end of the first JSON object in a growing text; each character is read once."""

    def __init__(self) -> None:
        self.start: int | None = None
        self._position = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def end_in(self, text: str) -> int | None:
        """Returns the position after the object, None if it is incomplete."""
        while self._position < len(text):
            character = text[self._position]
            self._position += 1
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"' and self._depth:
                self._in_string = True
            elif character == "{":
                if not self._depth:
                    self.start = self._position - 1
                self._depth += 1
            elif character == "}" and self._depth:
                self._depth -= 1
                if not self._depth:
                    return self._position
        return None


def _json_call(text: str, scanner: _ObjectScanner) -> tuple[ToolCall, int] | None:
    """Reads `{"name": ..., "arguments": {...}}`, with anything before it, also objects that are not calls."""
    while (end := scanner.end_in(text)) is not None:
        value = _parsed(text[scanner.start : end])
        if value is not None and isinstance(name := value.get("name"), str):
            arguments = value.get("arguments", value.get("parameters", {}))
            return ToolCall(name, arguments if isinstance(arguments, str) else _json(arguments)), end
    return None


def _mistral_call(text: str, scanner: _ObjectScanner) -> tuple[ToolCall, int] | None:
    """Reads `[{"name": ..., "arguments": ...}]`, or `name[ARGS]{...}` of newer models."""
    end = scanner.end_in(text)
    if end is None or scanner.start is None:
        return None
    named = _MISTRAL_NAME.search(text[: scanner.start])
    if named is None:
        return _json_call(text, _ObjectScanner())
    value = _parsed(text[scanner.start : end])
    return None if value is None else (ToolCall(named.group(1), _json(value)), end)


def _xml_call(text: str, _: _ObjectScanner) -> tuple[ToolCall, int] | None:
    """Reads `<function=name><parameter=key>value</parameter></function>`; a value is JSON or text."""
    found = _XML_FUNCTION.search(text) if "</function>" in text else None
    if found is None:
        return None
    arguments = {name: _value(value) for name, value in _XML_PARAMETER.findall(found.group(2))}
    return ToolCall(found.group(1), _json(arguments)), found.end()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if is_object(value) else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def parse_calls(parser: ToolParser, text: str) -> tuple[str, list[ToolCall]]:
    """Splits a whole text into content and calls."""
    content, calls = parser.push(text)
    rest, more = parser.finish()
    return content + rest, [*calls, *more]


def calls_document(calls: Sequence[ToolCall], first: int | None = None) -> list[dict[str, Any]]:
    """Builds `tool_calls` of a message, or of a delta if `first`, the index of the first call, is given."""
    return [
        ({} if first is None else {"index": first + offset})
        | {
            "id": call.identity,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for offset, call in enumerate(calls)
    ]


def history_text(calls: object) -> str:
    """Writes the calls of an earlier message in the format hermes, for a template that does not render them."""
    functions = [call["function"] for call in calls if is_object(call)] if is_list(calls) else []
    return "\n".join(
        f"<tool_call>\n{_json({'name': one['name'], 'arguments': one.get('arguments') or {}})}\n</tool_call>"
        for one in functions
    )
