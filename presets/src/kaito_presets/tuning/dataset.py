"""Finds, reads, shuffles and splits the training data.

Used by `run`, without torch, so that wrong data fails within seconds and before a model is loaded. Reads every file of
the format (upstream trains on the first one only); the suffix determines the format, and `rows` maps the columns.
Guarantees that the data set is not empty, and that an error names the file and the content that was found.
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

FORMATS: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


MAX_FIELD_CHARACTERS: Final = 2**31 - 1
"""Most characters of a CSV field. Python's default of 131072 is less than one long document."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples for training and evaluation, and where they come from."""

    train: tuple[Example, ...]
    evaluate: tuple[Example, ...]
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    shape: str
    """"messages", "prompt and completion" or "text"."""


def load_dataset(section: DatasetSection, data_dir: Path, base_dir: Path) -> Dataset:
    """Reads the data set, maps its rows to examples, shuffles and splits it.

    Raises:
        DataError: no file is found, a file cannot be read, a column is missing, or a row cannot be trained on.
    """
    files = find_files(section, data_dir, base_dir)
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for file in files:
        for index, record in enumerate(read_file(file, _format_of(file, section))):
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
    """Returns the data files in the order of their names; all have the same format.

    Raises:
        DataError: no file is found, or the files have different formats.
    """
    if section.dataset_path:
        path = (base_dir / section.dataset_path).resolve()
        if base_dir.resolve() not in path.parents:
            raise DataError(f"DatasetConfig.dataset_path {section.dataset_path} must be below {base_dir}")
        if not path.is_file():
            raise DataError(f"DatasetConfig.dataset_path: {path} does not exist")
        return [path]
    if not data_dir.is_dir():
        raise DataError(f"data directory {data_dir} does not exist")
    candidates = sorted(path for path in data_dir.rglob("*") if path.is_file() and not path.name.startswith("."))
    if section.dataset_extension:
        matching = [path for path in candidates if _suffix_format(path) in (None, section.dataset_extension)]
    else:
        matching = [path for path in candidates if _suffix_format(path)]
    if not matching:
        names = ", ".join(path.name for path in candidates[:10]) or "nothing"
        raise DataError(
            f"no data file in {data_dir} (found {names}); known formats: {', '.join(sorted(set(FORMATS.values())))}"
        )
    formats = sorted({_format_of(path, section) for path in matching})
    if len(formats) > 1:
        raise DataError(
            f"{data_dir} contains files of several formats ({', '.join(formats)}); set DatasetConfig.dataset_extension"
        )
    return matching


def read_file(path: Path, file_format: str) -> list[Record]:
    """Reads all records of a file.

    Raises:
        DataError: the file does not have the format.
    """
    try:
        if file_format in ("parquet", "arrow"):
            return _read_columnar(path, file_format)
        text = _text(path)
        if file_format == "csv":
            return _records_of_csv(text)
        return _records_of_json(text)
    except DataError:
        raise
    except (OSError, ValueError, csv.Error, EOFError, zlib.error, RecursionError) as error:
        # EOFError and zlib.error: a damaged .gz file. RecursionError: JSON with a thousand nested brackets.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path.name} cannot be read as {file_format}: {reason}") from error


def _read_columnar(path: Path, file_format: str) -> list[Record]:
    try:
        # pyarrow has no type annotations; its values are Any here.
        pa: Any = importlib.import_module("pyarrow")
        ipc: Any = importlib.import_module("pyarrow.ipc")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(f"{path.name}: reading {file_format} needs pyarrow (the tuning extra)") from error
    # The exceptions of pyarrow derive from ValueError, OSError or ArrowException.
    try:
        if file_format == "parquet":
            table = parquet.read_table(path)
        else:
            with pa.memory_map(str(path)) as source:
                head = source.read(6)
                source.seek(0)
                reader = ipc.open_file(source) if head == b"ARROW1" else ipc.open_stream(source)
                table = reader.read_all()
        records: list[Record] = table.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path.name} cannot be read as {file_format}: {str(error).splitlines()[0]}") from error
    return records


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8-sig")


def _records_of_csv(text: str) -> list[Record]:
    """Parses a CSV table; a row with more or fewer fields than the header is an error."""
    records: list[Record] = []
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = reader.fieldnames or ()
    header = len(names)
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ValueError(f"the header contains the column {duplicate!r} twice")
    for index, record in enumerate(reader):
        if None in record or None in record.values():
            raise ValueError(f"record {index} (line {reader.line_num}) does not have the {header} fields of the header")
        records.append(record)
    return records


def _records_of_json(text: str) -> list[Record]:
    """Parses JSON: a list of objects, one object per line, or an object that contains the list."""
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
    """Parses one object per line, or the whole text as one object."""
    # splitlines() would also split at U+2028 and other characters that JSON strings may contain.
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
    """Returns the list of records in an object that is not a record itself; None if it is a record.

    The object must contain exactly one list, and its items must not be the messages of a conversation.
    """
    if not is_object(value) or value.keys() & USUAL_COLUMNS:
        return None
    lists = [item for item in value.values() if is_list(item)]
    if len(lists) != 1 or not lists[0]:
        return None
    records = lists[0]
    if not all(is_object(item) and not item.keys() & {"role", "from"} for item in records):
        return None
    return records


def _suffix_format(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _format_of(path: Path, section: DatasetSection) -> str:
    file_format = section.dataset_extension or _suffix_format(path)
    if file_format is None:
        raise DataError(f"{path.name}: the suffix is not a known format; set DatasetConfig.dataset_extension")
    return file_format
