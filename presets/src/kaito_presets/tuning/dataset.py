"""Finds, reads and maps the training data; no torch, so that wrong data fails in seconds and before a model
is loaded.

Called by `run`. Reads every matching file (upstream trains on the first one only), the kind decided by the
real suffix; columns are mapped to one of three record shapes. Guarantees that the result is not empty and
that every error says which columns there are.
"""

import csv
import gzip
import importlib
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_presets.errors import DataError
from kaito_presets.json_shapes import is_list, is_object
from kaito_presets.tuning.config import DatasetSection

KINDS: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}
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
class Dataset:
    """What is trained and evaluated on."""

    train: tuple[Example, ...]
    evaluate: tuple[Example, ...]
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    shape: str
    """"messages", "prompt and completion" or "text"."""


def load_dataset(section: DatasetSection, data_dir: Path, base_dir: Path) -> Dataset:
    """Read, map, shuffle and split.

    Raises:
        DataError: nothing there, unreadable, empty, or a column is missing.
    """
    files = find_files(section, data_dir, base_dir)
    records: list[Record] = []
    columns: dict[str, None] = {}
    for file in files:
        found = read_file(file, _kind(file, section))
        for record in found:
            columns.update(dict.fromkeys(map(str, record)))
        records.extend(found)
    names = ", ".join(file.name for file in files)
    if not records:
        raise DataError(f"the dataset is empty: no record in {names}")
    shape, examples = _map(section, records, tuple(columns))
    if section.shuffle_dataset:
        random.Random(section.shuffle_seed).shuffle(examples)  # noqa: S311 - reproducible order, not a secret
    cut = max(1, round(len(examples) * section.train_test_split))
    return Dataset(tuple(examples[:cut]), tuple(examples[cut:]), tuple(files), tuple(columns), shape)


def find_files(section: DatasetSection, data_dir: Path, base_dir: Path) -> list[Path]:
    """The data files, in name order; all of one kind.

    Raises:
        DataError: none, or several kinds.
    """
    if section.dataset_path:
        path = (base_dir / section.dataset_path).resolve()
        if base_dir.resolve() not in path.parents:
            raise DataError(f"DatasetConfig.dataset_path {section.dataset_path} must lie below {base_dir}")
        if not path.is_file():
            raise DataError(f"DatasetConfig.dataset_path: {path} does not exist")
        return [path]
    if not data_dir.is_dir():
        raise DataError(f"data directory {data_dir} does not exist")
    everything = sorted(path for path in data_dir.rglob("*") if path.is_file() and not path.name.startswith("."))
    if section.dataset_extension:
        matching = [path for path in everything if _suffix_kind(path) in (None, section.dataset_extension)]
    else:
        matching = [path for path in everything if _suffix_kind(path)]
    if not matching:
        seen = ", ".join(path.name for path in everything[:10]) or "nothing"
        raise DataError(
            f"no data file in {data_dir} (found {seen}); known kinds: {', '.join(sorted(set(KINDS.values())))}"
        )
    kinds = sorted({_kind(path, section) for path in matching})
    if len(kinds) > 1:
        raise DataError(
            f"{data_dir} holds files of several kinds ({', '.join(kinds)}); set DatasetConfig.dataset_extension"
        )
    return matching


def read_file(path: Path, kind: str) -> list[Record]:
    """All records of a file.

    Raises:
        DataError: cannot be read as that kind.
    """
    try:
        if kind in ("parquet", "arrow"):
            return _read_columnar(path, kind)
        text = _text(path)
        if kind == "csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        return _records_of_json(text)
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path.name} cannot be read as {kind}: {str(error).splitlines()[0]}") from error


def _read_columnar(path: Path, kind: str) -> list[Record]:
    try:
        # Published without types; its values are Any here.
        pa: Any = importlib.import_module("pyarrow")
        ipc: Any = importlib.import_module("pyarrow.ipc")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(f"{path.name}: reading {kind} needs pyarrow (the tuning extra)") from error
    # pyarrow's errors derive from ValueError, OSError or this.
    try:
        if kind == "parquet":
            table = parquet.read_table(path)
        else:
            with pa.memory_map(str(path)) as source:
                head = source.read(6)
                source.seek(0)
                reader = ipc.open_file(source) if head == b"ARROW1" else ipc.open_stream(source)
                table = reader.read_all()
        records: list[Record] = table.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path.name} cannot be read as {kind}: {str(error).splitlines()[0]}") from error
    return records


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8-sig")


