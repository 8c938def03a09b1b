"""YAML of manifests is read as kubectl reads it."""

import pytest
import yaml

from kaito.runtime.manifest_yaml import load_documents


def test_only_the_types_of_json_are_read() -> None:
    text = "[true, False, on, yes, =, 2024-01-01, 1, 1.5, null, ~, 'true', truex, falsehood]"
    (found,) = load_documents(text)
    assert found == [
        True, False, True, True, "=", "2024-01-01", 1, 1.5, None, None, "true", "truex", "falsehood",
    ]  # fmt: skip
    assert [*load_documents("a: 1\n---\nb: 2")] == [{"a": 1}, {"b": 2}]


PLAIN: dict[str, object] = {
    "ON": True, "No": False, "off": False, "nO": "nO", "oFF": "oFF", "tRUE": "tRUE",
    "~": None, "null": None, "Null": None, "nil": "nil", "": None, "12:30": "12:30", "190:20:30.15": "190:20:30.15",
    "1e3": 1000, "1E+3": 1000, "12e03": 12000, "685.230_15e+03": 685230.15, ".5": 0.5, "5.": 5, "+.5": 0.5,
    "1_0.5": 10.5, "1e": "1e", "e3": "e3", ".e3": ".e3", ".": ".", "+": "+", "+1": 1, "-1": -1, "-0": 0, "00": 0,
    "08": 8, "017": 15, "0o17": 15, "0o8": "0o8",
    "-0o7": -7, "0x1f": 31, "-0x1F": -31, "0b11": 3, "+0b1": 1, "1_0": 10, "1__0": 10, "_1": "_1",
}  # fmt: skip
"""Plain text and what kubectl 1.32 reads: `kubectl annotate --local -f FILE -o json a=b`."""


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_has_the_type_that_kubectl_gives_it(text: str) -> None:
    (found,) = load_documents(f"a: {text}")
    assert found == {"a": PLAIN[text]}
    assert type(found["a"]) is type(PLAIN[text]) or (isinstance(found["a"], float) and found["a"].is_integer())


def test_a_merge_is_read() -> None:
    assert [*load_documents("a: &a {b: 1}\nc: {<<: *a}")] == [{"a": {"b": 1}, "c": {"b": 1}}]


def test_tags_of_python_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        list(load_documents("!!python/object/apply:os.system [id]"))
