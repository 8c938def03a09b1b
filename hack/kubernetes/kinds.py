"""Completes the models of `kaito.runtime.kinds` with every field of a Kubernetes release.

Run `python -m hack.kubernetes.kinds`. It reads the definitions that `hack.kubernetes.schemas` recorded, adds the
missing fields to the classes of `kaito/runtime/kinds/*.py`, whose names, defaults and texts are chosen by hand, and
writes the classes of all other structs into `kaito/runtime/kinds/structs`. Fields of such a struct are deferred: its
class is created when the first object has the field. A second run changes nothing; `python -m hack.generate
--check` compares.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from kaito.runtime import kinds
from kaito.runtime.codegen.source import field_value
from kaito.runtime.codegen.structs import json_words, python_name
from kaito.runtime.kinds.deferred import Deferred
from kaito.runtime.meta import Model, Resource, wire_name

ROOT: Final = Path(__file__).resolve().parents[2]
KINDS: Final = ROOT / "kaito" / "runtime" / "kinds"
STRUCTS: Final = KINDS / "structs"
DEFINITIONS: Final = ROOT / "kaito" / "apiserver" / "data" / "builtin-schemas.json"
REF: Final = "#/components/schemas/"
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."

TYPES: Final[Mapping[str, str]] = {
    f"{META}Time": "Time",
    f"{META}MicroTime": "MicroTime",
    f"{META}LabelSelector": "LabelSelector",
    f"{META}LabelSelectorRequirement": "LabelSelectorRequirement",
    f"{META}ObjectMeta": "ObjectMeta",
    f"{META}OwnerReference": "OwnerReference",
    f"{META}Condition": "Condition",
    f"{META}FieldsV1": "dict[str, Any]",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "dict[str, Any]",
}
"""Types of definitions that are not structs of `kaito.runtime.kinds`."""

SAME: Final[Mapping[str, str]] = {
    "io.k8s.api.apps.v1.DaemonSetCondition": "WorkloadCondition",
    "io.k8s.api.apps.v1.ReplicaSetCondition": "WorkloadCondition",
    "io.k8s.api.core.v1.HostIP": "HostIP",
    "io.k8s.api.core.v1.PortStatus": "PortStatus",
    "io.k8s.api.networking.v1.IngressPortStatus": "PortStatus",
}
"""Classes with a name that does not follow from the definition, or of several equal definitions."""

OMITTED: Final = frozenset({"managedFields", "selfLink"})
"""Fields of metadata that stay unknown fields: caches drop them, and `kaito.runtime.client` reads them as JSON."""

NEW_KINDS: Final[Mapping[str, tuple[str, bool]]] = {
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy": ("validatingadmissionpolicies", False),
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding": (
        "validatingadmissionpolicybindings",
        False,
    ),
    "io.k8s.api.apps.v1.ReplicaSet": ("replicasets", True),
    "io.k8s.api.core.v1.LimitRange": ("limitranges", True),
    "io.k8s.api.core.v1.PodTemplate": ("podtemplates", True),
    "io.k8s.api.core.v1.ResourceQuota": ("resourcequotas", True),
    "io.k8s.api.scheduling.v1.PriorityClass": ("priorityclasses", False),
}
"""Kinds that are generated as a whole: plural, and whether they are namespaced."""

MODULES: Final[tuple[tuple[str, str, str], ...]] = (
    ("projections", r"(Projection|ProjectedVolumeSource|^DownwardAPI.*)$", "Projected volumes."),
    ("security", r"^(SeccompProfile|SELinuxOptions|AppArmorProfile|Windows.*|Sysctl)$", "Security settings of pods."),
    ("persistent_volumes", r"(PersistentVolumeSource|LocalVolumeSource)$", "Sources of PersistentVolumes."),
    ("volumes", r"VolumeSource$", "Sources of volumes that other modules do not contain."),
    (
        "pod_status",
        r"^(HostIP|Pod.*Status|(Linux)?ContainerUser|Resource(Status|Health)|VolumeMountStatus|ContainerExt.*)$",
        "Parts of the status of pods.",
    ),
    (
        "pods",
        r"^(Ephem.*|ContainerRes.*|GRPC.*|SleepA.*|FileK.*|HostA.*|Pod(DNS|OS|Readi|Sched|ResourceC).*|VolumeD.*)$",
        "Parts of pods that few pods have.",
    ),
    ("jobs", r"^(PodFailure.*|SuccessPolicy.*|Uncounted.*)$", "Parts of Jobs."),
    ("nodes", r"^(Node.*|AttachedVolume|DaemonEndpoint|ContainerImage|ConfigMapNodeConfigSource)$", "Parts of Nodes."),
    (
        "policies",
        r"^(ValidatingAdm.*|Validation|Variable|AuditA.*|Param.*|TypeC.*|ExpressionW.*|MatchR.*|NamedRule.*)$",
        "Admission policies.",
    ),
    ("quotas", r"^(LimitRange.*|ResourceQuota.*|Scope.*)$", "Quotas and limits of namespaces."),
)
"""Modules of `structs`, the names of definitions that they contain, and their docstrings; others are in `others`.

