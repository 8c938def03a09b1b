"""Reads every (code, message) out of an ARM error, in whichever shape it comes.

Shapes seen (recordings of azure-cli, logs and issues of AKS, Karpenter's Azure provider): flat and nested bodies;
`details` as objects, as one object or as text; `innererror`; JSON inside a message, whole, escaped or cut off; and the
Go SDK's text `Code="X" Message="Y" Details=[...]` inside the message of a failed agent pool.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

DEPTH_LIMIT = 8
"""Bodies nested deeper than this are not followed: no recorded one has more than five levels."""

TEXT_LIMIT = 64 * 1024
"""Characters of a message in which codes are looked for."""

DOCUMENTS_PER_TEXT = 16
"""Beginnings of JSON documents that are tried in one text."""

_NESTED_KEYS = ("error", "innererror", "innerError", "inner_error", "details", "additionalInfo", "info")
_QUOTED = re.compile(r'Code=\\?"(?P<code>[^"\\]+)\\?"(?:\s+Message=\\?"(?P<message>[^"\\]*))?', re.IGNORECASE)
_LABELED = re.compile(r"\b(?:Error)?Code\s*[:=]\s*(?P<code>[A-Za-z_]{4,})\b", re.IGNORECASE)
_PARENTHESIS = re.compile(r"^\s*\((?P<code>[A-Za-z_]{4,})\)\s*(?P<message>[^\n]*)")
_JSON_CODE = re.compile(r'"(?:error)?code\\*"\s*:\s*\\*"(?P<code>[A-Za-z_]+)', re.IGNORECASE)
_STATUS = re.compile(r"\bStatus(?:Code)?\s*[=:]\s*(?P<status>[1-5]\d\d)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shape:
    """One code with its message, somewhere in an error."""

    code: str
    message: str
    target: str = ""
    """The property of the request that the error is about, for example `agentPoolProfile.vmSize`."""

    @property
    def key(self) -> str:
        """The code as it is compared: services do not agree about upper and lower case."""
        return self.code.lower()


def shapes(document: Mapping[str, Any]) -> list[Shape]:
    """Every shape in an error body, outermost first, each once."""
    return list(dict.fromkeys(_of_mapping(document, DEPTH_LIMIT)))


def inner_statuses(found: list[Shape]) -> frozenset[int]:
    """HTTP statuses that a message reports of a request behind the one that was answered (`Status=429`)."""
    return frozenset(int(hit["status"]) for shape in found for hit in _STATUS.finditer(shape.message[:TEXT_LIMIT]))


def _of_value(value: object, depth: int) -> Iterator[Shape]:
    if depth <= 0:
        return
    if isinstance(value, Mapping):
        yield from _of_mapping(cast("Mapping[str, Any]", value), depth)
    elif isinstance(value, list):
        for entry in cast("list[object]", value):
            yield from _of_value(entry, depth - 1)
    elif isinstance(value, str) and value.strip():
        yield Shape("", value)
        yield from _of_text(value, depth - 1)


def _of_mapping(document: Mapping[str, Any], depth: int) -> Iterator[Shape]:
    if depth <= 0:
        return
    code, message = _text(document.get("code")), _text(document.get("message"))
    if code or message:
        yield Shape(code, message, _text(document.get("target")))
    yield from _of_text(message, depth - 1)
    for key in _NESTED_KEYS:
        if key in document:
            yield from _of_value(document[key], depth - 1)


def _of_text(text: str, depth: int) -> Iterator[Shape]:
    """The shapes that a message quotes."""
    if depth <= 0 or not text:
        return
    text = text[:TEXT_LIMIT]
    leading = _PARENTHESIS.match(text)
    if leading is not None:
        yield Shape(leading["code"], leading["message"])
    for quoted in _QUOTED.finditer(text):
        yield Shape(quoted["code"], quoted["message"] or "")
    documents = list(_documents(text))
    for document in documents:
        yield from _of_value(document, depth)
    if not documents and "\\" in text:
        unescaped = text.replace("\\\\", "\\").replace('\\"', '"').replace("\\n", "\n")
        for document in _documents(unescaped):
            yield from _of_value(document, depth)
    for pattern in (_JSON_CODE, _LABELED):
        for hit in pattern.finditer(text):
            yield Shape(hit["code"], text)


def _documents(text: str) -> Iterator[object]:
    """The JSON objects and arrays inside a text."""
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
    """A code or message as text; some services send numbers, or an object where a message belongs."""
    if value is None or isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)
