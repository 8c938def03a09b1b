"""CEL rules: the answers that are remembered stay true when the values change."""

from __future__ import annotations

from typing import Any

import pytest

from kaito.apiserver.cel.rules import RuleSyntaxError, compile_rule, rule_errors
from kaito.apiserver.schema.structural import Schema


def schema(rules: list[dict[str, Any]], **properties: Any) -> Schema:
    return Schema({"type": "object", "x-kubernetes-validations": rules, "properties": properties})


def thing(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}, **fields}


NUMBER = {"type": "integer"}
TEXT = {"type": "string"}


def test_a_remembered_answer_holds_for_the_fields_it_was_asked_about() -> None:
    node = schema([{"rule": "self.a < self.b", "message": "a below b"}], a=NUMBER, b=NUMBER, c=TEXT)
    assert rule_errors(thing(a=1, b=2, c="x"), node, None) == []
    assert rule_errors(thing(a=1, b=2, c="y"), node, None) == []
    assert [error.detail for error in rule_errors(thing(a=3, b=2, c="x"), node, None)] == ["a below b"]
    assert rule_errors(thing(a=1, b=2), node, None) == []


def test_transition_rules_are_asked_with_both_values() -> None:
    node = schema([{"rule": "self.a == oldSelf.a", "message": "fixed"}], a=NUMBER)
    assert rule_errors(thing(a=2), node, None) == []
    assert rule_errors(thing(a=2), node, thing(a=2)) == []
    assert [error.detail for error in rule_errors(thing(a=2), node, thing(a=1))] == ["fixed"]


def test_rules_that_use_self_as_a_whole_see_every_change() -> None:
    items = {
        "type": "array",
        "items": TEXT,
        "x-kubernetes-validations": [{"rule": "self.all(x, x.size() < 3)", "message": "short"}],
    }
    node = schema([], names=items)
    assert rule_errors(thing(names=["a"]), node, None) == []
    assert [error.field for error in rule_errors(thing(names=["a", "long"]), node, None)] == ["names"]


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("self.?a.orValue(7) == 7", {}, True),
        ("self.?a.?b.hasValue()", {"a": {"b": "x"}}, True),
        ("self.?a.?b.hasValue()", {"a": {}}, False),
        ("'.?' in ['.?']", {}, True),
        ("self.l[?1].orValue('none')", {"l": ["a"]}, "none"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", {}, True),
        ("isURL('https://example.com/x') && url('https://example.com:8/x').getPort() == '8'", {}, True),
        ("['b', 'a'].isSorted()", {}, False),
        ("'%s has %d'.format(['x', 3])", {}, "x has 3"),
    ],
)
def test_the_kubernetes_libraries(expression: str, value: dict[str, Any], expected: object) -> None:
    from kaito.apiserver.cel.values import plain

    assert compile_rule(expression).evaluate({"self": plain(value)}) == expected


def test_what_is_not_cel_is_a_syntax_error() -> None:
    with pytest.raises(RuleSyntaxError):
        compile_rule("self ==")
