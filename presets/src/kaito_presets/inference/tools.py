"""Tools of a chat completion: request fields, and the grammar of a forced call.

Used by `openai_schema`. With `tool_choice: required`, or the name of a function, the completion follows a grammar and
is parsed as JSON, whatever format the model was trained for (as in vLLM): a list of calls, or the arguments of the
named function.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaito_presets.inference.language_model import Grammar
from kaito_presets.inference.request_fields import field_error
from kaito_presets.inference.structured_outputs import schema_grammar
from kaito_presets.json_values import is_object

MAX_TOOLS: Final = 128
"""Most tools of a request (OpenAI API reference)."""
MAX_CALLS: Final = 16
"""Most calls of one completion with `tool_choice: required`; a small model would add calls until its length limit."""
NO_PARAMETERS: Final[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}


class FunctionDefinition(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments."""
    strict: bool | None = None
    """No effect: a forced call always follows the schema, and another one never has to."""


class Tool(BaseModel):
    """A tool; only functions are supported."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(BaseModel):
    """Name of a function."""

    model_config = ConfigDict(extra="allow")

    name: str


class NamedToolChoice(BaseModel):
    """A function that the model has to call."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: NamedFunction


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice


def forced_grammar(tools: list[Tool], choice: ToolChoice, *, parallel: bool) -> Grammar | None:
    """Returns the grammar of a forced call; None if the model decides.

    Raises:
        PydanticCustomError: the named function is not among the tools, or the schemas cannot be combined.
    """
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        chosen = next((tool for tool in tools if tool.function.name == name), None)
        if chosen is None:
            raise field_error("tool_choice", f"tool_choice: {name[:80]!r} is not among the tools")
        return schema_grammar(chosen.function.parameters or NO_PARAMETERS, "tools")
    if choice != "required":
        return None
    definitions: dict[str, Any] = {}
    calls = [_call_schema(tool.function, definitions) for tool in tools]
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_CALLS if parallel else 1}
    return schema_grammar(schema | {"items": {"anyOf": calls}} | definitions, "tools")


def _call_schema(function: FunctionDefinition, definitions: dict[str, Any]) -> dict[str, Any]:
    """Builds the schema of a call; moves the definitions of its parameters to the root, where references expect
    them."""
    parameters = dict(function.parameters or NO_PARAMETERS)
    for key in ("$defs", "definitions"):
        for name, definition in _object(parameters.pop(key, {})).items():
            if definitions.setdefault(key, {}).setdefault(name, definition) != definition:
                raise field_error("tools", f"tools: {key}.{name[:80]} has different meanings in two functions")
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _object(value: object) -> dict[str, Any]:
    return value if is_object(value) else {}


def template_tools(tools: list[Tool]) -> list[dict[str, Any]]:
    """Returns the tools for the chat template."""
    return [json.loads(tool.model_dump_json(exclude_none=True)) for tool in tools]
