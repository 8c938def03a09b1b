"""Finds, reads and maps the training data; no torch, so that wrong data fails in seconds and before a model
is loaded.

Called by `run`. Reads every matching file (upstream trains on the first one only), the kind decided by the
real suffix; `rows` maps the columns to examples. Guarantees that the result is not empty and that every
error names the file and what was found in it.
"""

import csv
import gzip
import importlib
import io
import json
import random
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_presets.errors import DataError
from kaito_presets.json_values import is_list, is_object
from kaito_presets.tuning.config import DatasetSection
from kaito_presets.tuning.rows import USUAL_COLUMNS, Example, Record, Row, Turn, map_rows

__all__ = ["Dataset", "Example", "Turn", "find_files", "load_dataset", "read_file"]

KINDS: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


LONGEST_FIELD: Final = 2**31 - 1
"""Characters of a field of a table; Python's own limit of 131072 is less than one long document."""


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
        DataError: nothing there, unreadable, empty, a column is missing, or a row cannot be trained on.
    """
    files = find_files(section, data_dir, base_dir)
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for file in files:
        for index, record in enumerate(read_file(file, _kind(file, section))):
            columns.update(dict.fromkeys(map(str, record)))
            rows.append(Row(file.name, index, record))
    names = ", ".join(file.name for file in files)
    if not rows:
        raise DataError(f"the dataset is empty: no record in {names}")
    shape, examples = map_rows(section, rows, tuple(columns))
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
            return _records_of_csv(text)
        return _records_of_json(text)
    except DataError:
        raise
    except (OSError, ValueError, csv.Error, EOFError, zlib.error, RecursionError) as error:
        # A damaged .gz ends as one of the last but one; JSON of a thousand brackets as the last.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path.name} cannot be read as {kind}: {reason}") from error


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


def _records_of_csv(text: str) -> list[Record]:
    """The rows of a table; a row whose length is not that of the header is an error, not a guess."""
    records: list[Record] = []
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = reader.fieldnames or ()
    header = len(names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the header has the column {twice!r} twice")
    for index, record in enumerate(reader):
        if None in record or None in record.values():
            raise ValueError(f"record {index} (line {reader.line_num}) does not have the {header} fields of the header")
        records.append(record)
    return records


def _records_of_json(text: str) -> list[Record]:
    """A list of objects, one object a line, or an object that wraps the list (as some exporters write it)."""
    stripped = text.strip()
    if not stripped:
        return []
    values = json.loads(stripped) if stripped.startswith("[") else _objects(stripped)
    if len(values) == 1:
        values = _wrapped(values[0]) or values
    wrong = [value for value in values if not isinstance(value, dict)]
    if wrong:
        raise ValueError(f"expected objects, found {'null' if wrong[0] is None else type(wrong[0]).__name__}")
    return list(values)


def _objects(text: str) -> list[Any]:
    """One object a line, else the whole text as one."""
    # Not splitlines(): text may hold U+2028 and other separators that end no line of a JSON Lines file.
    lines = text.split("\n")
    values: list[Any] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except ValueError as error:
            if values:
                raise ValueError(f"line {number}: {error}") from error
            return [json.loads(text)]
    return values


def _wrapped(value: Any) -> list[Any] | None:
    """The only list of objects in an object that is no record; a conversation is a record, not a list of them."""
    if not is_object(value) or value.keys() & USUAL_COLUMNS:
        return None
    lists = [item for item in value.values() if is_list(item)]
    if len(lists) != 1 or not lists[0]:
        return None
    records = lists[0]
    if not all(is_object(item) and not item.keys() & {"role", "from"} for item in records):
        return None
    return records


def _suffix_kind(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return KINDS.get(suffixes[-1].lower()) if suffixes else None


def _kind(path: Path, section: DatasetSection) -> str:
    kind = section.dataset_extension or _suffix_kind(path)
    if kind is None:
        raise DataError(f"{path.name}: set DatasetConfig.dataset_extension, the name does not tell the kind")
    return kind
