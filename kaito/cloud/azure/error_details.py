"""Extracts all codes and messages from an ARM error.

Recordings of azure-cli, logs and issues of AKS, and Karpenter's provider for Azure show flat and nested bodies;
`details` as objects, as one object or as text; `innererror`; JSON inside a message, whole, escaped or cut off; and the
Go SDK's text `Code="X" Message="Y" Details=[...]` inside the message of a failed agent pool.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

DEPTH_LIMIT = 8
"""Deeper levels of a body are ignored: recorded bodies have up to five."""

TEXT_LIMIT = 64 * 1024
"""Characters of a message that are searched for codes."""

DOCUMENTS_PER_TEXT = 16
"""Positions in one text at which parsing JSON is attempted."""

_NESTED_KEYS = ("error", "innererror", "innerError", "inner_error", "details", "additionalInfo", "info")
_QUOTED = re.compile(r'Code=\\?"(?P<code>[^"\\]+)\\?"(?:\s+Message=\\?"(?P<message>[^"\\]*))?', re.IGNORECASE)
_LABELED = re.compile(r"\b(?:Error)?Code\s*[:=]\s*(?P<code>[A-Za-z_]{4,})\b", re.IGNORECASE)
_PARENTHESIS = re.compile(r"^\s*\((?P<code>[A-Za-z_]{4,})\)\s*(?P<message>[^\n]*)")
_JSON_CODE = re.compile(r'"(?:error)?code\\*"\s*:\s*\\*"(?P<code>[A-Za-z_]+)', re.IGNORECASE)
_STATUS = re.compile(r"\bStatus(?:Code)?\s*[=:]\s*(?P<status>[1-5]\d\d)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """A code with its message, at any level of an error."""

    code: str
    message: str
    target: str = ""
    """The property of the request that caused the error, for example `agentPoolProfile.vmSize`."""

    @property
    def key(self) -> str:
        """The code in lower case, for comparisons: services use different cases."""
        return self.code.lower()


def error_details(document: Mapping[str, Any]) -> list[ErrorDetail]:
    """All details of an error body without duplicates, outermost first."""
    return list(dict.fromkeys(_of_mapping(document, DEPTH_LIMIT)))


def inner_statuses(details: list[ErrorDetail]) -> frozenset[int]:
    """HTTP statuses of requests that Azure sent internally, from messages with `Status=429`."""
    return frozenset(int(hit["status"]) for detail in details for hit in _STATUS.finditer(detail.message[:TEXT_LIMIT]))


def _of_value(value: object, depth: int) -> Iterator[ErrorDetail]:
    if depth <= 0:
        return
    if isinstance(value, Mapping):
        yield from _of_mapping(cast("Mapping[str, Any]", value), depth)
    elif isinstance(value, list):
        for entry in cast("list[object]", value):
            yield from _of_value(entry, depth - 1)
    elif isinstance(value, str) and value.strip():
        yield ErrorDetail("", value)
        yield from _of_text(value, depth - 1)


def _of_mapping(document: Mapping[str, Any], depth: int) -> Iterator[ErrorDetail]:
    if depth <= 0:
        return
    code, message = _text(document.get("code")), _text(document.get("message"))
    if code or message:
        yield ErrorDetail(code, message, _text(document.get("target")))
    yield from _of_text(message, depth - 1)
    for key in _NESTED_KEYS:
        if key in document:
            yield from _of_value(document[key], depth - 1)


def _of_text(text: str, depth: int) -> Iterator[ErrorDetail]:
    """The details inside a message."""
    if depth <= 0 or not text:
        return
    text = text[:TEXT_LIMIT]
    leading = _PARENTHESIS.match(text)
    if leading is not None:
        yield ErrorDetail(leading["code"], leading["message"])
    for quoted in _QUOTED.finditer(text):
        yield ErrorDetail(quoted["code"], quoted["message"] or "")
    documents = list(_documents(text))
    for document in documents:
        yield from _of_value(document, depth)
    if not documents and "\\" in text:
        unescaped = text.replace("\\\\", "\\").replace('\\"', '"').replace("\\n", "\n")
        for document in _documents(unescaped):
            yield from _of_value(document, depth)
    for pattern in (_JSON_CODE, _LABELED):
        for hit in pattern.finditer(text):
            yield ErrorDetail(hit["code"], text)


def _documents(text: str) -> Iterator[object]:
    """Finds JSON objects and arrays inside a text."""
    decoder, position = json.JSONDecoder(), 0
    for _ in range(DOCUMENTS_PER_TEXT):
        begin = min((at for at in (text.find("{", position), text.find("[", position)) if at >= 0), default=-1)
        if begin < 0:
            return
        try:
            document, position = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            position = begin + 1
        else:
            if document:
                yield document


def _text(value: object) -> str:
    """Converts a code or message to text; some services send numbers or objects."""
    if value is None or isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)
