"""Finding, reading, mapping and downloading training data."""

import gzip
import importlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kaito_config.addresses import url_problem
from kaito_presets.errors import ConfigurationError, DataError
from kaito_presets.tuning.config import DatasetSection
from kaito_presets.tuning.dataset import Dataset, Example, Turn, load_dataset
from kaito_presets.tuning.download import MAX_ATTEMPTS, download_all, file_names

ROWS = [{"question": f"q{index}", "answer": f"a{index}"} for index in range(10)]


def load(folder: Path, **section: Any) -> Dataset:
    section.setdefault("shuffle_dataset", False)
    return load_dataset(DatasetSection(**section), folder, folder.parent)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = tmp_path / "data"
    result.mkdir()
    return result


def test_all_formats_yield_the_same_records(folder: Path) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    ipc: Any = importlib.import_module("pyarrow.ipc")
    parquet: Any = importlib.import_module("pyarrow.parquet")

    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, folder / "x.parquet")
    expected = load(folder)
    assert expected.train[0] == Example("q0", "a0")
    assert expected.shape == "prompt and completion"
    (folder / "x.parquet").unlink()

    def with_arrow() -> None:
        with ipc.new_file(str(folder / "x.arrow"), table.schema) as writer:
            writer.write_table(table)

    writers = {
        "x.json": lambda: (folder / "x.json").write_text(json.dumps(ROWS)),
        "x.jsonl": lambda: write_jsonl(folder / "x.jsonl", ROWS),
        "x.json.gz": lambda: (folder / "x.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode())),
        "x.csv": lambda: (folder / "x.csv").write_text(
            "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)
        ),
        "x.arrow": with_arrow,
    }
    for name, write in writers.items():
        write()
        assert load(folder).train == expected.train, name
        (folder / name).unlink()


def test_all_files_are_used_in_name_order(folder: Path) -> None:
    (folder / "sub").mkdir()
    write_jsonl(folder / "b.jsonl", ROWS[5:])
    write_jsonl(folder / "sub" / "c.jsonl", [{"question": "last", "answer": "one"}])
    write_jsonl(folder / "a.jsonl", ROWS[:5])
    (folder / ".hidden.jsonl").write_text("not json")
    (folder / "README.md").write_text("not data")
    assert [example.prompt for example in load(folder).train] == [*(row["question"] for row in ROWS), "last"]


def test_shuffle_depends_on_the_seed_and_split_on_the_share(folder: Path) -> None:
    write_jsonl(folder / "x.jsonl", ROWS)
    one = load(folder, shuffle_dataset=True, shuffle_seed=1, train_test_split=0.8)
    same = load(folder, shuffle_dataset=True, shuffle_seed=1, train_test_split=0.8)
    other = load(folder, shuffle_dataset=True, shuffle_seed=2, train_test_split=0.8)
    assert one == same
    assert one.train != other.train
    assert (len(one.train), len(one.evaluate)) == (8, 2)


@pytest.mark.parametrize(
    ("row", "section", "example"),
    [
        ({"messages": [{"role": "assistant", "content": "x"}]}, {}, Example(turns=(Turn("assistant", "x"),))),
        ({"prompt": "p", "completion": "c"}, {}, Example("p", "c")),
        ({"text": "t", "other": 1}, {}, Example("", "t")),
        ({"instruction": "i", "context": "c", "response": "r"}, {}, Example("i\n\nc", "r")),
        ({"instruction": "i", "context": "", "response": "r"}, {}, Example("i", "r")),
        ({"in": "p", "out": 7}, {"context_column": "in", "response_column": "out"}, Example("p", "7")),
        ({"in": "p", "out": "t"}, {"response_column": "out"}, Example("", "t")),
        ({"chat": '[{"role":"assistant","content":"x"}]'}, {"messages_column": "chat"},
         Example(turns=(Turn("assistant", "x"),))),
        ({"a": "1", "b": "2", "c": "3"},
         {"instruction_column": "a", "context_column": "b", "response_column": "c"}, Example("1\n\n2", "3")),
    ],
)  # fmt: skip
def test_columns_are_mapped(folder: Path, row: dict[str, Any], section: dict[str, Any], example: Example) -> None:
    write_jsonl(folder / "x.jsonl", [row])
    assert load(folder, **section).train == (example,)


@pytest.mark.parametrize(
    ("files", "section", "words"),
    [
        ({}, {}, "no data file in"),
        ({"x.txt": "hello"}, {}, "found x.txt"),
        ({"x.jsonl": ""}, {}, "dataset is empty: no record in x.jsonl"),
        ({"x.csv": "question,answer\n"}, {}, "dataset is empty"),
        ({"x.jsonl": '{"a": 1, "b": 2}'}, {}, "the columns are: a, b"),
        ({"x.jsonl": '{"a": 1, "b": 2}'}, {"response_column": "c"}, "no column 'c'; its columns are: a, b"),
        ({"x.jsonl": '{"messages": "{"}'}, {}, "record 0, column 'messages'"),
        ({"x.jsonl": '{"messages": [{"role": "user", "content": "x"}]}'}, {}, "no message of the assistant"),
        ({"x.jsonl": '{"messages": [{"rle": "user"}]}'}, {}, "list of {role, content}"),
        ({"x.jsonl": '{"text": {"a": 1}}'}, {}, "expected text, found dict"),
        ({"x.jsonl": "[1, 2]"}, {}, "expected objects, found int"),
        ({"x.json": "{broken"}, {}, "x.json cannot be read as json"),
        ({"x.parquet": "not parquet"}, {}, "x.parquet cannot be read as parquet"),
        ({"x.jsonl": "{}", "y.csv": "a\n1\n"}, {}, "several formats"),
        ({}, {"dataset_path": "absent.csv"}, "does not exist"),
        ({}, {"dataset_path": "../../etc/passwd"}, "must be below"),
    ],
)
def test_wrong_data_is_reported_with_what_was_found(
    folder: Path, files: dict[str, str], section: dict[str, Any], words: str
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=words):
        load(folder, **section)


GOOD = {"question": "q", "answer": "a"}


def message(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": content, **more}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "a", "answer": None}, "column 'answer': is null"),
        ({"question": "b"}, "column 'answer': is missing"),
        ({"question": None, "answer": "x"}, "column 'question': is null"),
        ({"answer": "x"}, "column 'question': is missing"),
        ({"question": "q", "answer": ""}, "column 'answer': is empty"),
        ({"question": "q", "answer": " \n"}, "column 'answer': is empty"),
        ({"question": " ", "answer": "x"}, "column 'question': the prompt is empty"),
        ({"question": "q", "answer": True}, "column 'answer': expected text, found bool"),
        ({"question": "q", "answer": float("nan")}, "column 'answer': expected text, found nan"),
        ({"question": "q", "answer": ["x"]}, "column 'answer': expected text, found list"),
    ],
)
def test_row_without_text_is_rejected_by_its_number(folder: Path, row: dict[str, Any], words: str) -> None:
    """Nulls became empty answers and were trained on."""
    write_jsonl(folder / "x.jsonl", [GOOD, GOOD, row])
    with pytest.raises(DataError, match=rf"1 of 3 records cannot be trained on: x\.jsonl, record 2, {words}"):
        load(folder)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (message(None), r"message 1 \(assistant\): content is null"),
        (message(None, tool_calls=[{"id": "1"}]), r"message 1 \(assistant\): tool_calls cannot be trained on"),
        (message("text", tool_calls=[{"id": "1"}]), r"message 1 \(assistant\): tool_calls cannot be trained on"),
        (message([{"type": "text", "text": "hi"}]), r"message 1 \(assistant\): content is a list of parts"),
        (message(""), r"message 1 \(assistant\): content is empty"),
        (message(7), r"message 1 \(assistant\): expected text as content, found int"),
        ({"messages": None}, "is null"),
        ({"messages": {"role": "assistant", "content": "x"}}, "found dict"),
        ({"messages": [{"role": None, "content": "x"}]}, "message 0: the role is not text"),
        ({"messages": ["x"]}, "message 0: expected a list of {role, content}"),
        ({"messages": "null"}, "is null"),
    ],
)
def test_message_without_text_is_rejected_by_its_number(folder: Path, row: dict[str, Any], words: str) -> None:
    """The literal word "None" and Python's text of a list were trained."""
    write_jsonl(folder / "x.jsonl", [message("a"), row])
    with pytest.raises(DataError, match=rf"x\.jsonl, record 1, column 'messages'.*{words}"):
        load(folder)