The first match counts. A module is loaded as a whole, so the structs that most pods have are apart from the rare ones.
"""

_OF_META: Final = "Condition IntOrString LabelSelector LabelSelectorRequirement MicroTime Model ObjectMeta"
IMPORTS: Final[Mapping[str, str]] = {
    "Any": "typing",
    "Field": "pydantic",
    **dict.fromkeys([*_OF_META.split(), "OwnerReference", "Quantity", "Resource", "Time"], "kaito.runtime.meta"),
}
MISSPELLED: Final = ("merized", "meterized")
"""A misspelled word in the definitions, and its correction."""
_NAME: Final = re.compile(r"\b[A-Za-z_]\w*\b")


@cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """Returns the recorded definitions by name."""
    found: dict[str, Mapping[str, Any]] = json.loads(DEFINITIONS.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """A field of a class as source."""

    text: str
    is_required: bool


@dataclass
class Classes:
    """The classes that exist, and those that have to be generated."""

    known: dict[str, type[Model]] = field(default_factory=dict[str, type[Model]])
    """Classes written by hand, by definition."""
    of: dict[type[Model], set[str]] = field(default_factory=dict[type[Model], set[str]])
    wanted: dict[str, None] = field(default_factory=dict[str, None])
    """Definitions of generated classes, in the order in which they were found."""

    def collect(self) -> None:
        """Finds the classes of all definitions, beginning with the kinds."""
        for name, definition in definitions().items():
            for each in definition.get("x-kubernetes-group-version-kind", ()):
                kind = _kinds().get((each["group"], each["version"], each["kind"]))
                if kind is not None:
                    self._visit(kind, name)
        for name in (*NEW_KINDS, *sorted({wanted for each in self.of for wanted in self._references_of(each)})):
            self._want(name)

    def _visit(self, model: type[Model], name: str) -> None:
        """Compares a class with its definition, and descends."""
        if name in self.of.setdefault(model, set()):
            return
        self.of[model].add(name)
        self.known.setdefault(name, model)
        model.model_rebuild()
        fields = {each.alias or key: each for key, each in model.model_fields.items()}
        for json_name, schema in definitions()[name].get("properties", {}).items():
            target = reference(schema)
            if target is None or target in TYPES or json_name not in fields:
                continue
            for part in _models(fields[json_name].annotation):
                self._visit(part, target)

    def _references_of(self, model: type[Model]) -> Iterable[str]:
        """Yields the definitions of fields that are missing or deferred."""
        fields = {each.alias or key: each for key, each in model.model_fields.items()}
        for name in sorted(self.of[model]):
            for json_name, schema in definitions()[name].get("properties", {}).items():
                target = reference(schema)
                found = fields.get(json_name)
                if target is not None and (found is None or _is_deferred(found.annotation, found.metadata)):
                    yield target

    def _want(self, name: str) -> None:
        if name in TYPES or name in self.known or name in self.wanted:
            return
        if name in SAME and (SAME[name] in vars_of_kinds() or SAME[name] in map(self.class_name, self.wanted)):
            return
        self.wanted[name] = None
        for schema in definitions()[name].get("properties", {}).values():
            target = reference(schema)
            if target is not None:
                self._want(target)

    def class_name(self, name: str) -> str:
        """Returns the name of the class of a definition."""
        if name in self.known:
            return self.known[name].__name__
        return SAME.get(name) or "".join(word[:1].upper() + word[1:].lower() for word in json_words(last(name)))

    def expression(self, schema: Mapping[str, Any]) -> str:
        """Returns the type of a value."""
        if "$ref" in schema:
            name = str(schema["$ref"]).removeprefix(REF)
            return TYPES.get(name) or self.class_name(name)
        if len(schema.get("allOf", ())) == 1:
            return self.expression(schema["allOf"][0])
        match schema.get("type"):
            case "string":
                return "str"
            case "integer":
                return "int"
            case "number":
                return "int | float"
            case "boolean":
                return "bool"
            case "array":
                return f"list[{self.expression(schema['items'])}]"
            case "object":
                values = schema.get("additionalProperties")
                return f"dict[str, {self.expression(values) if values else 'Any'}]"
            case _:
                return "Any"

    def line(self, json_name: str, schema: Mapping[str, Any], *, is_required: bool, is_kind: bool = False) -> Line:
        """Returns the declaration of a field."""
        name = python_name(json_name, is_kind=is_kind)
        kind = self.expression(schema)
        alias = "" if wire_name(name) == json_name else json_name
        if kind.startswith(("list[", "dict[")):
            default = "[]" if kind.startswith("list[") else "{}"
        elif is_kind and json_name in {"spec", "status"} and not _requires(reference(schema)):
            default = f"{kind}()"
        elif is_required:
            default = ""
        else:
            default, kind = "None", kind if kind == "Any" else f"{kind} | None"
        value = field_value(default, alias)
        return Line(f"{name}: {kind}" + (f" = {value}" if value else ""), is_required=not default)


def last(name: str) -> str:
    """Returns the name of a definition without its package."""
    return name.rpartition(".")[2]


def reference(schema: Mapping[str, Any]) -> str | None:
    """Returns the definition that a value, its elements or its members have."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REF)
    for part in (*schema.get("allOf", ()), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict) and (found := reference(part)):  # type: ignore[arg-type]  # JSON
            return found
    return None


