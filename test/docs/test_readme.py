"""README.md: its manifests are admitted, its make targets and files exist. Its python blocks run in
`test_docs_code_blocks`, its `kubectl` and `curl` lines in `test/e2e`, its `kaito plan` in `test_plan_page`."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.api.crds import manifests
from kaito.api.workspace import Workspace
from kaito.runtime.testing import World
from test.support.codeblocks import CodeBlock, code_blocks

FILE = re.compile(r"(?:config|docs|examples|hack|presets|test)/[\w./-]+|Dockerfile[\w.]*")
"""What looks like a file of this repository, in a shell line."""


@pytest.fixture(scope="module")
def blocks(root: Path) -> list[CodeBlock]:
    return code_blocks(root / "README.md")


def _documents(blocks: list[CodeBlock]) -> list[dict[str, Any]]:
    return [document for block in blocks if block.language == "yaml" for document in yaml.safe_load_all(block.code)]


async def test_its_manifests_are_admitted(
    blocks: list[CodeBlock], apply: Callable[..., Awaitable[None]], world: World
) -> None:
    documents = [
        document for block in blocks if block.language == "yaml" for document in yaml.safe_load_all(block.code)
    ]
    assert documents
    await apply(world.transport(), [*manifests(), *documents])
    workspaces = [document["metadata"]["name"] for document in documents if document["kind"] == "Workspace"]
    assert [world.get(Workspace, name).name for name in workspaces] == workspaces


def _shell_lines(blocks: list[CodeBlock]) -> list[str]:
    return [line.strip() for block in blocks if block.language == "sh" for line in block.code.splitlines()]


def test_its_make_targets_exist(blocks: list[CodeBlock], root: Path) -> None:
    named = {word for line in _shell_lines(blocks) if line.startswith("make ") for word in line.split()[1:]}
    named |= set(re.findall(r"`make ([a-z-]+)`", (root / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (root / "Makefile").read_text(), flags=re.MULTILINE))
    assert "demo" in named
    assert named - targets == set()


def test_its_shell_lines_name_files_that_exist(blocks: list[CodeBlock], root: Path) -> None:
    named = {name for line in _shell_lines(blocks) for name in FILE.findall(line)}
    assert named
    assert sorted(name for name in named if not (root / name).exists()) == []


def test_the_sample_it_applies_is_the_manifest_it_shows(blocks: list[CodeBlock], root: Path) -> None:
    shown = _documents(blocks)
    applied = [
        yaml.safe_load((root / name).read_text())
        for line in _shell_lines(blocks)
        for name in FILE.findall(line)
        if line.startswith("kubectl apply") and name.startswith("config/samples/")
    ]
    assert applied
    assert applied[0] in shown
