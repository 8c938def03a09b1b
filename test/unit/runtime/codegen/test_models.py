"""Models that are generated from definitions: their types, and that nothing is lost in a read and a write."""

import inspect
import json
import random
import sys
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from kaito.runtime.codegen import DefinitionError, module_source, read_definitions
from kaito.runtime.codegen.command import main
from kaito.runtime.meta import Condition, Model, ObjectMeta, Quantity, Resource

ROOT = Path(__file__).resolve().parents[4]
DEFINITIONS = sorted((ROOT / "config" / "crd").glob("*_*.yaml"))

NOTHING: Mapping[str, Any] = {}
QUANTITY = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
CONDITIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": {"type": "string"},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {"type": "string"},
            "message": {"type": "string"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
    },
}
SPEC: dict[str, Any] = {
    "type": "object",
    "description": 'What is wanted.\n\nA path C:\\new, and """quotes""".',
    "required": ["size", "mode", "from"],
    "properties": {
        "size": {"type": "integer", "description": "Number of members."},
        "mode": {"type": "string", "enum": ["", "fast", "safe"], "default": "safe"},
        "from": {"type": "string"},
        "copy": {"type": "string"},
        "podIP": {"type": "string"},
        "clusterIPs": {"type": "array", "items": {"type": "string"}},
        "x-odd.name/1": {"type": "string"},
        "3d": {"type": "boolean"},
        "HTTPProxy": {"type": "string"},
        "ratio": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": True},
        "memory": {**QUANTITY, "pattern": "^([KMGTPE]i)?$"},
        "created": {"type": "string", "format": "date-time", "nullable": True},
        "anything": {"x-kubernetes-preserve-unknown-fields": True},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "template": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "policies": {"type": "array", "items": {"type": "object", "properties": {"weight": {"type": "integer"}}}},
        "zones": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": {"weight": {"type": "integer"}}},
        },
        "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "untyped": {"type": "array"},
    },
}
STATUS = {"type": "object", "properties": {"conditions": CONDITIONS, "ready": {"type": "boolean"}}}


def definition(kind: str = "Cache", **changes: Any) -> dict[str, Any]:
    schema = {"type": "object", "description": "A cache.", "properties": {"spec": SPEC, "status": STATUS}}
    versions = [
        {"name": "v1alpha1", "served": True, "storage": False, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
    ]
    spec = {"group": "example.com", "names": {"kind": kind, "plural": f"{kind.lower()}s"}, "versions": versions}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec | changes}


def source(*manifests: Mapping[str, Any], **options: Any) -> str:
    return module_source(read_definitions([("crds.yaml", yaml.safe_dump_all(manifests))], **options))


@pytest.fixture
def load() -> Iterator[Any]:
    """Executes a generated module."""
    loaded: list[str] = []

    def run(text: str) -> ModuleType:
        module = ModuleType(f"generated_{len(loaded)}")
        sys.modules[module.__name__] = module
        loaded.append(module.__name__)
        exec(compile(text, module.__name__, "exec", flags=0, dont_inherit=True), vars(module))
        return module

    yield run
    for name in loaded:
        del sys.modules[name]


def test_fields_have_the_types_of_their_schemas() -> None:
    lines = source(definition()).splitlines()
    declared = {line.strip() for line in lines if line.startswith("    ") and ": " in line}
    assert declared >= {
        "size: int",
        "mode: str | None = None",
        "from_: str",
        "copy_: str | None = None",
        "pod_ip: str | None = None",
        "cluster_ips: list[str] = []",
        'x_odd_name_1: str | None = Field(default=None, alias="x-odd.name/1")',
        'n3d: bool | None = Field(default=None, alias="3d")',
        'http_proxy: str | None = Field(default=None, alias="HTTPProxy")',
        "ratio: int | float | None = None",
        "port: IntOrString | None = None",
        "memory: Quantity | None = None",
        "created: Timestamp | None = None",
        "anything: Any = None",
        "raw: dict[str, Any] = {}",
        "template: dict[str, Any] = {}",
        "labels: dict[str, str] = {}",
        "policies: list[CacheSpecPolicy] = []",
        "zones: dict[str, CacheSpecPolicy] = {}",
        "matrix: list[list[int]] = []",
        "untyped: list[Any] = []",
        "conditions: list[Condition] = []",
        "spec: CacheSpec | None = None",
        "status: CacheStatus = CacheStatus()",
    }
    assert 'class Cache(Resource, api="example.com/v1", kind="Cache", plural="caches"):' in lines
    assert "    One of `fast`, `safe`." in lines or '    """One of `fast`, `safe`."""' in lines
    assert max(map(len, lines)) <= 120


