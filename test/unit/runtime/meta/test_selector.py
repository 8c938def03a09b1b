"""Label selectors mean in memory what they mean to the API server."""

import pytest

from kaito.runtime.meta import LabelSelector, LabelSelectorRequirement


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a=", {"a": ""}, True),
        ("a=b,a=c", {"a": "c"}, False),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b,c)", {}, False),
        ("a notin (b,c)", {"a": "d"}, True),
        ("a notin (b,c)", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": "x"}, False),
        ("example.com/a=b, x in (1,2) ,!y", {"example.com/a": "b", "x": "2"}, True),
        ("example.com/a=b,x in (1,2),!y", {"example.com/a": "b", "x": "2", "y": ""}, False),
    ],
)
def test_the_string_form(text: str, labels: dict[str, str], matches: bool) -> None:
    selector = LabelSelector.parse(text)
    assert selector.matches(labels) is matches
    assert LabelSelector.parse(str(selector)) == selector


@pytest.mark.parametrize("text", ["a b", "a in b", "a in (b", "a=b=c", "=b", "in (a)", "a >b(", "()"])
def test_what_is_not_a_requirement_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label requirement"):
        LabelSelector.parse(text)


def test_all_requirements_must_hold_and_empty_selects_everything() -> None:
    selector = LabelSelector(
        match_labels={"a": "b"},
        match_expressions=[LabelSelectorRequirement(key="c", operator="Exists")],
    )
    assert selector.matches({"a": "b", "c": ""})
    assert not selector.matches({"a": "b"})
    assert not selector.is_empty
    assert LabelSelector().is_empty
    assert LabelSelector().matches({"any": "thing"})
    assert str(selector) == "a=b,c"
