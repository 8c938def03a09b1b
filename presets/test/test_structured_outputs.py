"""Completions that follow a JSON schema, a regular expression, choices or a grammar."""

import importlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel
from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import Grammar
from openai import AsyncOpenAI
from pydantic import BaseModel
from real_model import open_tiny, row, run
from running_server import Serve

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER = {"role": "user", "content": "hi"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"b": {"type": "boolean"}, "a": {"enum": ["x", "y"]}},
    "required": ["b", "a"],
    "additionalProperties": False,
}

FIELDS: list[tuple[dict[str, Any], Grammar | None]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"structured_outputs": None, "guided_json": None, "guided_choice": []}, None),
    ({"response_format": {"type": "json_object"}}, Grammar("json_schema", '{"type":"object"}', "response_format")),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}, "strict": True}}},
        Grammar("json_schema", '{"a":1}', "response_format"),
    ),
    ({"structured_outputs": {"json": '{"a": 1}'}}, Grammar("json_schema", '{"a":1}', "structured_outputs")),
    ({"structured_outputs": {"json": True}}, Grammar("json_schema", "{}", "structured_outputs")),
    (
        {"structured_outputs": {"json_object": True}},
        Grammar("json_schema", '{"type":"object"}', "structured_outputs"),
    ),
    ({"structured_outputs": {"regex": "a+"}}, Grammar("regex", "a+", "structured_outputs")),
    ({"structured_outputs": {"grammar": "start: x"}}, Grammar("lark", "start: x", "structured_outputs")),
    ({"guided_json": {"a": 1}}, Grammar("json_schema", '{"a":1}', "guided_json")),
    ({"guided_regex": "a+"}, Grammar("regex", "a+", "guided_regex")),
    ({"guided_choice": ["a", "b"]}, Grammar("choice", '["a", "b"]', "guided_choice")),
    ({"guided_grammar": "start: x"}, Grammar("lark", "start: x", "guided_grammar")),
]


@pytest.mark.parametrize(("fields", "grammar"), FIELDS)
@pytest.mark.parametrize("route", [CHAT, TEXT])
async def test_each_field_becomes_a_grammar(
    serve: Serve, route: str, fields: dict[str, Any], grammar: Grammar | None
) -> None:
    model = FakeModel()
    server = await serve(model)
    body = {"prompt": "a"} if route == TEXT else {"messages": [USER]}
    status, answer = await server.post(route, body | fields)
    assert status == 200, answer
    assert model.seen[-1].grammar == grammar


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}}, "response_format"),
    ({"response_format": "json"}, "response_format"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs"),
    ({"structured_outputs": {"json": "[1]"}}, "structured_outputs"),
    ({"structured_outputs": {"json": "[" * 50_000}}, "structured_outputs"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"guided_regex": "x" * 300_000}, "guided_regex"),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    ({"guided_regex": "unsupported"}, "guided_regex"),
    ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ({"guided_regex": "a", "min_tokens": 3}, "min_tokens"),
    ({"guided_regex": "a", "use_beam_search": True}, "use_beam_search"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
async def test_wrong_grammar_is_refused_with_its_field(serve: Serve, fields: dict[str, Any], param: str) -> None:
    server = await serve(max_request_bytes=2**20)
    status, answer = await server.post(CHAT, {"messages": [USER], **fields})
    assert status == 400
    assert answer["error"]["param"].startswith(param)
    assert len(answer["error"]["message"]) < 1_000


class Answer(BaseModel):
    b: bool
    a: str


async def test_parse_of_the_openai_client(serve: Serve) -> None:
    server = await serve(FakeModel(reply=lambda _: '{"b": true, "a": "x"}'))
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0) as api:
        answer = await api.chat.completions.parse(
            model="fake", messages=[{"role": "user", "content": "x"}], response_format=Answer
        )
    assert answer.choices[0].message.parsed == Answer(b=True, a="x")


# The tiny model.


def schema_of(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value), "response_format")


GRAMMARS = [
    (schema_of(SCHEMA), r'\{\s*"b"\s*:\s*(true|false)\s*,\s*"a"\s*:\s*"[xy]"\s*\}'),
    (Grammar("regex", "[a-c]{3}-[0-9]{2}", "guided_regex"), "[a-c]{3}-[0-9]{2}"),
    (Grammar("choice", '["yes", "no \\"way\\"", "maybe é"]', "guided_choice"), 'yes|no "way"|maybe é'),
    (Grammar("lark", 'start: "A" b+\nb: "b"', "guided_grammar"), "Ab+"),
]