def _requires(name: str | None) -> bool:
    """Whether a struct cannot be created without arguments."""
    definition = definitions()[name or ""]
    return any(
        definition["properties"][each].get("type") not in {"array", "object"} for each in definition.get("required", ())
    )


@cache
def _kinds() -> dict[tuple[str, str, str], type[Resource]]:
    found: dict[tuple[str, str, str], type[Resource]] = {}
    for model in vars_of_kinds().values():
        if issubclass(model, Resource) and model.kind:
            group, _, version = model.api_version.rpartition("/")
            found[group, version, model.kind] = model
    return found


@cache
def vars_of_kinds() -> dict[str, type[Model]]:
    """Returns the classes that are written by hand, by name."""
    names = kinds.HANDWRITTEN
    found = {name: getattr(kinds, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, type) and issubclass(value, Model)}


def _models(annotation: Any) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation] if annotation.__module__ not in _META_MODULES else []
    return [found for part in get_args(annotation) for found in _models(part)]


_META_MODULES: Final = frozenset(f"kaito.runtime.meta.{name}" for name in ("condition", "resource", "selector"))


def _is_deferred(annotation: Any, metadata: Iterable[Any] = ()) -> bool:
    return any(isinstance(each, Deferred) for each in (*metadata, *getattr(annotation, "__metadata__", ()))) or any(
        _is_deferred(part) for part in get_args(annotation)
    )


def module_of(name: str) -> str:
    """Returns the module of a generated class."""
    found = (module for module, pattern, _ in MODULES if re.search(pattern, last(name)))
    return next(found, "others")


def class_lines(classes: Classes, name: str) -> list[str]:
    """Returns the source of a generated class."""
    definition = definitions()[name]
    required, is_kind = frozenset(definition.get("required", ())), name in NEW_KINDS
    bases = "Model"
    if is_kind:
        identity = definition["x-kubernetes-group-version-kind"][0]
        plural, namespaced = NEW_KINDS[name]
        api = "/".join(part for part in (identity["group"], identity["version"]) if part)
        bases = f'Resource, api="{api}", kind="{identity["kind"]}", plural="{plural}"'
        bases += "" if namespaced else ", namespaced=False"
    fields = [
        classes.line(each, schema, is_required=each in required, is_kind=is_kind)
        for each, schema in sorted(definition.get("properties", {}).items())
        if not is_kind or each not in {"apiVersion", "kind", "metadata"}
    ]
    text = definition.get("description", "").replace("\\", "").replace('"', "'").replace(*MISSPELLED).strip()
    lines = [f"class {classes.class_name(name)}({bases}):", f'    """{wrapped(text or last(name))}"""', ""]
    return lines + [f"    {each.text}" for each in sorted(fields, key=lambda line: not line.is_required)]


