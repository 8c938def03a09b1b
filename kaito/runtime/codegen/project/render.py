"""Renders the files of a project from its contents: a pure function.

The templates are files whose paths contain `PACKAGE`, `MODULE` and `VERSION`. The modules that list kinds, versions and
spokes are made here, because their lines depend on the number and the lengths of the names.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version as version_of
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

from kaito.runtime.codegen.project.contents import Kind, Project, ProjectProblem
from kaito.runtime.codegen.project.names import variable_of

WIDTH: Final = 120
_FIRST_VERSION: Final = "0.1"


def render(project: Project) -> dict[str, str]:
    """Returns the contents of the files, by their paths in the project.

    Raises:
        ProjectProblem: two kinds need a file of the same name.
    """
    names = _project_names(project)
    found = _rendered("project", names)
    for kind in project.kinds:
        files = _rendered_kind(project, kind)
        if taken := sorted(files.keys() & found.keys()):
            raise ProjectProblem(
                f"kind {kind.kind}: {taken[0]} is a file of another part of the project; rename the kind"
            )
        found |= files
    if any(kind.webhook or kind.spokes for kind in project.kinds):
        found |= _rendered("serving", names)
    found[f"{project.package}/declarations.py"] = _declarations(project)
    return {path: _wrapped(text) if path.endswith(".py") else text for path, text in sorted(found.items())}


def rewritable(project: Project) -> set[str]:
    """Returns the paths of the files that change when a kind, webhook or conversion is added."""
    found = {f"{project.package}/declarations.py"}
    for kind in project.kinds:
        found.add(f"{project.package}/{kind.module}/definition.py")
        if kind.spokes:
            found.add(f"{project.package}/{kind.module}/conversion.py")
    return found


def _rendered_kind(project: Project, kind: Kind) -> dict[str, str]:
    names = _project_names(project) | _kind_names(kind)
    folder = f"{project.package}/{kind.module}"
    found = _rendered("kind", names) | {f"{folder}/definition.py": _definition(project, kind)}
    if kind.webhook:
        found |= _rendered("webhook", names)
    for spoke in kind.spokes:
        spoke_kind = _spoke_kind(kind, spoke)
        declaration = _declaration(kind, spoke_kind, spoke)
        given = {"spoke": spoke, "spoke_kind": spoke_kind, "declaration": declaration}
        found |= _rendered("conversion", names | given)
    if kind.spokes:
        found[f"{folder}/conversion.py"] = _conversion(project, kind)
    return found


def _project_names(project: Project) -> dict[str, str]:
    first = project.kinds[0]  # the role of a new project; later `make generate` writes it
    return {
        "name": project.name,
        "package": project.package,
        "prefix": project.package.upper() + "_",
        "runtime": _own_version(),
        "group": first.group,
        "resources": first.plural,
    }


def _kind_names(kind: Kind) -> dict[str, str]:
    return {
        "group": kind.group,
        "version": kind.version,
        "kind": kind.kind,
        "declaration": _declaration(kind, kind.kind, kind.version),
        "module": kind.module,
        "object": variable_of(kind.kind),
        "suffix": kind.kind.lower(),
    }


def _declaration(kind: Kind, name: str, version: str) -> str:
    """Returns the first lines of the class of a version."""
    arguments = ["Resource", f'api="{kind.group}/{version}"', f'kind="{kind.kind}"']
    if kind.plural != f"{kind.kind.lower()}s":  # the framework's default
        arguments.append(f'plural="{kind.plural}"')
    return _fitted(f"class {name}(", arguments, "):")


def _spoke_kind(kind: Kind, spoke: str) -> str:
    return f"{kind.kind}{spoke.capitalize()}"


def _rendered(folder: str, names: Mapping[str, str]) -> dict[str, str]:
    return {_target(path, names): Template(text).substitute(names) for path, text in _templates(folder).items()}


def _target(path: str, names: Mapping[str, str]) -> str:
    for placeholder, name in (("PACKAGE", "package"), ("MODULE", "module"), ("VERSION", "spoke")):
        path = path.replace(placeholder, names.get(name, ""))
    return path.removesuffix(".tmpl")


@cache
def _templates(folder: str) -> Mapping[str, str]:
    root = resources("kaito.runtime.codegen.project").joinpath("templates", folder)
    return {path: file.read_text(encoding="utf-8") for path, file in _files(root, "")}


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def _own_version() -> str:
    """Returns the first two numbers of the version of the framework, the oldest that the project needs."""
    try:
        return ".".join(version_of("kaito-runtime").split(".")[:2])
    except PackageNotFoundError:  # a checkout on the path, not installed
        return _FIRST_VERSION


# -- modules with lists ----------------------------------------------------------------------------------------------


def _declarations(project: Project) -> str:
    imports: list[str] = []
    for kind in sorted(project.kinds, key=lambda kind: kind.module):
        modules = ["controller", *(["conversion"] if kind.spokes else []), "definition"]
        modules += ["webhook"] if kind.webhook else []
        home = f"{project.package}.{kind.module}"
        imports += [f"from {home}.{each} import {each} as {kind.module}_{each}" for each in modules]
    lists = {
        "CONTROLLERS: list[AnyController]": [f"{kind.module}_controller" for kind in project.kinds],
        "DEFINITIONS: list[dict[str, Any]]": [f"{kind.module}_definition()" for kind in project.kinds],
        "WEBHOOKS: list[Webhook[Any]]": [f"{kind.module}_webhook" for kind in project.kinds if kind.webhook],
        "CONVERSIONS: list[Conversion[Any]]": [f"{kind.module}_conversion" for kind in project.kinds if kind.spokes],
    }
    return "\n".join(
        [
            '"""What the operator consists of; `kaito-runtime add` extends it."""',
            "",
            "from typing import Any",
            "",
            "from kaito.runtime.controller import AnyController",
            "from kaito.runtime.webhook import Conversion, Webhook",
            "",
            *imports,
            "",
            *(_fitted(f"{name} = [", entries, "]") for name, entries in lists.items()),
            "",
        ]
    )


def _definition(project: Project, kind: Kind) -> str:
    home = f"{project.package}.{kind.module}"
    versions = [f"Version(model={kind.kind}, storage=True, columns=COLUMNS)"]
    versions += [f"Version(model={_spoke_kind(kind, spoke)}, columns=COLUMNS)" for spoke in kind.spokes]
    call = f"    return crd({_inline(versions)})"
    if kind.spokes:
        conversion = "conversion=conversion_manifest(namespace=RELEASE_NAMESPACE, service=NAME)"
        call = "\n".join(
            [
                "    return crd(",
                "        [",
                *(f"            {each}," for each in versions),
                "        ],",
                f"        {conversion},",
                "    )",
            ]
        )
    imports = [f"from {home}.api import COLUMNS, {kind.kind}"]
    imports += [f"from {home}.{spoke} import {_spoke_kind(kind, spoke)}" for spoke in sorted(kind.spokes)]
    webhook = ["from kaito.runtime.webhook import conversion_manifest"] if kind.spokes else []
    own = [f"from {project.package} import NAME, RELEASE_NAMESPACE"] if kind.spokes else []
    return "\n".join(
        [
            f'"""The CustomResourceDefinition of `{kind.kind}`; `kaito-runtime add` extends it."""',
            "",
            "from typing import Any",
            "",
            "from kaito.runtime.crd import Version, crd",
            *webhook,
            "",
            *own,
            *imports,
            "",
            "",
            "def definition() -> dict[str, Any]:",
            '    """Returns the CustomResourceDefinition."""',
            call,
            "",
        ]
    )


def _conversion(project: Project, kind: Kind) -> str:
    home = f"{project.package}.{kind.module}"
    spokes = [f"{spoke}_spoke" for spoke in kind.spokes]
    return "\n".join(
        [
            f'"""The conversion of `{kind.kind}`; `kaito-runtime add` extends it."""',
            "",
            "from kaito.runtime.webhook import Conversion",
            "",
            f"from {home}.api import {kind.kind}",
            *(f"from {home}.{spoke} import spoke as {spoke}_spoke" for spoke in sorted(kind.spokes)),
            "",
            _fitted("conversion = Conversion(", [kind.kind, *spokes, "lossless=True"], ")"),
            "",
        ]
    )


def _inline(entries: list[str]) -> str:
    return "[" + ", ".join(entries) + "]"


def _fitted(before: str, entries: list[str], after: str) -> str:
    """Returns a list on one line if it fits, else an entry on each line."""
    line = before + ", ".join(entries) + after
    if len(line) <= WIDTH:
        return line
    return "\n".join([before, *(f"    {each}," for each in entries), after])


def _wrapped(text: str) -> str:
    """Wraps the imports that are too long, as formatters do."""
    return "\n".join(_wrapped_import(line) for line in text.split("\n"))


def _wrapped_import(line: str) -> str:
    if len(line) <= WIDTH or not line.startswith("from "):
        return line
    home, _, names = line.partition(" import ")
    return "\n".join([f"{home} import (", *(f"    {name}," for name in names.split(", ")), ")"])
