"""The check for phrases that the style guide rules out reads what people read, and nothing else."""

import pytest

from hack.check.prose import RULES, read_rules, report

RULES_OF_TEST = read_rules(r"""
[[phrase]]
phrase = '\bfor ever\b'
instead = "indefinitely"

[[phrase]]
phrase = '\bnobody\b'
instead = "no process"

[docstring]
imperative = ["Return"]

[allow]
"quotes.md" = ["for ever"]
"anything.md" = ["*"]
""")


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("a.py", '"""Waits for ever."""\n', 1),
        ("a.py", '"""Waits.\n\nAnd that for\never.\n"""\n', 3),
        ("a.py", "x = 1\n# it waits for\n# ever\n", 2),
        ("a.py", 'raise ValueError("x waits for " "ever")\n', 1),
        ("a.py", 'text = (\n    f"{name} waits for "\n    f"ever"\n)\n', 2),
        ("a.py", "text = 'it\\'s for ever'\n", 1),
        ("a.md", "It waits\nFor Ever\n", 2),
        ("a.md", "```python\n# for ever\n```\n", 2),
        ("a.yaml", "a: 1\n# for\n# ever\n", 2),
        ("Makefile", "x: ## for ever\n", 1),
    ],
)
def test_a_phrase_is_found_with_its_line(path: str, source: str, line: int) -> None:
    assert report(path, source, RULES_OF_TEST) == [f"{path}:{line}: 'for ever': write indefinitely"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a.py", "for_ever = nobody = 1\nfor ever in nobody: ...\n"),
        ("a.py", 'text = f"{nobody} left"\n'),
        ("a.py", 'a = "for "\nb = "ever"\n'),
        ("a.py", "a = 1  # for\n\n\n# ever\n"),
        ("a.md", "the variable `nobody` is set\n"),
        ("quotes.md", "for ever"),
        ("anything.md", "nobody for ever"),
    ],
)
def test_names_code_and_allowed_quotations_are_left_alone(path: str, source: str) -> None:
    assert report(path, source, RULES_OF_TEST) == []


def test_an_allowed_quotation_allows_no_other_phrase() -> None:
    assert report("quotes.md", "nobody", RULES_OF_TEST) == ["quotes.md:1: 'nobody': write no process"]


def test_a_docstring_in_the_imperative_is_found() -> None:
    function = 'def f():\n    """Return a node."""\n\n'
    rest = 'class A:\n    """Returns.\n\n    Return it.\n    """\n    x: int\n    """Return."""\n'
    message = "a.py:2: 'Return': write the third person, as in 'Returns the node'"
    assert report("a.py", function + rest, RULES_OF_TEST) == [message]


def test_the_rules_of_the_repository_can_be_read() -> None:
    rules = read_rules(RULES.read_text())
    assert rules.instead
    assert "Return" in rules.imperative
