"""The CronJob operator: its own tests, its imports, its manifests, and the numbers of its page."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from test.docs.test_config_distributor import code_lines


@pytest.fixture
def operator(root: Path) -> Path:
    return root / "examples" / "cronjob-operator"


@pytest.mark.timeout(300)
def test_its_own_tests_pass_in_its_own_folder(operator: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=operator,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_definition_is_that_of_its_code(operator: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "cronjob_operator.api"], cwd=operator, capture_output=True, text=True, check=True
    ).stdout
    assert (operator / "deploy" / "crd.yaml").read_text() == printed


def test_it_needs_nothing_but_public_names_of_the_framework(operator: Path) -> None:
    allowed = {"cronjob_operator", "cronsim", "pytest", *sys.stdlib_module_names}
    for source in operator.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] in allowed:
                continue
            module = import_module(node.module or "")
            assert (node.module or "").startswith("kaito.runtime")
            assert len((node.module or "").split(".")) <= 3
            assert all(hasattr(module, alias.name) and not alias.name.startswith("_") for alias in node.names)


def test_the_numbers_of_its_page_are_current(operator: Path, root: Path) -> None:
    page = (root / "docs" / "framework" / "coming-from-controller-runtime.md").read_text()
    package, tests = operator / "cronjob_operator", operator / "tests"
    counted = [code_lines(package / f"{name}.py") for name in ("api", "controller", "__main__")]
    counted.append(sum(code_lines(each) for each in tests.glob("*.py")))
    assert f"| here | {' | '.join(map(str, counted))} |" in page
    functions = re.findall(r"^async def test_", (tests / "test_cronjob.py").read_text(), re.MULTILINE)
    assert f"{len(functions)} tests" in " ".join(page.split())
