"""Distributions import the public names of the framework and of the API server, never a module inside a package."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]

DEPTHS = {"kaito.runtime": 3, "kaito.apiserver": 2}
"""How many parts the name of a public module has: `kaito.runtime.client`, `kaito.apiserver`."""

USERS = {
    "kaito.runtime": ["api", "cli", "cloud", "local", "models", "prices", "provisioner", "workspace"],
    "kaito.apiserver": ["api", "cli", "cloud", "local", "models", "prices", "provisioner", "workspace", "runtime"],
}
"""The folders of kaito/ that use each."""


def imports(source: str) -> Iterator[tuple[str, str]]:
    """The module and the name of each import; the name is empty where a module is imported."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def is_public(package: str, module: str, name: str) -> bool:
    """Reports whether an import stays above the modules inside the packages of a distribution."""
    if len(module.split(".")) > DEPTHS[package] or name.startswith("_"):
        return False
    found = getattr(import_module(module), name, None) if name else None
    return not (isinstance(found, ModuleType) and len(found.__name__.split(".")) > DEPTHS[package])


@pytest.mark.parametrize("package", DEPTHS)
def test_other_distributions_import_public_names_only(package: str) -> None:
    sources = [path for folder in USERS[package] for path in (ROOT / "kaito" / folder).rglob("*.py")]
    used = [
        (path.relative_to(ROOT), module, name)
        for path in sources
        for module, name in imports(path.read_text())
        if module == package or module.startswith(f"{package}.")
    ]
    assert used
    private = [f"{path}: {module} {name}" for path, module, name in used if not is_public(package, module, name)]
    assert private == [], "import the name from its package; add it to the package's __init__ if users need it"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from kaito.runtime import clock", True),
        ("from kaito.runtime.client import connect", True),
        ("from kaito.runtime.client import http", False),
        ("from kaito.runtime.client.http import HttpTransport", False),
        ("from kaito.runtime.kinds import _HOMES", False),
        ("import kaito.runtime.client.http", False),
    ],
)
def test_a_module_inside_a_package_is_not_public(line: str, expected: bool) -> None:
    ((module, name),) = imports(line)
    import_module("kaito.runtime.client.http")
    assert is_public("kaito.runtime", module, name) is expected
