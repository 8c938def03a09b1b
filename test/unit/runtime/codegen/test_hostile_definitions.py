"""Untrusted definitions: nothing in them becomes code, and malformed ones are errors with a remedy."""

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from kaito.runtime.codegen import DefinitionError, KindDefinition, module_source, read_definitions
from kaito.runtime.codegen.command import main

MARK = "INJECTED"
PAYLOADS = (
    '"""\nINJECTED = 1\n"""',
    "'''\nINJECTED = 1\n'''",
    '\\"""\nINJECTED = 1\n\\"""',
    '"' * 7 + "\nINJECTED = 1\n" + '"' * 7,
    'a"); INJECTED = 1; ("',
    'a", default=exec("INJECTED = 1"))  # ',
    "a\nINJECTED = 1",
    "a\rINJECTED = 1",
    "a\u2028INJECTED = 1",
    "a\x0cINJECTED = 1",
    "a\x00INJECTED = 1",
    "ends with a backslash \\",
    'ends with a quote "',
    'ends with three """',
    "{INJECTED}",
    "\ud800 a lone surrogate",
    "# INJECTED = 1",
    "a\n\n\n    INJECTED = 1\n",
    "x" * 500 + '"""' + "INJECTED = 1",
)


@pytest.fixture
def load() -> Iterator[Any]:
    loaded: list[str] = []

    def run(text: str) -> ModuleType:
        module = ModuleType(f"hostile_{len(loaded)}")
        sys.modules[module.__name__] = module
        loaded.append(module.__name__)
        exec(compile(text.encode(), module.__name__, "exec", flags=0, dont_inherit=True), vars(module))
        return module

    yield run
    for name in loaded:
        del sys.modules[name]


def kind(schema: Mapping[str, Any], **names: Any) -> KindDefinition:
    given: dict[str, Any] = {
        "group": "example.com",
        "version": "v1",
        "kind": "Thing",
        "plural": "things",
        "namespaced": True,
        **names,
    }
    return KindDefinition(schema=schema, **given)


