"""Single values, boundaries and rejections of the tuning job, without a model."""

import hashlib
import io
import json
import logging
import signal
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import ConfigurationError, DataError, PushError
from kaito_presets.tuning import main as program
from kaito_presets.tuning.config import DatasetSection, TrainingConfig, read_training_config
from kaito_presets.tuning.dataset import Dataset, find_files, load_dataset, read_file
from kaito_presets.tuning.download import file_names
from kaito_presets.tuning.memory import Dimensions, estimate_bytes
from kaito_presets.tuning.options import TuningOptions, read_options
from kaito_presets.tuning.progress import Progress, Report, TrainingRate
from kaito_presets.tuning.record import (
    claim_output_directory,
    fingerprint,
    is_completed,
    last_checkpoint,
    write_metadata,
)
from kaito_presets.tuning.rows import Example, Row, Turn, map_rows

GIB = 2**30


# Memory.


def dimensions(**changes: Any) -> Dimensions:
    values: dict[str, Any] = {
        "linear_parameters": 1000, "other_parameters": 100, "adapter_parameters": 10, "layers": 3, "hidden_size": 7,
        "vocabulary": 11, "batch": 2, "length": 5, "bytes_per_weight": 2, "checkpointing": True,
    }  # fmt: skip
    return Dimensions(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "bits", "weights", "activations"),
    [
        ({}, None, 1100 * 2, 10 * 7 * (2 * 3 + 34)),
        ({}, 8, 1000 + 200, 10 * 7 * (2 * 3 + 34)),
        ({}, 4, 530 + 200, 10 * 7 * (2 * 3 + 34)),
        ({"checkpointing": False}, None, 2200, 10 * 7 * 34 * 3),
        ({"bytes_per_weight": 4}, None, 4400, 10 * 7 * (2 * 3 + 34) * 2),
        ({"batch": 3}, None, 2200, 15 * 7 * (2 * 3 + 34)),
    ],
)
def test_memory_is_weights_adapter_activations_logits_and_overhead(
    changes: dict[str, Any], bits: int | None, weights: int, activations: int
) -> None:
    chosen = dimensions(**changes)
    logits = chosen.batch * chosen.length * 11 * 10
    assert estimate_bytes(chosen, bits) == weights + 160 + activations + logits + int(0.75 * GIB)


# Options.


def test_defaults_of_the_job() -> None:
    options = read_options([], {})
    assert options.model_dump() == {
        "config": None, "model": None, "model_name": None, "method": "qlora", "data_dir": Path("/mnt/data"),
        "data_urls": (), "allow_in_cluster_data_urls": False, "base_dir": None, "output_dir": None, "push_image": None,
        "docker_config": None, "plain_http": False, "push_retry_seconds": 3600.0, "metrics_host": "0.0.0.0",
        "metrics_port": 5000, "skip_memory_check": False, "dry_run": False,
    }  # fmt: skip
    assert options.model_source(TrainingConfig()) == "/workspace/tfs/weights"
    assert options.base == Path("/mnt")
    assert options.output(TrainingConfig()) == Path("/mnt/output")


def test_model_of_the_flag_precedes_that_of_the_file() -> None:
    config = TrainingConfig.model_validate({"ModelConfig": {"pretrained_model_name_or_path": "file"}})
    assert TuningOptions().model_source(config) == "file"
    assert TuningOptions(model="flag").model_source(config) == "flag"


@pytest.mark.parametrize(
    ("arguments", "environment", "field", "value"),
    [
        ([], {"DATA_URLS": "http://a http://b\nhttp://c"}, "data_urls", ("http://a", "http://b", "http://c")),
        ([], {"DATA_URLS": ' ["http://a b"]'}, "data_urls", ("http://a b",)),
        (["--data-urls", "http://x"], {"DATA_URLS": "http://a"}, "data_urls", ("http://x",)),
        ([], {"DATA_URLS": "  "}, "data_urls", ()),
        ([], {"KAITO_ALLOW_IN_CLUSTER_DATA_URLS": "true"}, "allow_in_cluster_data_urls", True),
        ([], {"KAITO_ALLOW_IN_CLUSTER_DATA_URLS": ""}, "allow_in_cluster_data_urls", False),
        (["--allow-in-cluster-data-urls=false"], {"KAITO_ALLOW_IN_CLUSTER_DATA_URLS": "true"},
         "allow_in_cluster_data_urls", False),
        ([], {"KAITO_METRICS_HOST": "::1"}, "metrics_host", "::1"),
        (["--metrics-host=::"], {"KAITO_METRICS_HOST": "::1"}, "metrics_host", "::"),
    ],
)  # fmt: skip
def test_flags_precede_variables(arguments: list[str], environment: dict[str, str], field: str, value: object) -> None:
    assert getattr(read_options(arguments, environment), field) == value