def test_harmless_keys_of_messages_are_accepted(folder: Path) -> None:
    write_jsonl(folder / "x.jsonl", [message("a", tool_calls=None, name="x", url_problem=None)])
    assert load(folder).train == (Example(turns=(Turn("user", "q"), Turn("assistant", "a"))),)


def test_every_wrong_row_is_counted_and_the_first_ten_are_listed(folder: Path) -> None:
    write_jsonl(folder / "a.jsonl", [GOOD, *[{"question": "q", "answer": None}] * 6])
    write_jsonl(folder / "b.jsonl", [{"question": "q", "answer": None}] * 6)
    with pytest.raises(DataError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith("12 of 13 records cannot be trained on: a.jsonl, record 1, ")
    assert "b.jsonl, record 3" in text
    assert "b.jsonl, record 4" not in text
    assert text.endswith("; and 2 more")


@pytest.mark.parametrize("line", ["only one", "one,two,three"])
def test_row_with_another_length_than_the_header_is_rejected(folder: Path, line: str) -> None:
    (folder / "x.csv").write_text(f"question,answer\nq,a\n{line}\n")
    with pytest.raises(DataError, match=r"x\.csv cannot be read as csv: record 1 \(line 3\).*2 fields"):
        load(folder)


# Downloads.


class Source(BaseHTTPRequestHandler):
    """Serves `content`; breaks, redirects and refuses as scripted in the path."""

    content = b"0123456789" * 1000
    calls: list[str] = []
    ranges: list[str | None] = []
    failures_left = 0

    def do_GET(self) -> None:
        type(self).calls.append(self.path)
        type(self).ranges.append(self.headers.get("Range"))
        if self.path.startswith("/gone"):
            self.send_error(404)
        elif self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/file.json")
            self.end_headers()
        elif type(self).failures_left:
            type(self).failures_left -= 1
            if self.path.startswith("/busy"):
                self.send_error(503)
                return
            self._send(self.content[:3000])  # announces everything, sends a part
        elif start := self.headers.get("Range"):
            offset = int(start.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(len(self.content) - offset))
            self.end_headers()
            self.wfile.write(self.content[offset:])
        else:
            self._send(b"" if self.path == "/empty" else self.content)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) if body else 0))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.json", "[null]", "expected objects, found null"),
        ("x.jsonl", '{"question":"q","answer":' + "[" * 100_000, "cannot be read as jsonl: maximum recursion"),
        ("x.jsonl", json.dumps({"messages": "[" * 100_000}), "record 0, column 'messages': neither a list nor JSON"),
        ("x.jsonl", '{"question":"q","answer":"\\ud800"}', "column 'answer': character 0 is half of a surrogate pair"),
        ("x.jsonl", '{"question":"q","answer":"a"}\n{oops', "line 2: "),
        ("x.jsonl", '{"question":"q","answer":"a"}\n{"question":"q"', "line 2: "),
        ("x.csv", "question,question,answer\nq,r,a\n", "the header contains the column 'question' twice"),
        ("x.jsonl.gz", gzip.compress(b"x" * 5000)[:20], "cannot be read as jsonl"),
        ("x.jsonl.gz", gzip.compress(b"x" * 5000)[:12] + b"\xff" * 30, "cannot be read as jsonl"),
        ("x.jsonl.gz", b"\x1f\x8bxx", "cannot be read as jsonl"),
    ],
)
def test_damaged_file_is_reported_by_its_name(folder: Path, name: str, content: str | bytes, words: str) -> None:
    """Each of these ended as a traceback or trained on something else."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_message_with_weight_zero_is_rejected(folder: Path) -> None:
    """OpenAI's format marks an answer that is not to be learned; here every answer is."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]
    write_jsonl(folder / "x.jsonl", [{"messages": turns}])
    with pytest.raises(DataError, match=r"record 0, .*message 1 .*weight 0"):
        load(folder)


