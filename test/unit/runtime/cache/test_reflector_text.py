"""Bytes to lines, and values and cuts in JSON text."""

import json
import random
from typing import Any

import pytest

from kaito.runtime.cache.entry import Undecodable, make_entry, version_number
from kaito.runtime.cache.jsontext import (
    LineSplitter,
    LineTooLong,
    cut,
    cuts,
    fields_of,
    parse_path,
    same_value,
    value_text,
)


def lines(*chunks: bytes) -> list[bytes]:
    splitter = LineSplitter()
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    return found + ([splitter.rest()] if splitter.rest() else [])


@pytest.mark.conformance(23)
def test_two_lines_in_one_chunk_and_one_line_in_many() -> None:
    assert lines(b"one\ntwo\n") == [b"one", b"two"]
    assert lines(b"o", b"n", b"e\ntw", b"o\n") == [b"one", b"two"]
    assert lines(b"one\n", b"\n\r\n", b"two") == [b"one", b"two"]
    assert lines(b"one", b"\n") == [b"one"]


@pytest.mark.conformance(23)
def test_a_character_on_a_chunk_boundary_stays_whole() -> None:
    text = json.dumps({"name": "größer 漢字 🚀"}, ensure_ascii=False).encode() + b"\n"
    for boundary in range(len(text)):
        (line,) = lines(text[:boundary], text[boundary:])
        assert json.loads(line)["name"] == "größer 漢字 🚀"


@pytest.mark.conformance(23)
def test_a_line_of_five_mebibytes_passes_and_one_above_the_limit_does_not() -> None:
    line = b"x" * (5 * 1024 * 1024)
    chunks = [(line + b"\n")[start : start + 65536] for start in range(0, len(line) + 1, 65536)]
    assert lines(*chunks) == [line]
    small = LineSplitter(limit=10)
    with pytest.raises(LineTooLong, match="exceeds 10 bytes"):
        list(small.feed(b"12345678901"))
    with pytest.raises(LineTooLong):
        list(LineSplitter(limit=10).feed(b"12345678901\n"))


@pytest.mark.conformance(23)
def test_any_chunking_gives_the_same_lines() -> None:
    rng = random.Random(5)
    expected = [bytes(rng.choices(b"abc{}", k=rng.randrange(1, 200))) for _ in range(200)]
    stream = b"\n".join(expected) + b"\n"
    for _ in range(50):
        splitter = LineSplitter()
        found: list[bytes] = []
        position = 0
        while position < len(stream):
            size = rng.randrange(1, 400)
            found.extend(splitter.feed(stream[position : position + size]))
            position += size
        assert found == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("status.readyReplicas", ("status", "readyReplicas")),
        ("metadata.annotations[example.com/key]", ("metadata", "annotations", "example.com/key")),
        ("spec.containers[*].env", ("spec", "containers", "*", "env")),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", "a[b", "a]b", "."])
def test_paths_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a field path"):
        parse_path(text)


def dropped(obj: Any, *paths: str) -> Any:
    fields = fields_of(json.dumps(obj).encode())
    cut(fields, cuts(tuple(parse_path(path) for path in paths)))
    return {name: json.loads(bytes(value)) for name, value in fields.items()}


def test_cutting() -> None:
    obj = {"metadata": {"managedFields": [1], "name": "a"}, "spec": {"list": [{"env": 1, "name": "x"}, 3], "n": None}}
    assert dropped(obj, "metadata.managedFields") == {"metadata": {"name": "a"}, "spec": obj["spec"]}
    assert dropped(obj, "spec.list[*].env")["spec"] == {"list": [{"name": "x"}, 3], "n": None}
    assert dropped(obj, "spec", "spec.n") == {"metadata": obj["metadata"]}
    assert dropped(obj, "spec.n.deeper", "absent.path") == obj
    assert dropped({"data": {"a": 1, "b": 2}}, "data[*]") == {"data": {}}


def test_values_by_path() -> None:
    text = b'{"status": {"readyReplicas": 3, "list": [{"a": "x"}]}, "none": null}'
    assert value_text(text, ("status", "readyReplicas")) == b"3"
    assert value_text(text, ("status", "list", "0", "a")) == b'"x"'
    assert value_text(text, ("status", "list", "7")) is None
    assert value_text(text, ("status", "readyReplicas", "deeper")) is None
    assert value_text(text, ("absent",)) is None


def test_values_are_the_same_when_they_mean_the_same() -> None:
    assert same_value(b'{"a":1,"b":2}', b'{"b": 2, "a": 1}')
    assert same_value(None, b"null")
    assert not same_value(b"1", b'"1"')
    assert not same_value(None, b"0")


def test_an_entry_keeps_the_object_but_for_identity_and_dropped_paths() -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "12",
            "generation": 3,
            "deletionTimestamp": "2030-01-01T00:00:00Z",
            "labels": {"app": "web"},
            "managedFields": [{"manager": "x"}],
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "o", "controller": True}
            ],
        },
        "spec": {"unknown": [1, 2]},
    }
    entry = make_entry(json.dumps(obj).encode(), cuts((("metadata", "managedFields"),)))
    stored = json.loads(entry.text)
    assert set(stored) == {"metadata", "spec"}
    assert "managedFields" not in stored["metadata"]
    assert stored["spec"] == obj["spec"]
    header = entry.header
    assert (str(header.key), header.uid, header.version, header.generation) == ("ns/a", "u", 12, 3)
    assert header.deleting
    assert header.labels == {"app": "web"}
    assert [(owner.group, owner.kind, owner.uid, owner.controller) for owner in header.owners] == [
        ("apps", "Deployment", "o", True)
    ]


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"metadata":{}}', b'{"metadata":{"name":3}}', b"\xff", b"{"])
def test_what_has_no_name_is_no_object(text: bytes) -> None:
    with pytest.raises(Undecodable, match="not an object with metadata"):
        make_entry(text, {})


def test_versions_that_are_numbers() -> None:
    assert version_number("123") == 123
    assert [version_number(text) for text in ("", "abc", "1.2", "-1", "²")] == [-1] * 5