def spec(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def only_declarations(text: str) -> bool:
    """Whether a module contains imports and classes, and these only docstrings and fields with harmless values."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.Expr):
                    assert isinstance(statement.value, ast.Constant)
                else:
                    assert isinstance(statement, ast.AnnAssign)
                    calls = [each for each in ast.walk(statement) if isinstance(each, ast.Call)]
                    for call in calls:
                        assert isinstance(call.func, ast.Name)
                        assert (
                            call.func.id == "Field" or call.func.id.endswith("Status") or call.func.id.endswith("Spec")
                        )
        elif isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant)
        else:
            assert isinstance(node, ast.ImportFrom)
    return True


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_texts_and_names_of_properties_never_become_code(payload: str, load: Any) -> None:
    leaf = {"type": "string", "description": payload, "enum": [payload, "b"], "default": payload}
    inner = {"type": "object", "description": payload, "properties": {payload: leaf, "a": leaf}}
    schema = {"type": "object", "description": payload, **spec(**{payload: leaf, "inner": inner, "list": {
        "type": "array", "description": payload, "items": inner}})}  # fmt: skip
    text = module_source([kind(schema)])
    text.encode()  # a file can contain it
    assert only_declarations(text)
    module = load(text)
    assert not hasattr(module, MARK)
    read = module.Thing.from_json(json.dumps({"spec": {"inner": {"a": "x"}, "list": [{"a": "y"}]}}))
    assert read.to_dict()["spec"] == {"inner": {"a": "x"}, "list": [{"a": "y"}]}
    if "\ud800" not in payload:
        sent = {"spec": {payload: "value", "inner": {payload: "z"}}}
        assert module.Thing.model_validate(sent).to_dict()["spec"] == sent["spec"]


@pytest.mark.parametrize("field", ["group", "version", "kind", "plural"])
@pytest.mark.parametrize("payload", [*PAYLOADS, "", "a b", "../a", "É", 3, None, ["a"]])
def test_names_that_the_api_server_rejects_are_rejected(field: str, payload: Any) -> None:
    if field == "group" and payload == "":
        assert kind({}, group="").api_version == "v1"
        return
    with pytest.raises(DefinitionError, match="is not valid"):
        kind({}, **{field: payload})


def test_names_of_files_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"kind": 'Thing"""\nINJECTED = 1\n"""', "plural": "things"}
    versions = [{"name": "v1", "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    definition = {"kind": "CustomResourceDefinition", "spec": {"group": "a.b", "names": names, "versions": versions}}
    file = tmp_path / "crd.yaml"
    file.write_text(yaml.safe_dump(definition))
    assert main(["models", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "kind 'Thing" in captured.err


def test_names_that_python_uses_are_fields(load: Any) -> None:
    names = ["class", "def", "None", "True", "self", "cls", "int", "str", "list", "dict", "float", "bool", "field"]
    names += ["copy", "json", "schema", "model_config", "model_fields", "model_dump", "construct", "validate", "evolve"]
    names += ["__init__", "__class__", "_private", "print", "type", "match", "lambda", "Any", "Model", "Field", "a-b"]
    names += ["a_b", "aB", "a.b", "A-B", "ab", "名前", "", "1", "-", "metadata", "to_dict", "from_json"]
    schema = spec(**{name: {"type": "string"} for name in names})
    module = load(module_source([kind(schema)]))
    values = {name: f"value of {name}" for name in names}
    read = module.Thing.model_validate({"spec": values})
    assert read.to_dict()["spec"] == values
    assert read.spec.model_extra == {"": "value of "}
    assert read.spec.evolve().to_dict() == values


def test_kinds_with_names_of_the_module_do_not_hide_them(load: Any) -> None:
    names = ["Model", "Resource", "Field", "Any", "Condition", "Quantity", "None", "Thing", "ThingSpec"]
    schema = spec(size={"x-kubernetes-int-or-string": True, "pattern": "KMGTPE"}, any={}, **{"x-y": {"type": "string"}})
    module = load(module_source([kind(schema, kind=name, plural=f"{name.lower()}s") for name in names]))
    values: list[Any] = [getattr(module, name) for name in dir(module)]
    classes: dict[str, Any] = {each.kind: each for each in values if hasattr(each, "plural")}
    for name in names:
        read = classes[name].model_validate({"spec": {"size": "1Gi", "any": [1], "x-y": "z"}})
        assert read.to_dict()["spec"] == {"size": "1Gi", "any": [1], "x-y": "z"}


def test_a_schema_that_contains_itself_is_an_error() -> None:
    loop: dict[str, Any] = {"type": "object", "properties": {}}
    loop["properties"]["self"] = loop
    with pytest.raises(DefinitionError, match="contains itself or is nested too deeply"):
        module_source([kind(loop)])
    text = """
kind: CustomResourceDefinition
spec:
  group: a.b
  names: {kind: Thing, plural: things}
  versions: [{name: v1, storage: true, schema: {openAPIV3Schema: &a {type: object, properties: {self: *a}}}}]
"""
    with pytest.raises(DefinitionError):
        module_source(read_definitions([("loop.yaml", text)]))


def test_a_schema_that_is_nested_too_deeply_is_an_error() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(DefinitionError, match="nested too deeply"):
        module_source([kind(deep)])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "enum": 5},
        {"type": "string", "enum": {"a": 1}},
        {"type": "string", "enum": [None, 1, ["a"]]},
        {"type": "string", "description": 5},
        {"type": "string", "description": {"a": 1}},
        {"type": ["string", "null"]},
        {"type": 5},
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": "string"}},
        {"type": "object", "required": {"a": 1}, "properties": {"a": {}}},
        {"type": "object", "required": [1, None, ["a"]], "properties": {"a": {}}},
        {"type": "array", "items": [{"type": "string"}]},
        {"type": "array", "items": "string"},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": "string"},
        {"type": "integer", "default": "text"},
        {"type": "boolean", "default": {"a": []}},
        {"x-kubernetes-int-or-string": "yes", "pattern": 5},
        {"nullable": True},
        {"type": "object", "nullable": True, "properties": {"a": {"type": "integer", "nullable": True}}},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"$ref": "#/definitions/a"},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_odd_schemas_give_a_module_that_reads_anything_of_their_type(schema: Any, load: Any) -> None:
    text = module_source([kind(spec(odd=schema, plain={"type": "integer"}))])
    assert only_declarations(text)
    read = load(text).Thing.model_validate({"spec": {"plain": 3}})
    assert read.to_dict()["spec"] == {"plain": 3}


def test_a_huge_enumeration_is_cut_in_the_docstring() -> None:
    text = module_source([kind(spec(size={"type": "string", "enum": [f"size-{n}" for n in range(20_000)]}))])
    assert "and 19950 more" in " ".join(text.split())
    assert len(text) < 3000


def test_files_and_cluster_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 1
    assert main(["models", "a.yaml", "--cluster"]) == 1
    assert capsys.readouterr().err.count("name files with definitions, or --cluster, but not both") == 2


def test_a_missing_kubeconfig_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--cluster", "--kubeconfig", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
