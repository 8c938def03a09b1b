"""The comparison of responses of two servers by `hack.clients`."""

import json
from typing import Any

import pytest

from hack.clients.comparison import Response, compare, joined
from hack.clients.requests import requests


def stream(*documents: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(document)}\n\n" for document in documents) + "data: [DONE]\n\n"


def chunk(**delta: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def test_chunks_of_a_stream_are_joined_to_the_same_completion() -> None:
    end: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    one = joined(stream(chunk(role="assistant", content=""), chunk(content="1, 2"), end))
    other = joined(stream(chunk(role="assistant", content="1"), chunk(content=", "), chunk(content="2"), end))
    assert one == other
    assert one["choices"]["0"]["delta"]["content"] == "1, 2"


def test_arguments_of_calls_are_joined_by_index() -> None:
    calls = [
        chunk(tool_calls=[{"index": index, "function": function}])
        for index, function in ((0, {"name": "a", "arguments": "{"}), (1, {"name": "b"}), (0, {"arguments": "}"}))
    ]
    found = joined(stream(*calls))["choices"]["0"]["delta"]["tool_calls"]
    assert {index: call["function"] for index, call in found.items()} == {
        "0": {"name": "a", "arguments": "{}"},
        "1": {"name": "b"},
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"id": "a", "text": "x"}, {"id": "b", "text": "x"}),
        ({"text": "x"}, {"text": "x", "logprobs": None, "calls": []}),
        ({"logprob": -0.5}, {"logprob": -0.5001}),
    ],
)
def test_responses_are_equal_for_a_client(ours: object, theirs: object) -> None:
    assert not compare(Response(200, ours), Response(200, theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (Response(400, {}), Response(200, {}), "status 400 instead of 200"),
        (Response(200, {"a": {"b": 1}}), Response(200, {"a": {"b": 2}}), ".a.b: 1 instead of 2"),
        (Response(200, {"a": [1]}), Response(200, {"a": [1, 2]}), ".a: [1] instead of [1, 2]"),
        (Response(200, {"a": -0.5}), Response(200, {"a": -0.6}), ".a: -0.5 instead of -0.6"),
        (Response(200, {}), Response(200, {"a": 0}), ".a: null instead of 0"),
    ],
)
def test_difference_is_reported_with_its_field(ours: Response, theirs: Response, difference: str) -> None:
    assert compare(ours, theirs) == [difference]


def test_names_of_requests_are_unique() -> None:
    names = [request.name for request in requests()]
    assert len(names) == len(set(names))
