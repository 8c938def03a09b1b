"""The hook for commit messages refuses subjects without scope, and those that git tools cut off."""

import pytest

from hack.check.commit_message import problems


@pytest.mark.parametrize(
    "message",
    [
        "cache: wait for own writes on indexed lists",
        "cache, client: share one rate limiter\n\nBoth waited on their own.",
        "docs/runtime: name the two kinds of indexes\n# a comment of the editor",
        "Merge branch 'main' into topic",
        'Revert "cache: wait for own writes"',
        "fixup! cache: wait for own writes",
    ],
)
def test_a_subject_with_a_scope_passes(message: str) -> None:
    assert problems(message) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "must be `scope: subject`"),
        ("wip", "must be `scope: subject`"),
        ("Wait for own writes", "must be `scope: subject`"),
        ("cache: " + "x" * 66, "has 73 characters, at most 72"),
        ("cache: wait for own writes.", "must not end with a period"),
        ("cache: added a wait", "must be imperative: 'add', not 'added'"),
        ("cache: fixes the wait", "must be imperative: 'add', not 'fixes'"),
        ("cache: wait for own writes\nat once", "the line below the subject must be empty"),
    ],
)
def test_what_is_wrong_is_named(message: str, problem: str) -> None:
    (found,) = problems(message)
    assert problem in found