def test_a_generated_model_is_used_like_a_built_in_kind(load: Any) -> None:
    cache: Any = load(source(definition())).Cache
    found = cache.from_json(
        b'{"metadata": {"name": "a"}, "spec": {"size": 3, "mode": "fast", "from": "b", "memory": "1Gi", "later": 1}}'
    )
    assert (found.spec.size, found.spec.from_, found.status.ready) == (3, "b", None)
    assert found.spec.memory == Quantity("1024Mi")
    assert found.spec.policies == []
    changed = found.evolve(spec=found.spec.evolve(size=4))
    assert changed.to_dict()["spec"] == {"size": 4, "mode": "fast", "from": "b", "memory": "1Gi", "later": 1}
    text = inspect.cleandoc(found.spec.__doc__)  # Python 3.13 removes the indentation
    assert text == "What is wanted.\n\nA path C:\\new, and '''quotes'''."
    written = cache(metadata=ObjectMeta(name="a"), spec=type(found.spec)(size=1, **{"from": "x", "3d": True}))
    assert written.to_dict()["spec"] == {"size": 1, "from": "x", "3d": True}
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert isinstance(cache.model_validate({"status": status}).status.conditions[0], Condition)


def instance(schema: Mapping[str, Any], chance: random.Random, name: str = "") -> Any:
    """A random value that the schema allows."""
    if schema.get("x-kubernetes-int-or-string"):
        return "1Gi" if "KMGTPE" in str(schema.get("pattern")) else chance.choice([5, "25%", "http"])
    match schema.get("type"):
        case "string" if "enum" in schema:
            return chance.choice(schema["enum"])
        case "string" if schema.get("format") == "date-time":
            # metav1.Time, the type of conditions, has whole seconds.
            late = ["2024-05-06T07:08:09.123456Z"] if name != "lastTransitionTime" else []
            return chance.choice(["2024-05-06T07:08:09Z", *late])
        case "string":
            return chance.choice(["", "a", 'x\n"y"', "ü"])
        case "integer":
            return chance.randrange(-5, 2**40)
        case "number":
            return chance.choice([1, 1.5, -0.25, 10**15])
        case "boolean":
            return chance.random() < 0.5
        case "array":
            return [instance(schema.get("items") or NOTHING, chance) for _ in range(chance.randrange(3))]
        case "object" if schema.get("properties"):
            required = schema.get("required", [])
            found = {
                key: instance(each, chance, key)
                for key, each in schema["properties"].items()
                if key in required or chance.random() < 0.5
            }
            return found | ({"addedLater": {"a": [1]}} if chance.random() < 0.2 else {})
        case "object":
            values: Mapping[str, Any] = schema.get("additionalProperties") or NOTHING
            return {f"k{number}/x.y": instance(values, chance) for number in range(chance.randrange(3))}
        case _:
            return chance.choice([1, "x", {"a": [1, {"b": 2}]}, [True]])


@pytest.mark.parametrize("path", [None, *DEFINITIONS], ids=lambda path: path.stem if path else "cache")
def test_a_read_and_a_write_lose_nothing(load: Any, path: Path | None) -> None:
    text = path.read_text() if path else yaml.safe_dump(definition())
    definitions = read_definitions([("crd", text)])
    module = load(module_source(definitions))
    for each in definitions:
        kind: type[Resource] = getattr(module, each.kind)
        for seed in range(25):
            chance = random.Random(seed)
            properties = {key: value for key, value in each.schema["properties"].items() if key != "metadata"}
            identity = {"apiVersion": each.api_version, "kind": each.kind, "metadata": {"name": "x"}}
            given = instance({**each.schema, "properties": properties}, chance) | identity
            assert kind.from_json(json.dumps(given)).to_dict() == given


def test_the_source_does_not_depend_on_the_order_of_the_files() -> None:
    texts = [(str(path), path.read_text()) for path in DEFINITIONS]
    first = module_source(read_definitions(texts))
    assert first == module_source(read_definitions(list(reversed(texts))))
    listed = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(text) for _, text in texts]}
    assert first == module_source(read_definitions([("list", json.dumps(listed))]))