def _records_of_json(text: str) -> list[Record]:
    """A list of objects, one object a line, or an object that wraps the list (as some exporters write it)."""
    stripped = text.lstrip()
    if not stripped:
        return []
    if stripped.startswith("["):
        values: Any = json.loads(stripped)
    else:
        try:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            whole = json.loads(stripped)
            lists = [value for value in whole.values() if is_list(value)] if is_object(whole) else []
            values = lists[0] if len(lists) == 1 else [whole]
    bad = next((value for value in values if not isinstance(value, dict)), None)
    if bad is not None:
        raise ValueError(f"expected objects, found {type(bad).__name__}")
    return list(values)


def _suffix_kind(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return KINDS.get(suffixes[-1].lower()) if suffixes else None


def _kind(path: Path, section: DatasetSection) -> str:
    kind = section.dataset_extension or _suffix_kind(path)
    if kind is None:
        raise DataError(f"{path.name}: set DatasetConfig.dataset_extension, the name does not tell the kind")
    return kind


# Columns.


def _map(section: DatasetSection, records: Sequence[Record], columns: Sequence[str]) -> tuple[str, list[Example]]:
    messages, context, response, instruction = _choose(section, columns)
    _require((messages, context, response, instruction), columns)
    if messages:
        return "messages", [Example(turns=_turns(record, messages, index)) for index, record in enumerate(records)]
    if response and (context or instruction):
        heads = [column for column in (instruction, context) if column]
        return "prompt and completion", [
            Example("\n\n".join(filter(None, (_string(record, column, index) for column in heads))),
                    _string(record, response, index))
            for index, record in enumerate(records)
        ]  # fmt: skip
    if response:
        return "text", [Example("", _string(record, response, index)) for index, record in enumerate(records)]
    raise DataError(
        "set DatasetConfig.messages_column, or response_column with or without context_column; "
        f"the columns are: {', '.join(columns)}"
    )


def _choose(section: DatasetSection, columns: Sequence[str]) -> tuple[str | None, str | None, str | None, str | None]:
    """Messages, context, response and instruction columns: as configured, else by the names everybody
    uses."""
    if section.messages_column:
        return section.messages_column, None, None, None
    context, response, instruction = section.context_column, section.response_column, section.instruction_column
    if response:
        return None, context, response, instruction
    if context or instruction:
        return None, context, _first(columns, ("response", "completion", "output", "answer", "text")), instruction
    if "messages" in columns:
        return "messages", None, None, None
    for prompt, answer in (
        ("prompt", "completion"), ("question", "answer"), ("prompt", "response"),
    ):  # fmt: skip
        if prompt in columns and answer in columns:
            return None, prompt, answer, None
    if "instruction" in columns and (answer_column := _first(columns, ("response", "output"))):
        return None, _first(columns, ("context", "input")), answer_column, "instruction"
    if "context" in columns and "response" in columns:
        return None, "context", "response", None
    return None, None, _first(columns, ("text",)), None


def _first(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    present = set(columns)
    return next((name for name in wanted if name in present), None)


def _require(chosen: Iterable[str | None], columns: Sequence[str]) -> None:
    for name in chosen:
        if name is not None and name not in columns:
            raise DataError(f"the dataset has no column {name!r}; its columns are: {', '.join(columns)}")


def _string(record: Record, column: str, index: int) -> str:
    value = record.get(column)
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise DataError(f"record {index}, column {column!r}: expected text, found {type(value).__name__}")
    return str(value)


def _turns(record: Record, column: str, index: int) -> tuple[Turn, ...]:
    value = record.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"record {index}, column {column!r}: neither a list nor JSON: {error}") from error
    try:
        turns = tuple(Turn(str(turn["role"]), str(turn["content"])) for turn in value or ())
    except (TypeError, KeyError) as error:
        raise DataError(f"record {index}, column {column!r}: expected a list of {{role, content}}") from error
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError(f"record {index}, column {column!r}: no message of the assistant to learn from")
    return turns
