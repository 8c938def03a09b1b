"""Servers of one process that install the same CustomResourceDefinition: what they share must not be visible."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaito.apiserver import ApiServer
from test.unit.apiserver.conftest import Client

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"


def definition(**spec: Any) -> dict[str, Any]:
    """A definition of widgets; `spec` is the schema of their spec."""
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def widget(name: str = "one", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def clients() -> list[Client]:
    return [Client(ApiServer(seed=seed)) for seed in (1, 2)]


async def test_each_server_completes_the_definition(clients: list[Client]) -> None:
    first, second = [await client.ok("POST", DEFINITIONS, definition()) for client in clients]
    assert first["spec"] == second["spec"]
    assert second["spec"]["names"] == {
        "plural": "widgets",
        "kind": "Widget",
        "listKind": "WidgetList",
        "singular": "widget",
    }
    assert second["spec"]["conversion"] == {"strategy": "None"}
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_an_unknown_field_is_reported_by_each_server(clients: list[Client]) -> None:
    unknown = definition()
    unknown["spec"]["color"] = "red"
    for client in clients:
        answer = await client.call("POST", DEFINITIONS, unknown, fieldValidation="Warn")
        assert answer.headers["warning"] == '299 - "unknown field \\"spec.color\\""'
        assert "color" not in answer.body["spec"]
        strict = await client.call("PUT", f"{DEFINITIONS}/widgets.example.com", unknown, fieldValidation="Strict")
        assert (strict.status, strict.body["reason"]) == (400, "BadRequest")
        assert 'unknown field "spec.color"' in strict.body["message"]


async def test_an_invalid_schema_is_rejected_by_each_server(clients: list[Client]) -> None:
    for client in clients:
        answer = await client.call("POST", DEFINITIONS, definition(properties={"size": {"type": "float"}}))
        assert answer.status == 422
        (cause,) = answer.body["details"]["causes"]
        where = "spec.validation.openAPIV3Schema.properties[spec].properties[size].type"
        assert (cause["reason"], cause["field"]) == ("FieldValueNotSupported", where)


async def test_a_change_of_the_schema_reaches_one_server(clients: list[Client]) -> None:
    small = definition(properties={"size": {"type": "integer", "maximum": 3, "default": 1}})
    large = definition(properties={"size": {"type": "integer", "maximum": 9, "default": 2}})
    for client in clients:
        await client.ok("POST", DEFINITIONS, small)
    stored = await clients[0].ok("GET", f"{DEFINITIONS}/widgets.example.com")
    large["metadata"] = stored["metadata"]
    await clients[0].ok("PUT", f"{DEFINITIONS}/widgets.example.com", large)
    sizes = [(await client.ok("POST", WIDGETS, widget()))["spec"]["size"] for client in clients]
    assert sizes == [2, 1]
    answers = [await client.call("POST", WIDGETS, widget("two", size=7)) for client in clients]
    assert [answer.status for answer in answers] == [201, 422]


async def test_a_default_is_a_copy_in_each_object(clients: list[Client]) -> None:
    lists = definition(properties={"zones": {"type": "array", "items": {"type": "string"}, "default": ["1"]}})
    for client in clients:
        await client.ok("POST", DEFINITIONS, lists)
    await clients[0].ok("POST", WIDGETS, widget())
    added = [{"op": "add", "path": "/spec/zones/-", "value": "2"}]
    changed = await clients[0].ok("PATCH", f"{WIDGETS}/one", added, content="application/json-patch+json")
    assert changed["spec"]["zones"] == ["1", "2"]
    for client in clients:
        assert (await client.ok("POST", WIDGETS, widget("two")))["spec"]["zones"] == ["1"]


async def test_a_rule_holds_in_each_server(clients: list[Client]) -> None:
    rules = [{"rule": "self.low <= self.high", "message": "low exceeds high"}]
    bounds = {"low": {"type": "integer"}, "high": {"type": "integer"}}
    for client in clients:
        await client.ok("POST", DEFINITIONS, definition(properties=bounds, **{"x-kubernetes-validations": rules}))
        assert (await client.call("POST", WIDGETS, widget(low=1, high=2))).status == 201
        answer = await client.call("POST", WIDGETS, widget("two", low=3, high=2))
        assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "spec")


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
async def test_a_repeated_field_is_reported_in_any_layout(client: Client, separators: tuple[str, str]) -> None:
    body = json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"key": "value"}},
        separators=separators,
    )
    path = "/api/v1/namespaces/default/configmaps"
    plain = await client.call("POST", path, body.encode(), fieldValidation="Warn")
    assert plain.status == 201
    assert "warning" not in plain.headers
    twice = body.replace('"one"', '"two"').replace(
        '{"key"', '{"key"' + separators[1] + '"first"' + separators[0] + '"key"'
    )
    answer = await client.call("POST", path, twice.encode(), fieldValidation="Warn")
    assert answer.headers["warning"] == '299 - "duplicate field \\"data.key\\""'
    assert answer.body["data"] == {"key": "value"}