def test_names_that_collide_are_changed(load: Any) -> None:
    nested = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    properties = {"spec": nested, "specSpec": {"type": "object", "properties": {"b": {"type": "string"}}}}
    manifest = definition("Model")
    manifest["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"] = properties
    module = load(source(manifest))
    assert module.Model is Model
    found = module.ModelKind.model_validate({"spec": {"spec": {"a": "x"}}, "specSpec": {"b": "y"}})
    assert (found.spec.spec.a, found.spec_spec.b) == ("x", "y")


def test_fields_whose_names_collide_are_kept(load: Any) -> None:
    """Names that differ only in JSON are numbered; names of built-in types do not hide the types."""
    given: dict[str, Any] = {
        "podIP": "x",
        "podIp": 1,
        "pod-ip": True,
        "list": ["a"],
        "str": "b",
        "int": 2,
        "float": 1.5,
    }
    types = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
    spec: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: {"type": "array", "items": {"type": "string"}}
            if isinstance(value, list)
            else {"type": types[type(value).__name__]}
            for name, value in {**given, "zones": ["z"], "zone": "z", "zoned": True, "count": 1}.items()
        },
    }
    manifest = definition()
    manifest["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"] = {"spec": spec}
    cache: Any = load(source(manifest)).Cache
    found = cache.model_validate({"spec": given})
    assert (found.spec.pod_ip, found.spec.pod_ip_2, found.spec.pod_ip_3) == (True, "x", 1)
    assert (found.spec.list_, found.spec.str_, found.spec.int_, found.spec.float_) == (["a"], "b", 2, 1.5)
    assert found.to_dict()["spec"] == given


def test_kinds_and_versions_are_selected() -> None:
    both = [definition("Cache"), definition("Store", scope="Cluster")]
    assert [each.kind for each in read_definitions([("f", yaml.safe_dump_all(both))])] == ["Cache", "Store"]
    (store,) = read_definitions([("f", yaml.safe_dump_all(both))], kinds=["store.example.com"], version="v1alpha1")
    assert (store.api_version, store.namespaced) == ("example.com/v1alpha1", False)
    assert 'plural="stores", namespaced=False' in source(*both, kinds=["Store"])
    alpha = definition("Draft", versions=[{"name": "v1alpha1", "served": True, "storage": True}])
    assert [
        each.version
        for each in read_definitions([("f", yaml.safe_dump_all([*both, alpha]))], kinds=["Cache"], version="v1")
    ] == ["v1"]


PROBLEMS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([{"kind": "ConfigMap"}], {}, "no CustomResourceDefinition was found"),
    (
        [definition()],
        {"kinds": ["Other"]},
        "the definitions do not contain the kind Other: choose from Cache.example.com",
    ),
    ([definition()], {"version": "v2"}, "Cache.example.com has no version v2: choose from v1alpha1, v1"),
    ([definition(), definition(group="other.com")], {}, "several groups have a kind Cache: select one with --kind"),
    ([{"kind": "CustomResourceDefinition", "spec": {}}], {}, "crds.yaml contains a malformed"),
    ([definition(versions=[])], {}, "Cache.example.com has no versions"),
]


@pytest.mark.parametrize(("manifests", "options", "message"), PROBLEMS)
def test_each_problem_is_named(manifests: list[dict[str, Any]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        source(*manifests, **options)


def test_the_command_writes_a_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crds"
    folder.mkdir()
    # A plain `=` is text for Kubernetes; PyYAML's defaults fail at it.
    text = yaml.safe_dump(definition()).replace("- fast", "- =\n                - 'on'")
    (folder / "cache.yaml").write_text(text)
    (folder / "README.md").write_text("no definition")
    assert main(["models", str(folder), "--output", str(tmp_path / "kinds.py")]) == 0
    written = (tmp_path / "kinds.py").read_text()
    assert "One of `=`, `on`, `safe`." in written
    monkeypatch.setattr("sys.stdin", StringIO(text))
    assert main(["models", "-", "--kind", "Cache"]) == 0
    assert capsys.readouterr().out == written
    assert main(["models", str(tmp_path / "absent.yaml")]) == 1
    assert "absent.yaml" in capsys.readouterr().err
    for broken in ("a: [", f"a: {'9' * 5000}"):
        (folder / "broken.yaml").write_text(broken)
        assert main(["models", str(folder)]) == 1
        assert "broken.yaml is neither YAML nor JSON" in capsys.readouterr().err
