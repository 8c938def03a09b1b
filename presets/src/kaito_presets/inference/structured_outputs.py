"""Reads the fields of OpenAI's and vLLM's requests that restrict a completion to a grammar.

Used by `openai_schema`: `response_format`, `structured_outputs`, and the older `guided_json`, `guided_regex`,
`guided_choice` and `guided_grammar` of vLLM. A request may contain one of them.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaito_presets.inference.language_model import Grammar
from kaito_presets.inference.request_fields import Strings, field_error
from kaito_presets.json_values import is_object

MAX_GRAMMAR_CHARACTERS: Final = 256 * 1024
"""Longest grammar or schema."""
ANY_OBJECT: Final = '{"type":"object"}'


class JsonSchemaFormat(BaseModel):
    """Object `json_schema` of `response_format`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """No effect: the text always follows the schema."""


class ResponseFormat(BaseModel):
    """Field `response_format`."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    def grammar(self) -> Grammar | None:
        """Returns the requested grammar, None for any text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Grammar("json_schema", ANY_OBJECT, "response_format")
        schema = None if self.json_schema is None else self.json_schema.json_schema
        if schema is None:
            raise field_error("response_format", "response_format: json_schema.schema is required")
        return schema_grammar(schema, "response_format")


class StructuredOutputs(BaseModel):
    """Field `structured_outputs` of vLLM."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    json_schema: dict[str, Any] | str | bool | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Annotated[Strings, Field(min_length=1, max_length=4096)] | None = None
    grammar: str | None = None
    """A grammar in the Lark format of llguidance."""
    structural_tag: None = None

    def to_grammar(self, field: str) -> Grammar:
        """Returns the requested grammar."""
        found: list[Grammar] = []
        if self.json_schema is not None:
            found.append(schema_grammar(self.json_schema, field))
        if self.json_object:
            found.append(Grammar("json_schema", ANY_OBJECT, field))
        if self.regex is not None:
            found.append(Grammar("regex", self.regex, field))
        if self.choice is not None:
            found.append(Grammar("choice", json.dumps(self.choice), field))
        if self.grammar is not None:
            found.append(Grammar("lark", self.grammar, field))
        if len(found) != 1:
            raise field_error(field, f"{field} needs exactly one of json, json_object, regex, choice, grammar")
        return _bounded(found[0])


def schema_grammar(schema: dict[str, Any] | str | bool, field: str) -> Grammar:
    """Builds the grammar of the JSON values that follow a schema.

    Raises:
        PydanticCustomError: the schema is not an object, or too large.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise field_error(field, f"{field}: the schema is not JSON: {error}") from error
    if schema is True:
        schema = {}
    if not is_object(schema):
        raise field_error(field, f"{field}: the schema must be a JSON object")
    try:
        # Not sorted: the order of the properties is the order in which the model generates them.
        source = json.dumps(schema, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise field_error(field, f"{field}: the schema is not valid JSON: {error}") from error
    return _bounded(Grammar("json_schema", source, field))


def _bounded(grammar: Grammar) -> Grammar:
    if len(grammar.source) > MAX_GRAMMAR_CHARACTERS:
        size = f"{len(grammar.source)} characters exceed {MAX_GRAMMAR_CHARACTERS}"
        raise field_error(grammar.field, f"{grammar.field}: {size}")
    return grammar
