"""The operators of CronJobs and DNS records: their own tests, imports, manifests, and the numbers of their pages."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from test.docs.test_config_distributor import code_lines


@dataclass(frozen=True)
class Operator:
    """An example, and the page of the documentation that uses it."""

    folder: Path
    package: str
    library: str
    page: str
    modules: tuple[str, ...]
    row: str


OPERATORS = {
    "cronjob-operator": (
        "cronjob_operator", "cronsim", "coming-from-controller-runtime.md", ("api", "controller", "__main__"), "here"
    ),
    "dns-operator": (
        "dns_operator", "aiohttp", "external-systems.md", ("api", "provider", "controller", "__main__"), "dns-operator"
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(OPERATORS))
def operator(root: Path, request: pytest.FixtureRequest) -> Operator:
    return Operator(root / "examples" / request.param, *OPERATORS[request.param])


@pytest.mark.timeout(300)
def test_its_own_tests_pass_in_its_own_folder(operator: Operator) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=operator.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_definition_is_that_of_its_code(operator: Operator) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", f"{operator.package}.api"],
        cwd=operator.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (operator.folder / "deploy" / "crd.yaml").read_text() == printed


def test_it_needs_nothing_but_public_names_of_the_framework(operator: Operator) -> None:
    allowed = {operator.package, operator.library, "pytest", *sys.stdlib_module_names}
    for source in operator.folder.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] in allowed:
                continue
            module = import_module(node.module or "")
            assert (node.module or "").startswith("kaito.runtime")
            assert len((node.module or "").split(".")) <= 3
            assert all(hasattr(module, alias.name) and not alias.name.startswith("_") for alias in node.names)


def test_the_numbers_of_its_page_are_current(operator: Operator, root: Path) -> None:
    page = (root / "docs" / "framework" / operator.page).read_text()
    package, tests = operator.folder / operator.package, sorted((operator.folder / "tests").glob("*.py"))
    counted = [code_lines(package / f"{name}.py") for name in operator.modules]
    counted.append(sum(code_lines(each) for each in tests))
    assert f"| {operator.row} | {' | '.join(map(str, counted))} |" in page
    functions = [name for each in tests for name in re.findall(r"^async def test_", each.read_text(), re.MULTILINE)]
    assert f"{len(functions)} tests" in " ".join(page.split())