def test_limits_themselves_are_accepted() -> None:
    options = read_options(["--push-retry-seconds=0", "--metrics-port=-1"], {})
    assert (options.push_retry_seconds, options.metrics_port) == (0, -1)
    assert read_options(["--metrics-port=65535"], {}).metrics_port == 65535


def test_urls_that_are_not_json_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"^DATA_URLS: not a JSON list: "):
        read_options([], {"DATA_URLS": "[x"})


@pytest.mark.parametrize(
    "flag", ["--metrics-port=-2", "--metrics-port=65536", "--push-retry-seconds=-1", "--method=full"]
)
def test_values_outside_their_limits_are_rejected(flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag.partition("=")[0].replace("-", ".")):
        read_options([flag], {})


def test_output_of_the_operator_may_be_anywhere(tmp_path: Path) -> None:
    options = TuningOptions(base_dir=tmp_path, output_dir=Path("/elsewhere"))
    assert options.output(TrainingConfig()) == Path("/elsewhere")
    assert TuningOptions(base_dir=tmp_path, output_dir=Path("o")).output(TrainingConfig()) == tmp_path / "o"


def test_configuration_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^--config {tmp_path / 'x'}: .*No such file"):
        read_training_config(tmp_path / "x")
    with pytest.raises(ConfigurationError, match=r"method lora with QuantizationConfig"):
        TrainingConfig.model_validate({"QuantizationConfig": {"load_in_4bit": True}}).bits("lora")


# Files of a run.


def dataset(*examples: Example) -> Dataset:
    return Dataset(examples, (), (Path("f"),), ("text",), "text")


def test_fingerprint_depends_on_everything_that_determines_a_run() -> None:
    base = (TrainingConfig(), "qlora", "m", dataset(Example("a", "b")))
    other = TrainingConfig.model_validate({"LoraConfig": {"r": 9}})
    variants: list[Any] = [
        base,
        (other, *base[1:]),
        (base[0], "lora", *base[2:]),
        (*base[:2], "n", base[3]),
        (*base[:3], dataset(Example("a", "c"))),
        (*base[:3], Dataset((), (Example("a", "b"), Example("c")), (), (), "")),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)
    assert fingerprint(*variants[0]) == fingerprint(*variants[0])


def test_output_of_another_run_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "a" / "out"
    claim_output_directory(output, "one")
    (output / "checkpoint-5").mkdir()
    (output / "fine_tuning_completed.txt").write_text("x")
    claim_output_directory(output, "one")
    assert (output / "checkpoint-5").is_dir()
    assert (output / "fine_tuning_completed.txt").is_file()
    claim_output_directory(output, "two")
    assert [path.name for path in output.iterdir()] == ["run_fingerprint.txt"]
    assert (output / "run_fingerprint.txt").read_text() == "two"
    claim_output_directory(output, "two")


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors", "fine_tuning_completed.txt"])
def test_adapter_is_complete_with_all_files(tmp_path: Path, missing: str) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "fine_tuning_completed.txt"):
        (tmp_path / name).write_text("x")
    assert is_completed(tmp_path)
    (tmp_path / missing).unlink()
    assert not is_completed(tmp_path)


def test_newest_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for name, state in (("5", '{"global_step": 5}'), ("40", '{"global_step": 40}'), ("9", '{"global_step": 9}')):
        (tmp_path / f"checkpoint-{name}").mkdir()
        (tmp_path / f"checkpoint-{name}" / "trainer_state.json").write_text(state)
    for name, state in (("77", "{"), ("78", "{}"), ("79", "[]"), ("80", '{"global_step": null}')):
        (tmp_path / f"checkpoint-{name}").mkdir()
        (tmp_path / f"checkpoint-{name}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-81").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-40"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-40", "checkpoint-5", "checkpoint-9"]


