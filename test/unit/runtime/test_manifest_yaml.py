"""YAML of manifests is read as kubectl reads it."""

import pytest
import yaml

from kaito.runtime.manifest_yaml import load_documents


def test_only_the_types_of_json_are_read() -> None:
    text = "[true, False, on, yes, =, 2024-01-01, 1, 1.5, null, ~, 'true', truex, falsehood]"
    (found,) = load_documents(text)
    assert found == [
        True, False, "on", "yes", "=", "2024-01-01", 1, 1.5, None, None, "true", "truex", "falsehood",
    ]  # fmt: skip
    assert [*load_documents("a: 1\n---\nb: 2")] == [{"a": 1}, {"b": 2}]


def test_tags_of_python_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        list(load_documents("!!python/object/apply:os.system [id]"))
