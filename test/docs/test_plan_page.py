"""`docs/guides/plan.md` and README.md: every `kaito plan` runs and prints what the page shows below it."""

import subprocess
import sys
from pathlib import Path

import pytest

from test.support.codeblocks import CodeBlock, code_blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "guides" / "plan.md")


def plans(page: Path) -> list[tuple[str, CodeBlock | None]]:
    """Returns the commands of a page, each with the output that the next block shows."""
    blocks = code_blocks(page)
    found: list[tuple[str, CodeBlock | None]] = []
    for number, block in enumerate(blocks):
        following = blocks[number + 1] if number + 1 < len(blocks) else None
        if block.language == "sh" and block.code.startswith("kaito plan "):
            shown = following if following is not None and following.language == "text" else None
            found.append((block.code.strip(), shown))
    return found


COMMANDS = [(page, command, shown) for page in PAGES for command, shown in plans(page)]


def test_the_pages_show_the_output_of_the_sample() -> None:
    assert [shown is not None for page, _, shown in COMMANDS if page.name == "README.md"] == [True]
    assert len(COMMANDS) == 6


@pytest.mark.parametrize(
    ("page", "command", "shown"),
    [each for each in COMMANDS if "--cluster" not in each[1]],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_a_plan_prints_what_the_page_shows(page: Path, command: str, shown: CodeBlock | None, tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    for block in code_blocks(page):
        if block.title:
            (tmp_path / block.title).write_text(block.code)
    kaito = Path(sys.executable).with_name("kaito")
    result = subprocess.run(
        [kaito, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert shown is None or result.stdout == shown.code
    if "prices.yaml" in command:
        assert "price    2.75 EUR per hour, 2,007.50 EUR per month" in result.stdout
        assert "enterprise agreement, 2026-11-01" in result.stdout