def test_metadata_contains_the_facts_and_the_version(tmp_path: Path) -> None:
    from kaito_presets import __version__

    write_metadata(tmp_path, steps=3)
    document = json.loads((tmp_path / "kaito_adapter.json").read_text())
    assert document.pop("created").endswith("+00:00")
    assert document == {"made_by": f"kaito-tuning {__version__}", "steps": 3}
    assert (tmp_path / "fine_tuning_completed.txt").read_text().startswith("fine tuning completed at 20")


# Rows.


def mapped(record: dict[str, Any], **section: Any) -> Example:
    _, (example,) = map_rows(DatasetSection(**section), [Row("f", 0, record)], tuple(record))
    return example


@pytest.mark.parametrize(
    ("record", "section", "example"),
    [
        ({"text": "t"}, {}, Example("", "t")),
        ({"prompt": "p", "completion": "c"}, {}, Example("p", "c")),
        ({"question": "p", "answer": "c"}, {}, Example("p", "c")),
        ({"prompt": "p", "response": "c"}, {}, Example("p", "c")),
        ({"context": "p", "response": "c"}, {}, Example("p", "c")),
        ({"instruction": "i", "response": "c"}, {}, Example("i", "c")),
        ({"instruction": "i", "output": "c", "input": "x"}, {}, Example("i\n\nx", "c")),
        ({"instruction": "i", "output": "c", "context": "x", "input": "y"}, {}, Example("i\n\nx", "c")),
        ({"a": "p", "output": "c"}, {"context_column": "a"}, Example("p", "c")),
        ({"a": "p", "answer": "c"}, {"instruction_column": "a"}, Example("p", "c")),
        ({"a": "p", "b": "c", "text": "t"}, {"response_column": "b"}, Example("", "c")),
        ({"a": "p", "b": 3, "c": 1.5}, {"context_column": "b", "response_column": "c"}, Example("3", "1.5")),
        ({"messages": [{"role": "assistant", "content": "x"}]}, {}, Example(turns=(Turn("assistant", "x"),))),
        ({"m": '[{"role": "assistant", "content": "x"}]'}, {"messages_column": "m"},
         Example(turns=(Turn("assistant", "x"),))),
    ],
)  # fmt: skip
def test_columns_are_recognized(record: dict[str, Any], section: dict[str, Any], example: Example) -> None:
    assert mapped(record, **section) == example


WRONG_ROWS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"text": None}, {}, "column 'text': is null"),
    ({"text": True}, {}, "column 'text': expected text, found bool"),
    ({"text": ["x"]}, {}, "column 'text': expected text, found list"),
    ({"text": float("nan")}, {},
     "column 'text': expected text, found nan (some tools write it for a missing value)"),
    ({"text": " "}, {}, "column 'text': is empty, so there is nothing to learn"),
    ({"text": "a\ud800"}, {}, "column 'text': character 1 is half of a surrogate pair"),
    ({"prompt": " ", "completion": "c"}, {}, "column 'prompt': the prompt is empty"),
    ({"messages": None}, {}, "column 'messages': is null"),
    ({"messages": "x"}, {},
     "column 'messages': neither a list nor JSON: Expecting value: line 1 column 1 (char 0)"),
    ({"messages": {}}, {}, "column 'messages': expected a list of {role, content}, found dict"),
    ({"messages": [{"role": "user", "content": "x"}]}, {},
     "column 'messages': no message of the assistant to learn from"),
    ({"messages": [{"role": "user"}]}, {}, "column 'messages', message 0: expected a list of {role, content}"),
    ({"messages": [{"role": "", "content": "x"}]}, {}, "column 'messages', message 0: the role is not text"),
    ({"messages": [{"role": "user", "content": None}]}, {},
     "column 'messages', message 0 (user): content is null"),
    ({"messages": [{"role": "user", "content": 5}]}, {},
     "column 'messages', message 0 (user): expected text as content, found int"),
    ({"messages": [{"role": "user", "content": []}]}, {},
     "column 'messages', message 0 (user): content is a list of parts: write it as one text"),
    ({"messages": [{"role": "assistant", "content": " "}]}, {},
     "column 'messages', message 0 (assistant): content is empty, so there is nothing to learn"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, {},
     "column 'messages', message 0 (user): tool_calls cannot be trained on: remove the message or write it as text"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "section", "message"), WRONG_ROWS)
