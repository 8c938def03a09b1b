"""The table of planted bugs fits the code."""

import pytest

from hack.planted import ROOT, bugs, problem

BUGS = bugs()
PAGE = ROOT / "docs" / "reliability.md"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug["name"])
def test_a_bug_can_be_planted(bug: dict[str, str]) -> None:
    assert problem(bug) == ""
    assert bug["old"] != bug["new"]


def test_there_are_many_bugs_with_different_names() -> None:
    assert len(BUGS) >= 60
    assert len({bug["name"] for bug in BUGS}) == len(BUGS)


def test_the_page_lists_each_bug_once_with_its_scenario() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("| planted bug | scenario | violated invariant |\n")[2].partition("\n\n")[0]
    rows = [line.strip("|").split(" | ")[:2] for line in table.splitlines()[1:]]
    assert sorted((text.strip(), scenario) for text, scenario in rows) == sorted(
        (bug["text"], f"`{bug['scenario']}`") for bug in BUGS
    )
    assert f"plants the {len(BUGS)} bugs of" in page
