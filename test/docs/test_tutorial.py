"""The tutorial: its files are the example's files, its manifests are admitted, its claims about both hold."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.runtime import Resource
from kaito.runtime.testing import World
from test.support.codeblocks import CodeBlock, code_blocks

WRITTEN_BY_COMMAND = {"deploy/crd.yaml"}
"""The tutorial shows the command instead; `test_docs_example` runs it."""

NOT_PART_OF_IT = {"README.md", "tests/test_simulation.py"}  # the second is explained by docs/framework/simulation.md


class Memcached(Resource, api="cache.example.com/v1", kind="Memcached"):
    """The tutorial's kind, untyped."""


@pytest.fixture(scope="module")
def blocks(root: Path) -> list[CodeBlock]:
    return code_blocks(root / "docs" / "framework" / "tutorial.md")


def test_its_files_are_the_examples_files(blocks: list[CodeBlock], example: Path) -> None:
    written: dict[str, str] = {}
    for block in blocks:
        if block.title:
            written[block.title] = f"{written[block.title]}\n\n{block.code}" if block.title in written else block.code
    there = {
        str(file.relative_to(example)): file.read_text()
        for file in sorted(example.rglob("*"))
        if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in file.parts)
    }
    assert set(written) == set(there) - WRITTEN_BY_COMMAND - NOT_PART_OF_IT
    for name, text in written.items():
        assert text == there[name], name


def documents(blocks: list[CodeBlock], example: Path) -> list[dict[str, Any]]:
    crd: dict[str, Any] = yaml.safe_load((example / "deploy" / "crd.yaml").read_text())
    documents = [
        document for block in blocks if block.language == "yaml" for document in yaml.safe_load_all(block.code)
    ]
    return [crd, *documents]


async def test_its_manifests_are_admitted(
    blocks: list[CodeBlock], example: Path, apply: Callable[..., Awaitable[None]], world: World
) -> None:
    await apply(world.transport(), documents(blocks, example))
    sample = world.get(Memcached, "sessions").to_dict()
    assert sample["spec"] == {"size": 3, "memoryMib": 128, "drainSeconds": 30}


def test_every_shell_command_about_its_own_files_names_one(blocks: list[CodeBlock], example: Path) -> None:
    named = [
        word
        for block in blocks
        if block.language == "sh"
        for word in block.code.split()
        if word.startswith("deploy/") and word != "deploy/"
    ]
    assert named
    assert [name for name in named if not (example / name).is_file()] == []