def test_row_that_cannot_be_trained_on_is_rejected(
    record: dict[str, Any], section: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        mapped(record, **section)
    assert str(raised.value) == f"1 of 1 records cannot be trained on: f, record 0, {message}"


def test_ten_wrong_rows_are_listed_and_the_rest_is_counted() -> None:
    def message(count: int) -> str:
        with pytest.raises(DataError) as raised:
            map_rows(DatasetSection(), [Row("f", index, {"text": None}) for index in range(count)], ("text",))
        return str(raised.value)

    assert message(10).count("is null") == 10
    assert "more" not in message(10)
    assert message(12).endswith("f, record 9, column 'text': is null; and 2 more")


def test_missing_columns_are_reported_with_those_that_exist() -> None:
    with pytest.raises(DataError, match=r"^the dataset has no column 'x'; its columns are: a, b$"):
        map_rows(DatasetSection(response_column="x"), [], ("a", "b"))
    with pytest.raises(DataError, match=r"or without context_column; the columns are: a, b$"):
        map_rows(DatasetSection(), [], ("a", "b"))


# Data files.


def test_split_has_at_least_one_example(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(10)))
    for share, train in ((1.0, 10), (0.85, 8), (0.55, 6), (0.01, 1)):
        section = DatasetSection(train_test_split=share, shuffle_dataset=False)
        found = load_dataset(section, tmp_path, tmp_path)
        assert (len(found.train), len(found.evaluate)) == (train, 10 - train)
        assert [example.completion for example in (*found.train, *found.evaluate)] == [*"0123456789"]
    assert (found.shape, found.columns, found.files) == ("text", ("text",), (tmp_path / "a.jsonl",))