def texts(model: Any, tokens: Sequence[Sequence[int]]) -> list[str]:
    return [model.decode(one) for one in tokens]


@pytest.mark.model
def test_rows_with_grammars_follow_them_beside_rows_without(tiny_model: Path) -> None:
    """Each row of a batch has its own grammar, and a row without one gets the tokens that it gets alone."""
    model = open_tiny(tiny_model)
    [alone] = run(model, [row(model, "Tell me")])
    rows = [row(model, "Tell me")]
    for index, (grammar, _) in enumerate(GRAMMARS):
        sampled = {"do_sample": True, "temperature": 1.5, "seed": index}
        compiled = model.compile_grammar(grammar)
        rows += [row(model, "Tell me", 40, grammar=compiled, **options) for options in ({}, sampled)]
    [first, *restricted] = run(model, rows)
    assert first == alone
    for index, text in enumerate(texts(model, restricted)):
        pattern = GRAMMARS[index // 2][1]
        complete = restricted[index][-1] in rows[index + 1].plan.end_tokens
        assert complete or index // 2 == 3, text  # "Ab+" may be longer than the limit
        assert re.fullmatch(pattern, text), (pattern, text)


@pytest.mark.model
@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (schema_of({"type": "nonsense"}), "nonsense"),
        (schema_of({"not": {"type": "string"}}), "not"),
        (schema_of({"$ref": "http://127.0.0.1:1/x"}), "http://127.0.0.1:1/x"),
        (schema_of({"type": "string", "pattern": "(?=x)y"}), "look-around"),
        (Grammar("regex", "(", "guided_regex"), "unclosed group"),
        (Grammar("lark", "start: nope", "guided_grammar"), "nope"),
        (Grammar("json_schema", '{"a":' * 10_000 + "1" + "}" * 10_000, "response_format"), "recursion"),
    ],
)
def test_unsupported_grammar_is_a_clear_error(tiny_model: Path, grammar: Grammar, words: str) -> None:
    model = open_tiny(tiny_model)
    with pytest.raises(BadRequest, match=re.escape(words)) as caught:
        model.compile_grammar(grammar)
    assert caught.value.param == grammar.field
    assert len(caught.value.message) < 1_000


@pytest.mark.model
def test_row_whose_options_exclude_its_grammar_fails_alone(tiny_model: Path) -> None:
    model = open_tiny(tiny_model)
    [alone] = run(model, [row(model, "Tell me", 5)])
    [letter] = model.encode("z")
    others = [token for token in range(model.info.vocabulary) if token != letter]
    compiled = model.compile_grammar(Grammar("regex", "za", "guided_regex"))
    rows = [row(model, "Tell me", 5), row(model, "Tell me", 5, grammar=compiled, suppress_tokens=others)]
    errors: list[str] = []
    outputs = model.prefill(rows)
    for _ in range(4):
        for output in outputs:
            if output.error is not None:
                errors.append(output.error.message)
                model.remove([output.row])
            else:
                output.row.output_tokens.append(output.token)
        outputs = model.step()
    assert rows[0].output_tokens == alone[:4]
    assert rows[1].output_tokens == [letter]
    assert len(errors) == 1
    assert "exclude every token" in errors[0]


@pytest.mark.model
@pytest.mark.parametrize("options", [{}, {"do_sample": True}])
def test_grammar_without_a_possible_token_is_the_error_also_when_tokens_are_sampled(
    tiny_model: Path, options: dict[str, Any]
) -> None:
    torch: Any = importlib.import_module("torch")
    sampling: Any = importlib.import_module("kaito_presets.inference.backend.sampling")

    model = open_tiny(tiny_model)
    compiled = model.compile_grammar(Grammar("regex", "za", "guided_regex"))
    logits = torch.full((1, model.info.vocabulary), -torch.inf)
    logits[0, model.encode("b")[0]] = 0.0
    choice = sampling.Sampler().choose([row(model, "Tell me", 5, grammar=compiled, **options)], logits)
    assert "the grammar of this request allows no token" in choice.errors[0].message


@pytest.mark.model
async def test_log_probabilities_are_those_among_the_allowed_tokens(serve: Serve, tiny_model: Path) -> None:
    """As in vLLM: the probabilities of choices compare the choices, not them and everything else."""
    server = await serve(open_tiny(tiny_model))
    body = {"prompt": "x", "logprobs": 2, "temperature": 0, "structured_outputs": {"choice": ["a", "b"]}}
    _, answer = await server.post(TEXT, body)
    first = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    assert set(first) == {"a", "b"}
    assert sum(math.exp(value) for value in first.values()) == pytest.approx(1, abs=1e-3)