def wrapped(text: str) -> str:
    """Returns the first sentence of a docstring, in lines of 110 characters."""
    sentence = re.split(r"(?<=[a-z)])\. ", " ".join(text.split()), maxsplit=1)[0].rstrip(".") + "."
    lines = [""]
    for word in (sentence[:1].upper() + sentence[1:]).split(" "):
        if lines[-1] and len(lines[-1]) + len(word) > 108:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n    ".join(lines) + ("\n    " if len(lines) > 1 else "")


def names_in(lines: Iterable[str]) -> set[str]:
    """Returns the identifiers in the declarations, without docstrings."""
    code = "\n".join(line for line in lines if ": " in line or line.startswith("class "))
    return set(_NAME.findall(re.sub(r'"[^"]*"', "", code)))


def import_lines(classes: Classes, names: set[str], module: str, *, generated: Mapping[str, str]) -> list[str]:
    """Returns the imports of a module in `structs` or beside it; ruff sorts them."""
    homes = {model.__name__: model.__module__ for model in classes.known.values()}
    lines = [f"from {IMPORTS[name]} import {name}" for name in sorted(names) if name in IMPORTS]
    lines += [f"from {homes[name]} import {name}" for name in sorted(names & homes.keys()) if homes[name] != module]
    return [*lines, *deferred_block(sorted(each for each in names if generated.get(each, module) != module))]


def deferred_block(names: list[str]) -> list[str]:
    """Returns the imports of structs that are loaded on first use."""
    if not names:
        return []
    listed = ", ".join(names)
    return [
        "from typing import TYPE_CHECKING",
        "if TYPE_CHECKING:",
        f"    from kaito.runtime.kinds.structs import {listed}",
        "else:",
        f"    from kaito.runtime.kinds.deferred import {listed}",
    ]


def in_order(classes: Classes, names: list[str]) -> list[str]:
    """Returns definitions of one module so that each one follows those that it contains."""
    done: dict[str, None] = {}

    def add(name: str) -> None:
        if name in done or name not in names:
            return
        targets = (reference(schema) for schema in definitions()[name].get("properties", {}).values())
        for target in sorted(filter(None, targets)):
            add(target)
        done[name] = None

    for name in sorted(names, key=classes.class_name):
        add(name)
    return list(done)


def structs_files(classes: Classes) -> dict[Path, str]:
    """Returns the modules of `structs`."""
    package = "kaito.runtime.kinds.structs"
    generated = {classes.class_name(name): f"{package}.{module_of(name)}" for name in classes.wanted}
    files: dict[Path, str] = {}
    texts = {module: text for module, _, text in MODULES} | {"others": "Structs that the other modules do not contain."}
    for module in sorted({module_of(name) for name in classes.wanted}):
        chosen = in_order(classes, [name for name in classes.wanted if module_of(name) == module])
        body = [line for name in chosen for line in ["", "", *class_lines(classes, name)]]
        head = import_lines(classes, names_in(body), f"{package}.{module}", generated=generated)
        title = f'"""{texts[module]} Generated by `python -m hack.kubernetes.kinds`; do not edit."""'
        files[STRUCTS / f"{module}.py"] = formatted("\n".join([title, "", *head, *body]))
    files[STRUCTS / "__init__.py"] = formatted(_package(generated))
    files[STRUCTS / "index.py"] = formatted(_index(generated))
    return files


def _modules(generated: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Returns the names of each module."""
    modules: dict[str, list[str]] = {}
    for name, module in sorted(generated.items()):
        modules.setdefault(module, []).append(name)
    return sorted(modules.items())


def _package(generated: Mapping[str, str]) -> str:
    lines = [
        '"""Structs and kinds that are loaded on first use.',
        "",
        'Generated by `python -m hack.kubernetes.kinds`; do not edit."""',
        "from typing import TYPE_CHECKING, Any",
        "from kaito.runtime.kinds.structs.index import MODULE_OF as _MODULE_OF",
        "from kaito.runtime.lazy import load",
        "if TYPE_CHECKING:",
    ]
    for module, names in _modules(generated):
        lines.append(f"    from {module} import ({', '.join(f'{name} as {name}' for name in names)})")
    lines += ["", "", "def __getattr__(name: str) -> Any:", '    """Loads a name from its module."""']
    return "\n".join([*lines, "    return load(__name__, name, _MODULE_OF)"])


