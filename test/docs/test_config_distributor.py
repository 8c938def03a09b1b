"""The example of several clusters: its own tests, its imports, its manifests, and the numbers of its page."""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def distributor(root: Path) -> Path:
    return root / "examples" / "config-distributor"


@pytest.mark.timeout(300)
def test_its_own_tests_pass_in_its_own_folder(distributor: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=distributor,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_definition_is_that_of_its_code(distributor: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "config_distributor.api"], cwd=distributor, capture_output=True, text=True, check=True
    ).stdout
    assert (distributor / "deploy" / "crd.yaml").read_text() == printed


def test_it_needs_nothing_but_public_names_of_the_framework(distributor: Path) -> None:
    allowed = {"config_distributor", "pytest", *sys.stdlib_module_names}
    for source in distributor.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] in allowed:
                continue
            module = import_module(node.module or "")
            assert (node.module or "").startswith("kaito.runtime")
            assert len((node.module or "").split(".")) <= 3
            assert all(hasattr(module, alias.name) and not alias.name.startswith("_") for alias in node.names)


def code_lines(source: Path) -> int:
    """Lines with code: without blanks, comments and docstrings."""
    text = source.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_numbers_of_its_page_are_current(distributor: Path, root: Path) -> None:
    page = (root / "docs" / "framework" / "clusters.md").read_text()
    package, tests = distributor / "config_distributor", distributor / "tests"
    controller = code_lines(package / "controller.py") + code_lines(package / "__main__.py")
    counted = code_lines(package / "api.py"), controller, sum(code_lines(each) for each in tests.glob("*.py"))
    assert f"| config-distributor | {counted[0]} | {counted[1]} | {counted[2]} |" in page
    functions = re.findall(r"^async def test_", (tests / "test_config_distributor.py").read_text(), re.MULTILINE)
    assert f"{len(functions)} tests" in " ".join(page.split())