def test_unicode_line_separators_inside_a_text_do_not_end_a_record(folder: Path) -> None:
    """U+2028 may stand in a JSON text as it is."""
    text = "a\u2028b\u2029c\x85d"
    rows = [{"question": text, "answer": text}] * 2
    (folder / "x.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert load(folder, train_test_split=1.0).train == (Example(text, text), Example(text, text))


@pytest.mark.parametrize("indent", [None, 2])
def test_list_in_an_object_is_found_unless_the_object_is_a_record(folder: Path, indent: int | None) -> None:
    """Whether an exporter indents must not matter; a record that has a list of its own stays one."""
    (folder / "x.json").write_text(json.dumps({"version": "1", "data": ROWS}, indent=indent))
    assert len(load(folder, train_test_split=1.0).train) == len(ROWS)
    (folder / "x.json").write_text(json.dumps({**ROWS[0], "sources": [{"id": 1}]}, indent=indent))
    assert load(folder).train == (Example("q0", "a0"),)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (folder / "x.json").write_text(json.dumps({"messages": turns}, indent=indent))
    assert load(folder).train == (Example(turns=(Turn("user", "q"), Turn("assistant", "a"))),)


def test_long_field_of_a_table_is_read(folder: Path) -> None:
    """Python's csv refuses fields above 131072 characters."""
    (folder / "x.csv").write_text("question,answer\nq," + "x" * 200_000 + "\n")
    assert load(folder).train == (Example("q", "x" * 200_000),)


@pytest.fixture
def source() -> Iterator[str]:
    Source.calls, Source.ranges, Source.failures_left = [], [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_existing_files_are_not_downloaded_again(source: str, folder: Path) -> None:
    urls = [f"{source}/data/train.parquet?download=true", f"{source}/redirect/other.json"]
    files = download_all(urls, folder)
    assert [file.name for file in files] == ["train.parquet", "other.json"]
    assert all(file.read_bytes() == Source.content for file in files)
    download_all(urls, folder)
    assert len(Source.calls) == 3  # two files, one redirect


@pytest.mark.parametrize("path", ["/broken.json", "/busy.json"])
def test_interrupted_download_is_resumed(source: str, folder: Path, path: str) -> None:
    Source.failures_left = 2
    pauses: list[float] = []
    (file,) = download_all([source + path], folder, sleep=pauses.append)
    assert file.read_bytes() == Source.content
    assert pauses == [1.0, 2.0]
    assert (Source.ranges[-1] is not None) == (path == "/broken.json")


def test_download_failure_names_the_url(source: str, folder: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json.*404.*after 1 attempts"):
        download_all([f"{source}/gone.json"], folder)
    with pytest.raises(DataError, match="is empty"):
        download_all([f"{source}/empty"], folder)
    Source.failures_left = MAX_ATTEMPTS
    with pytest.raises(DataError, match=f"after {MAX_ATTEMPTS} attempts"):
        download_all([f"{source}/busy.json"], folder, sleep=lambda _: None)
    assert list(folder.iterdir()) == []


def test_address_in_the_cluster_is_rejected_also_in_a_redirect(source: str, folder: Path) -> None:
    """http://minio:9000 passed admission, and nothing in the pod refused it."""
    with pytest.raises(ConfigurationError, match=r"data URL 'http://minio:9000/d\.parquet' points inside"):
        download_all(["http://minio:9000/d.parquet"], folder, check_url=url_problem)
    assert Source.calls == []

    def only_the_first(url: str) -> str | None:
        return None if url.endswith("/redirect/other.json") else url_problem(url)

    with pytest.raises(DataError, match=r"redirect/other\.json redirects: .*points inside the cluster"):
        download_all([f"{source}/redirect/other.json"], folder, check_url=only_the_first)
    assert Source.calls == ["/redirect/other.json"]


def test_file_names_are_unique_and_stay_in_the_directory() -> None:
    names = file_names(["http://a/x.csv", "http://b/x.csv?y=1", "http://c/dir/..%2f.evil", "http://d"])
    assert len(set(names)) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)
    for url in ("file:///etc/passwd", "ftp://x/y", "x"):
        with pytest.raises(ConfigurationError, match="only http"):
            file_names([url])
