"""The table of planted bugs fits the code."""

import pytest

from hack.planted import bugs, problem

BUGS = bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug["name"])
def test_a_bug_can_be_planted(bug: dict[str, str]) -> None:
    assert problem(bug) == ""
    assert bug["old"] != bug["new"]


def test_there_are_as_many_bugs_as_the_page_says() -> None:
    assert len(BUGS) >= 50
    assert len({bug["name"] for bug in BUGS}) == len(BUGS)