def _index(generated: Mapping[str, str]) -> str:
    lines = [
        '"""Names in the modules of this package. Generated by `python -m hack.kubernetes.kinds`; do not edit."""',
        "from typing import Final",
        "_MODULES: Final[dict[str, tuple[str, ...]]] = {",
    ]
    for module, names in _modules(generated):
        lines.append(f'    "{module.rpartition(".")[2]}": ({", ".join(map(repr, names))},),')
    return "\n".join(
        [
            *lines,
            "}",
            "MODULE_OF: Final[dict[str, str]] = {name: module for module, names in _MODULES.items() for name in names}",
            '"""Modules of the names."""',
        ]
    )


def completed(classes: Classes, module: str, text: str) -> str:
    """Returns a module of `kinds` with the fields that its classes lack."""
    models = {each.__name__: names for each, names in classes.of.items() if each.__module__ == module}
    tree, lines = ast.parse(text), text.splitlines()
    inserts: dict[int, list[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name not in models:
            continue
        added = _missing(classes, getattr(sys.modules[module], node.name), models[node.name])
        if added:
            inserts[_end_of_fields(node)] = [f"    {each.text}" for each in added]
    for at in sorted(inserts, reverse=True):
        lines[at:at] = inserts[at]
    return formatted(_with_imports(classes, module, tree, lines)) if inserts else text


def _missing(classes: Classes, model: type[Model], names: Iterable[str]) -> list[Line]:
    declared = {each.alias or key for key, each in model.model_fields.items()} | OMITTED
    if issubclass(model, Resource):
        declared |= {"apiVersion", "kind"}
    found: dict[str, Line] = {}
    for name in sorted(names):
        for json_name, schema in definitions()[name].get("properties", {}).items():
            if json_name not in declared:
                found[json_name] = classes.line(json_name, schema, is_required=False)
    return [found[name] for name in sorted(found)]


def _end_of_fields(node: ast.ClassDef) -> int:
    """Returns the number of lines before the place of a new field."""
    end = node.body[0].end_lineno or 0
    for before, statement in zip([None, *node.body], node.body, strict=False):
        is_text = isinstance(statement, ast.Expr) and isinstance(before, ast.AnnAssign)
        if isinstance(statement, ast.AnnAssign) or is_text:
            end = statement.end_lineno or 0
    return end


def _with_imports(classes: Classes, module: str, tree: ast.Module, lines: list[str]) -> str:
    """Returns the source with the imports that the declarations need."""
    generated = {classes.class_name(name): f"kaito.runtime.kinds.structs.{module_of(name)}" for name in classes.wanted}
    last_import = 0
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            last_import = node.end_lineno or 0
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or 0) - node.lineno + 1)
    local = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    names = names_in(line for line in lines if line.startswith("    ")) - local
    imports = import_lines(classes, names, module, generated=generated)
    return "\n".join([*lines[:last_import], *imports, *lines[last_import:]])


def formatted(text: str) -> str:
    """Returns the source as ruff formats it, with sorted imports and without unused ones."""
    for command in (["check", "--fix-only", "--select", "I,F401,F811", "--quiet"], ["format", "--quiet"]):
        call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(KINDS / "generated.py"), "-"]
        text = subprocess.run(call, input=text, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return text


def generated() -> dict[Path, str]:
    """Returns the files that differ in a new run, with their contents, by path in the repository."""
    classes = Classes()
    classes.collect()
    files = structs_files(classes)
    for path in sorted(KINDS.glob("*.py")):
        module = f"kaito.runtime.kinds.{path.stem}"
        if module in sys.modules and path.stem not in {"__init__", "deferred", "untyped"}:
            files[path] = completed(classes, module, path.read_text(encoding="utf-8"))
    return {path.relative_to(ROOT): text for path, text in files.items()}


def main() -> None:
    """Writes the files."""
    for path, text in generated().items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
