"""Maps the rows of a data set to training examples, without torch.

Used by `dataset` with the records of all files. Every value is validated before it is converted to text: otherwise, a
null, a list of content parts or an empty completion would train the word "None", Python's `repr` of a list, or an end
token. Guarantees that all examples are text, and that an error lists the wrong rows.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kaito_presets.errors import DataError
from kaito_presets.json_values import is_list, is_object
from kaito_presets.tuning.config import DatasetSection

MAX_LISTED_PROBLEMS: Final = 10
"""Rows that an error lists; the rest is counted."""

UNTRAINABLE: Final = ("tool_calls", "function_call", "audio")
"""Keys of a chat message that are not passed to the chat template, so that their content would be lost."""

USUAL_COLUMNS: Final = frozenset(
    {
        "messages", "prompt", "question", "instruction", "context", "response", "completion", "output", "answer",
        "text",
    }
)  # fmt: skip
"""Column names that are recognized if no column is configured."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a conversation, or a prompt with its completion, or (empty prompt) plain text."""

    prompt: str = ""
    completion: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A record and its position in the data set."""

    file: str
    index: int
    """Index of the record in the file, from 0."""
    record: Record

    def __str__(self) -> str:
        return f"{self.file}, record {self.index}"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Names of the columns by their content."""

    messages: str | None = None
    context: str | None = None
    response: str | None = None
    instruction: str | None = None

    def names(self) -> tuple[str, ...]:
        chosen = (self.messages, self.context, self.response, self.instruction)
        return tuple(name for name in chosen if name is not None)


class _Unusable(Exception):
    """A row cannot be trained on; the message names the column and the reason."""


def map_rows(section: DatasetSection, rows: Sequence[Row], columns: Sequence[str]) -> tuple[str, list[Example]]:
    """Maps every row to an example; returns the shape of the data and the examples in the order of the rows.

    Raises:
        DataError: a column is missing, or a row cannot be trained on; the message lists these rows.
    """
    chosen = _choose(section, columns)
    for name in chosen.names():
        if name not in columns:
            raise DataError(f"the dataset has no column {name!r}; its columns are: {', '.join(columns)}")
    if chosen.messages:
        shape = "messages"
    elif chosen.response:
        shape = "prompt and completion" if chosen.context or chosen.instruction else "text"
    else:
        raise DataError(
            "set DatasetConfig.messages_column, or response_column with or without context_column; "
            f"the columns are: {', '.join(columns)}"
        )
    examples: list[Example] = []
    problems: list[str] = []
    for row in rows:
        try:
            examples.append(_example(row.record, chosen))
        except _Unusable as problem:
            problems.append(f"{row}, {problem}")
    if problems:
        listed = "; ".join(problems[:MAX_LISTED_PROBLEMS])
        more = f"; and {len(problems) - MAX_LISTED_PROBLEMS} more" if len(problems) > MAX_LISTED_PROBLEMS else ""
        raise DataError(f"{len(problems)} of {len(rows)} records cannot be trained on: {listed}{more}")
    return shape, examples


def _choose(section: DatasetSection, columns: Sequence[str]) -> _Columns:
    """Selects the columns: the configured ones, else by the usual names."""
    if section.messages_column:
        return _Columns(messages=section.messages_column)
    context, response, instruction = section.context_column, section.response_column, section.instruction_column
    if response:
        return _Columns(context=context, response=response, instruction=instruction)
    if context or instruction:
        found = _first(columns, ("response", "completion", "output", "answer", "text"))
        return _Columns(context=context, response=found, instruction=instruction)
    if "messages" in columns:
        return _Columns(messages="messages")
    for prompt, answer in (
        ("prompt", "completion"), ("question", "answer"), ("prompt", "response"),
    ):  # fmt: skip
        if prompt in columns and answer in columns:
            return _Columns(context=prompt, response=answer)
    if "instruction" in columns and (found := _first(columns, ("response", "output"))):
        return _Columns(context=_first(columns, ("context", "input")), response=found, instruction="instruction")
    if "context" in columns and "response" in columns:
        return _Columns(context="context", response="response")
    return _Columns(response=_first(columns, ("text",)))


def _first(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    present = set(columns)
    return next((name for name in wanted if name in present), None)


def _example(record: Record, columns: _Columns) -> Example:
    if columns.messages:
        return Example(turns=_turns(record, columns.messages))
    heads = [column for column in (columns.instruction, columns.context) if column]
    texts = [_text(record, column) for column in heads]
    prompt = "\n\n".join(filter(None, texts))
    if heads and not prompt.strip():
        raise _Unusable(f"column {heads[-1]!r}: the prompt is empty")
    response = columns.response or ""
    completion = _text(record, response)
    if not completion.strip():
        raise _Unusable(f"column {response!r}: is empty, so there is nothing to learn")
    return Example(prompt, completion)


def _text(record: Record, column: str) -> str:
    """Returns the text of a column; a number, for example a label, is converted to text."""
    where = f"column {column!r}"
    if column not in record:
        raise _Unusable(f"{where}: is missing")
    value = record[column]
    if value is None:
        raise _Unusable(f"{where}: is null")
    # bool is a subclass of int, and its text ("True") differs from that in JSON or CSV ("true").
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _Unusable(f"{where}: expected text, found {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unusable(f"{where}: expected text, found {value} (some tools write it for a missing value)")
    return _encodable(str(value), where)


def _encodable(text: str, where: str) -> str:
    """Rejects half of a surrogate pair, which JSON can contain and tokenizers reject."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Unusable(f"{where}: character {error.start} is half of a surrogate pair") from error
    return text


def _turns(record: Record, column: str) -> tuple[Turn, ...]:
    where = f"column {column!r}"
    value = record.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Unusable(f"{where}: neither a list nor JSON: {error}") from error
    if value is None:
        raise _Unusable(f"{where}: is null" if column in record else f"{where}: is missing")
    if not is_list(value):
        raise _Unusable(f"{where}: expected a list of {{role, content}}, found {type(value).__name__}")
    turns = tuple(_turn(message, f"{where}, message {number}") for number, message in enumerate(value))
    if not any(turn.role == "assistant" for turn in turns):
        raise _Unusable(f"{where}: no message of the assistant to learn from")
    return turns


def _turn(message: Any, where: str) -> Turn:
    if not is_object(message) or "role" not in message or "content" not in message:
        raise _Unusable(f"{where}: expected a list of {{role, content}}")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or not role:
        raise _Unusable(f"{where}: the role is not text")
    for key in UNTRAINABLE:
        if message.get(key):
            raise _Unusable(f"{where} ({role}): {key} cannot be trained on: remove the message or write it as text")
    if content is None:
        raise _Unusable(f"{where} ({role}): content is null")
    if is_list(content):
        raise _Unusable(f"{where} ({role}): content is a list of parts: write it as one text")
    if not isinstance(content, str):
        raise _Unusable(f"{where} ({role}): expected text as content, found {type(content).__name__}")
    if role == "assistant" and not content.strip():
        raise _Unusable(f"{where} ({role}): content is empty, so there is nothing to learn")
    if role == "assistant" and message.get("weight") == 0:
        raise _Unusable(f"{where} ({role}): weight 0 is not supported: every answer of a conversation is learned")
    return Turn(_encodable(role, where), _encodable(content, f"{where} ({role})"))