def test_files_are_found_by_their_suffix(tmp_path: Path) -> None:
    for name in ("b.JSONL", "sub/a.ndjson.gz", ".hidden.jsonl", "README.md", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    names = [path.name for path in find_files(DatasetSection(), tmp_path, tmp_path)]
    assert names == ["b.JSONL", "a.ndjson.gz"]


def test_configured_format_applies_to_files_without_a_known_suffix(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b", "c.csv"):
        (tmp_path / name).write_text("")
    section = DatasetSection(dataset_extension="jsonl")
    assert [path.name for path in find_files(section, tmp_path, tmp_path)] == ["a.jsonl", "b"]
    with pytest.raises(DataError) as raised:
        find_files(DatasetSection(), tmp_path, tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} contains files of several formats (csv, jsonl); set DatasetConfig.dataset_extension"
    )


def test_missing_data_is_reported_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^data directory {tmp_path / 'x'} does not exist$"):
        find_files(DatasetSection(), tmp_path / "x", tmp_path)
    message = rf"^no data file in {tmp_path} \(found %s\); known formats: arrow, csv, json, jsonl, parquet$"
    with pytest.raises(DataError, match=message % "nothing"):
        find_files(DatasetSection(), tmp_path, tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=message % r"a\.txt"):
        find_files(DatasetSection(), tmp_path, tmp_path)


def test_configured_path_must_be_a_file_below_the_base(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    assert find_files(DatasetSection(dataset_path="f"), tmp_path, tmp_path) == [tmp_path / "f"]
    for path, words in (("../f", "must be below"), ("g", "does not exist"), (".", "must be below")):
        with pytest.raises(DataError, match=words):
            find_files(DatasetSection(dataset_path=path), tmp_path, tmp_path)


JSON_FILES: list[tuple[str, list[dict[str, Any]]]] = [
    ("", []),
    (' [{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
    ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    ('{\n"a": 1\n}', [{"a": 1}]),
    ('{"data": [{"a": 1}], "version": 3}', [{"a": 1}]),
    ('{"data": [], "version": 3}', [{"data": [], "version": 3}]),
    ('{"a": [{"x": 1}], "b": [{"x": 2}]}', [{"a": [{"x": 1}], "b": [{"x": 2}]}]),
    ('{"c": [{"role": "user", "content": "x"}]}', [{"c": [{"role": "user", "content": "x"}]}]),
    ('{"c": [{"from": "human", "value": "x"}]}', [{"c": [{"from": "human", "value": "x"}]}]),
    ('{"text": "t", "tags": [{"a": 1}]}', [{"text": "t", "tags": [{"a": 1}]}]),
    ('{"c": [1, {"a": 1}]}', [{"c": [1, {"a": 1}]}]),
]


@pytest.mark.parametrize(("text", "records"), JSON_FILES)
def test_json_is_read_as_records(tmp_path: Path, text: str, records: list[dict[str, Any]]) -> None:
    (tmp_path / "f").write_text(text)
    assert read_file(tmp_path / "f", "json") == records


def test_field_of_a_table_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text\n" + "x" * 200_000 + "\n")
    assert read_file(tmp_path / "f", "csv") == [{"text": "x" * 200_000}]


def test_messages_of_weight_one_are_learned() -> None:
    record = {"messages": [{"role": "assistant", "content": "x", "weight": 1}]}
    assert mapped(record) == Example(turns=(Turn("assistant", "x"),))


@pytest.mark.parametrize(
    ("text", "file_format", "message"),
    [
        ("[1]", "json", "f cannot be read as json: expected objects, found int"),
        ("[null]", "json", "f cannot be read as json: expected objects, found null"),
        ('{"a": 1}\nx', "jsonl", "f cannot be read as jsonl: line 2: Expecting value: line 1 column 1 (char 0)"),
        ("a,b\n1\n", "csv", "f cannot be read as csv: record 0 (line 2) does not have the 2 fields of the header"),
        (
            "a,b\n1,2\n1,2,3\n",
            "csv",
            "f cannot be read as csv: record 1 (line 3) does not have the 2 fields of the header",
        ),
    ],
)
def test_wrong_file_is_rejected_with_the_place(tmp_path: Path, text: str, file_format: str, message: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(DataError) as raised:
        read_file(tmp_path / "f", file_format)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["http://a/x.json"], ["x.json"]),
        (["http://a/b/x%20y.json?token=1#f"], ["x y.json"]),
        (["http://a/", "http://a/b/"], ["data", "b"]),
        (["http://a/.hidden"], ["hidden"]),
        (["http://a/..%2F..%2Fetc"], ["etc"]),
    ],
)
def test_file_name_is_the_last_segment_of_the_path(urls: list[str], names: list[str]) -> None:
    assert file_names(urls) == names


def test_equal_file_names_get_a_digest() -> None:
    urls = ["http://a/x", "http://b/x", "http://a/y"]
    digests = [hashlib.sha256(url.encode()).hexdigest()[:8] for url in urls]
    assert file_names(urls) == [f"{digests[0]}-x", f"{digests[1]}-x", "y"]


@pytest.mark.parametrize("url", ["ftp://a/x", "file:///x", "http:///x", "x"])
def test_only_http_urls_are_accepted(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        file_names([url])
    assert str(raised.value) == f"data URL {url!r}: only http and https URLs can be downloaded"


# Progress.


def test_report_is_logged_and_served(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress()
    progress.update(Report("training", 3, 10, 0.5, loss=1.5, examples=4))
    line = caplog.messages[-1]
    assert line.startswith("KAITO_TUNING_PROGRESS {")
    assert json.loads(line.removeprefix("KAITO_TUNING_PROGRESS ")) == {
        "phase": "training", "step": 3, "total_steps": 10, "epoch": 0.5, "loss": 1.5, "examples": 4,
    }  # fmt: skip
    progress.set_phase("saving")
    assert (progress.report.phase, progress.report.message) == ("saving", "")
    progress.set_phase("pushing", "r.io/x")
    assert (progress.report.step, progress.report.message) == (3, "r.io/x")
    port = progress.serve(0, "127.0.0.1")
    try:

        def get(path: str) -> tuple[str, bytes]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return response.headers["Content-Type"], response.read()

        assert get("/healthz") == get("/health") == ("application/json", b'{"status": "Healthy"}')
        content_type, body = get("/progress?x=1")
        assert content_type == "application/json"
        assert json.loads(body)["phase"] == "pushing"
        content_type, body = get("/metrics")
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        for name, value in (("step", 3), ("total_steps", 10), ("epoch", 0.5), ("loss", 1.5), ("examples", 4),
                            ("eval_loss", 0), ("learning_rate", 0), ("eta_seconds", 0), ("completed", 1)):  # fmt: skip
            assert f"kaito_tuning_{name} {float(value)}" in body.decode().splitlines()
        for name, text in (("epoch", "Passes over the data."), ("examples", "Examples trained on.")):
            assert f"# HELP kaito_tuning_{name} {text}" in body.decode().splitlines()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/other")
    finally:
        progress.close()
    progress.close()


@pytest.mark.parametrize(
    ("phase", "completed"), [("saving", 0), ("training", 0), ("pushing", 1), ("completed", 1), ("failed", 0)]
)
def test_run_is_completed_when_the_adapter_is_written(phase: str, completed: int) -> None:
    progress = Progress()
    progress.set_phase(phase)
    port = progress.serve(0, "127.0.0.1")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        assert f"kaito_tuning_completed {float(completed)}" in response.read().decode().splitlines()
    progress.close()


def test_remaining_time_follows_from_the_steps_of_this_process() -> None:
    now = [100.0]
    rate = TrainingRate(first_step=10, clock=lambda: now[0])
    now[0] = 104.0
    assert rate.eta_seconds(10, 20) is None
    assert rate.eta_seconds(12, 20) == 16.0
    assert rate.eta_seconds(20, 20) == 0.0


# The program.


def run_main(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(sys, "argv", ["kaito-tuning", *flags])
    try:
        return program.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PushError("push"), 6, "push"),
        (DataError("data"), 3, "data"),
        (ZeroDivisionError("zero"), 1, "ZeroDivisionError: zero"),
    ],
)
def test_failure_is_the_exit_code_and_the_termination_message(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    message: str,
) -> None:
    reports: list[Report] = []

    def fail(_: object, __: object, progress: Progress, ___: object) -> bool:
        reports.append(progress.report)
        monkeypatch.setattr(progress, "close", lambda: reports.append(progress.report))
        raise error

    termination_log = tmp_path / "termination-log"
    termination_log.write_text("")
    monkeypatch.setattr(program, "TERMINATION_LOG", termination_log)
    monkeypatch.setattr(program, "run", fail)
    assert run_main(monkeypatch, "--metrics-port=-1") == code
    assert capsys.readouterr().err.splitlines()[-1] == f"kaito-tuning: {message}"
    assert termination_log.read_text() == message
    assert [(report.phase, report.message) for report in reports] == [("starting", ""), ("failed", str(error))]


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, 143)])
def test_exit_code_of_a_run(monkeypatch: pytest.MonkeyPatch, finished: bool, code: int) -> None:
    seen: list[Any] = []

    def run(options: TuningOptions, _: object, __: object, stop: threading.Event) -> bool:
        seen.append(options.method)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        return finished

    monkeypatch.setattr(program, "run", run)
    assert run_main(monkeypatch, "--metrics-port=-1", "--method=lora") == code
    assert seen == ["lora"]


def test_dry_run_prints_the_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    config = tmp_path / "c.yaml"
    config.write_text("training_config: {DatasetConfig: {train_test_split: 0.5}}")
    assert run_main(monkeypatch, "--dry-run", f"--data-dir={data}", f"--config={config}", "--model=m") == 0
    plan = json.load(io.StringIO(capsys.readouterr().out))
    assert plan.pop("config")["DatasetConfig"]["train_test_split"] == 0.5
    assert plan == {
        "model": "m", "method": "qlora", "bits": 4, "output": str(tmp_path / "output"), "image": None,
        "files": [str(data / "a.jsonl")], "columns": ["text"], "shape": "text",
        "examples": {"train": 1, "evaluate": 1},
    }  # fmt: skip
