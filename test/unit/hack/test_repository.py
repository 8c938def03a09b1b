"""Files that only a hosted service reads: workflows, hooks and templates name what exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def read(path: Path) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(path.read_text())
    return document


def targets() -> set[str]:
    return set(re.findall(r"^([a-zA-Z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_calls(text: str) -> list[str]:
    return [
        word for words in re.findall(r"\bmake((?: +[\w=./-]+)+)", text) for word in words.split() if "=" not in word
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_that_a_workflow_makes_exists(path: Path) -> None:
    commands = [step["run"] for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step]
    called = {target for command in commands for target in make_calls(command)}
    assert called, "a workflow that runs no target of ours"
    assert called <= targets()


def test_ci_runs_the_unit_tests_on_each_supported_python_on_linux_and_macos() -> None:
    matrix = read(ROOT / ".github" / "workflows" / "ci.yaml")["jobs"]["unit"]["strategy"]["matrix"]
    assert matrix == {"os": ["ubuntu-latest", "macos-latest"], "python": PYTHONS}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_a_time_limit(path: Path) -> None:
    assert [name for name, job in read(path)["jobs"].items() if "timeout-minutes" not in job] == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", ".github/pull_request_template.md"])
def test_every_target_that_a_page_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    assert set(make_calls(code)) <= targets()


def test_hooks_run_modules_that_exist() -> None:
    hooks = [h for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for h in repo["hooks"] if "entry" in h]
    modules = [module for hook in hooks for module in re.findall(r"-m ([\w.]+)", hook["entry"])]
    assert "hack.check.commit_message" in modules
    assert [module for module in modules if not (ROOT / f"{module.replace('.', '/')}.py").is_file()] == []
    assert {hook["entry"].split()[0] for hook in hooks} <= {
        f".venv/bin/{tool}" for tool in ("ruff", "codespell", "python")
    }


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_templates_and_settings_are_yaml(path: Path) -> None:
    assert read(path)


def test_folders_that_dependabot_watches_exist() -> None:
    for update in read(ROOT / ".github" / "dependabot.yml")["updates"]:
        for folder in update.get("directories", [update.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir(), folder
