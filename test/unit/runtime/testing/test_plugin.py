"""The pytest plugin as outsiders use it: in a project of their own, from the command line."""

import asyncio
import sys
from pathlib import Path

import pytest

TEST = """
import asyncio

import pytest

from kaito.runtime.testing import World


async def race() -> list[int]:
    order: list[int] = []

    async def run(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(run(number))
    return order


@pytest.mark.seeds(15)
async def test_marked(world: World) -> None:
    assert await race() != [1, 0, 2]


async def test_plain(world: World) -> None:
    await asyncio.sleep(3600)
    assert await race() == [0, 1, 2]
"""

SETTINGS = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["kaito.runtime.testing.pytest"]\n')
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "test_it.py").write_text(TEST)
    return tmp_path


async def run(project: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *arguments),
        cwd=project,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_a_failing_interleaving_is_named_and_repeated_by_its_name(project: Path) -> None:
    output = await run(project)
    (failed,) = [line for line in output.splitlines() if line.startswith("FAILED")]
    test = failed.split(" ")[1]
    assert test.startswith("test_it.py::test_marked[seed-")
    assert "1 failed, 15 passed" in output
    assert "1 failed" in await run(project, test)


async def test_options_explore_more_and_replay_one_for_every_test(project: Path) -> None:
    assert "61 tests collected" in await run(project, "--world-seeds=60", "--collect-only")
    replayed = await run(project, "--world-seed=13", "-v")
    assert "world seed: 13" in replayed
    assert "2 failed" in replayed, "the marked and the plain one race alike"
