"""Schemas of the requests to OpenAI's routes.

Used by `openai_routes`. Each field is implemented, or follows the rules of `request_fields`: it is ignored if it cannot
change the text, and rejected by name if it would. Sources: OpenAI API reference, chat and completions; requests of vLLM
0.32 (`top_k`, `min_p`, `ignore_eos`).
"""

import json
from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator, model_validator

from kaito_presets.inference.language_model import Grammar
from kaito_presets.inference.request_fields import (
    MAX_LENGTH,
    SEED_LIMIT,
    Biases,
    Integer,
    Number,
    StopTokens,
    Strings,
    field_error,
    ignored_fields,
    is_empty,
    parse_prompts,
    reject_text_changing_fields,
)
from kaito_presets.inference.structured_outputs import ResponseFormat, StructuredOutputs
from kaito_presets.inference.tools import Tool, ToolChoice, Tools, forced_grammar
from kaito_presets.json_values import is_object

MAX_LISTED_FIELDS: Final = 20
"""Most names of ignored fields in the header of a response."""
MAX_DETOKENIZED: Final = 2**20
"""Most tokens of a request to `/detokenize`."""
MAX_LOGPROBS: Final = 20
"""Most alternatives per token with log probabilities (OpenAI API reference)."""


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    """Whether each chunk contains the token counts so far (vLLM); needs `include_usage`."""


class SamplingRequest(BaseModel):
    """Fields of both routes."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, gt=0, le=1)
    n: Integer | None = Field(default=1, ge=1, le=128)
    stop: str | Strings | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    seed: Integer | None = Field(default=None, ge=-SEED_LIMIT, lt=SEED_LIMIT)
    max_tokens: Integer | None = Field(default=None, ge=0, le=MAX_LENGTH)
    frequency_penalty: Number | None = Field(default=None, ge=-2, le=2)
    presence_penalty: Number | None = Field(default=None, ge=-2, le=2)
    logit_bias: Biases | None = None
    # Extensions of vLLM.
    top_k: Integer | None = Field(default=None, ge=-1, le=MAX_LENGTH)
    min_p: Number | None = Field(default=None, ge=0, le=1)
    typical_p: Number | None = Field(default=None, gt=0, le=1)
    repetition_penalty: Number | None = Field(default=None, gt=0, le=1e6)
    min_tokens: Integer | None = Field(default=None, ge=0, le=MAX_LENGTH)
    ignore_eos: bool | None = False
    stop_token_ids: StopTokens | None = None
    skip_special_tokens: bool | None = True
    include_stop_str_in_output: bool | None = False
    """Whether the text ends with the stop string or the stop token that ended it."""
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Integer | None = Field(default=None, ge=-1, le=MAX_LENGTH)
    """Number of tokens of the prompt that are kept; -1 is the context length."""
    truncation_side: Literal["left", "right"] | None = "left"
    """Side of the prompt on which `truncate_prompt_tokens` removes tokens."""
    prompt_logprobs: Integer | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    """Number of alternatives per token of the prompt with log probabilities; not for streams."""
    return_token_ids: bool | None = False
    """Whether the response contains `prompt_token_ids`, and `token_ids` in each choice."""
    return_tokens_as_token_ids: bool | None = False
    """Whether log probabilities name tokens by `token_id:NUMBER` instead of their text."""
    response_format: ResponseFormat | None = None
    """`text`, `json_object`, or `json_schema` with a schema that the completion follows."""
    structured_outputs: StructuredOutputs | None = None
    """One of `json` (a schema), `json_object`, `regex`, `choice` (a list of texts) and `grammar` (Lark)."""
    guided_json: dict[str, Any] | str | None = None
    """The same as `structured_outputs.json`; likewise the next three."""
    guided_regex: str | None = None
    guided_choice: Strings | None = None
    guided_grammar: str | None = None
    use_beam_search: bool | None = False
    """Whether `n` beams are searched and returned; runs outside the batch, and not as a stream."""
    length_penalty: Number | None = Field(default=1, ge=-100, le=100)
    """Exponent of the length that scores of beams are divided by."""

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > 16:
            raise ValueError("at most 16 stop strings")
        return value

    @model_validator(mode="after")
    def _reject_unsupported(self) -> "SamplingRequest":
        reject_text_changing_fields(self)
        if self.stream_options is not None and not self.stream:
            raise field_error("stream_options", "stream_options needs stream=true")
        if self.prompt_logprobs is not None and self.stream:
            raise field_error("prompt_logprobs", "prompt_logprobs is not available with stream=true")
        if self.truncate_prompt_tokens == 0:
            raise field_error("truncate_prompt_tokens", "truncate_prompt_tokens must be -1 or at least 1")
        if self.min_tokens and self.new_tokens is not None and self.min_tokens > self.new_tokens:
            raise field_error("min_tokens", "min_tokens is greater than the most new tokens of the completion")
        self._check_beams()
        grammar = self.grammar
        if grammar is not None:
            for name in ("ignore_eos", "min_tokens", "use_beam_search"):
                if getattr(self, name):
                    raise field_error(name, f"{name} cannot be combined with {grammar.field}")
        return self

    def _check_beams(self) -> None:
        if not self.use_beam_search:
            if self.length_penalty not in (None, 1):
                raise field_error("length_penalty", "length_penalty needs use_beam_search=true")
            return
        if self.stream:
            raise field_error("use_beam_search", "use_beam_search is not available with stream=true")
        for name in ("stop", "frequency_penalty", "presence_penalty", "logit_bias"):
            if getattr(self, name):
                raise field_error(name, f"{name} cannot be combined with use_beam_search")

    @cached_property
    def grammar(self) -> Grammar | None:
        """The grammar that the completion follows."""
        return self.requested_grammar()

    def requested_grammar(self) -> Grammar | None:
        """Returns the grammar that the fields of both routes request.

        Raises:
            PydanticCustomError: they request several, or a wrong one.
        """
        found: list[Grammar] = []
        if self.response_format is not None and (requested := self.response_format.grammar()) is not None:
            found.append(requested)
        if self.structured_outputs is not None:
            found.append(self.structured_outputs.to_grammar("structured_outputs"))
        found.extend(
            StructuredOutputs.model_validate({kind: value}).to_grammar(f"guided_{kind}")
            for kind in ("json", "regex", "choice", "grammar")
            if not is_empty(value := getattr(self, f"guided_{kind}"))
        )
        if len(found) > 1:
            raise field_error(found[1].field, f"{found[1].field} cannot be combined with {found[0].field}")
        return found[0] if found else None

    @property
    def new_tokens(self) -> int | None:
        """Most new tokens of the completion."""
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def ignored(self) -> list[str]:
        """Names of unknown fields, which are ignored; at most `MAX_LISTED_FIELDS`."""
        return list(islice(self._ignored(), MAX_LISTED_FIELDS))

    def _ignored(self) -> Iterable[str]:
        yield from ignored_fields(self)
        if self.stream_options is not None:
            yield from ignored_fields(self.stream_options, "stream_options.")

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream contains the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream contains the token counts so far."""
        return bool(self.include_usage and self.stream_options and self.stream_options.continuous_usage_stats)


class TextPart(BaseModel):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: str


TEMPLATE_FIELDS: Final = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
"""Fields of a message that are passed to the chat template besides role and content."""


class ChatCompletionMessage(BaseModel):
    """One message. `TEMPLATE_FIELDS` are passed to the chat template, which defines their meaning."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @model_validator(mode="after")
    def _known(self) -> "ChatCompletionMessage":
        reject_text_changing_fields(self)
        for call in self.tool_calls or []:
            function = call.get("function")
            if not is_object(function) or not isinstance(function.get("name"), str):
                raise ValueError("tool_calls: each needs a function with a name")
            _decode_arguments(function)
        return self

    @property
    def text(self) -> str:
        """The content as one text; parts are separated by line breaks, as in vLLM."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    @property
    def extra(self) -> dict[str, Any]:
        """The fields for the chat template besides role and content."""
        return {name: value for name in TEMPLATE_FIELDS if not is_empty(value := getattr(self, name))}


def _decode_arguments(function: dict[str, Any]) -> None:
    """Parses the arguments of a function call: OpenAI's API sends JSON text, chat templates expect an object."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"tool_calls: arguments are not JSON: {error}") from error


class ChatCompletionRequest(SamplingRequest):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[ChatCompletionMessage], Field(min_length=1, fail_fast=True)]
    max_tokens: Integer | None = Field(default=None, ge=1, le=MAX_LENGTH)
    max_completion_tokens: Integer | None = Field(default=None, ge=1, le=MAX_LENGTH)
    logprobs: bool | None = False
    top_logprobs: Integer | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    tools: Tools | None = None
    """Functions that the model may call: `{"type": "function", "function": {"name", "description", "parameters"}}`."""
    tool_choice: ToolChoice | None = None
    """`auto` (default), `none`, `required`, or `{"type": "function", "function": {"name"}}`. The last two restrict the
    completion by a grammar."""
    parallel_tool_calls: bool | None = True
    """Whether `required` allows several calls."""
    # Options of the chat template.
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = True
    continue_final_message: bool | None = False
    chat_template_kwargs: dict[str, Any] | None = None
    echo: bool | None = False
    """Whether the answer starts with the content of the last message, if that is the assistant's."""

    @model_validator(mode="after")
    def _reject_unsupported_chat(self) -> "ChatCompletionRequest":
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise field_error("tool_choice", "tool_choice needs tools")
        if self.active_tools and (grammar := self.requested_grammar()) is not None:
            # No grammar describes both a call and an answer.
            raise field_error(grammar.field, f"{grammar.field} cannot be combined with tools, except tool_choice none")
        if self.top_logprobs and not self.logprobs:
            raise field_error("top_logprobs", "top_logprobs needs logprobs=true")
        if (
            self.continue_final_message
            and self.add_generation_prompt
            and "add_generation_prompt" in self.model_fields_set
        ):
            raise field_error(
                "continue_final_message", "continue_final_message and add_generation_prompt exclude each other"
            )
        return self

    @field_validator("chat_template_kwargs")
    @classmethod
    def _reject_reserved_names(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        taken = sorted(set(value or {}) & RESERVED_TEMPLATE_NAMES)
        if taken:
            raise ValueError(f"{taken[0]} cannot be set here")
        return value

    def _ignored(self) -> Iterable[str]:
        yield from super()._ignored()
        for message in self.messages:
            yield from ignored_fields(message, "messages.")

    @property
    def active_tools(self) -> list[Tool]:
        """The tools that the model may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    @cached_property
    def forced(self) -> Grammar | None:
        """The grammar of a call that the model has to make."""
        if not self.active_tools or self.tool_choice is None:
            return None
        return forced_grammar(
            self.active_tools, self.tool_choice, parallel=self.parallel_tool_calls is not False
        )  # fmt: skip

    @cached_property
    def grammar(self) -> Grammar | None:
        """The grammar that the completion follows, of a forced call or of the other fields."""
        return self.forced or self.requested_grammar()

    @property
    def new_tokens(self) -> int | None:
        """Most new tokens of the completion."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def answer_role(self) -> str:
        """Role of the answer: the assistant's, or that of the last message if no turn of the assistant was begun."""
        return self.messages[-1].role if self.add_generation_prompt is False else "assistant"

    @property
    def template_variables(self) -> dict[str, Any]:
        """Variables for the chat template."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return {**effort, **(self.chat_template_kwargs or {})}


RESERVED_TEMPLATE_NAMES: Final = frozenset(
    {
        "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt",
        "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs", "self",
    }
)  # fmt: skip
"""Arguments of `apply_chat_template`, which `chat_template_kwargs` must not replace."""


class TokenizeChatRequest(ChatCompletionRequest):
    """Body of `/tokenize` with a conversation."""

    return_token_strs: bool | None = False
    """Whether the response contains the entry of each token in the vocabulary."""


class TokenizeRequest(BaseModel):
    """Body of `/tokenize` with a prompt."""

    model_config = ConfigDict(extra="allow")

    prompt: str
    """Text; instead of it, `messages` and the fields of the chat template."""
    model: str | None = None
    add_special_tokens: bool | None = True
    """Whether the special tokens of the tokenizer, such as a start token, are added."""
    return_token_strs: bool | None = False
    """Whether the response contains the entry of each token in the vocabulary."""


class DetokenizeRequest(BaseModel):
    """Body of `/detokenize`."""

    model_config = ConfigDict(extra="allow")

    tokens: Annotated[list[Integer], Field(max_length=MAX_DETOKENIZED, fail_fast=True)]
    model: str | None = None


class CompletionRequest(SamplingRequest):
    """Body of `/v1/completions`."""

    prompts: Annotated[list[str | list[int]], PlainValidator(parse_prompts), Field(alias="prompt")]
    echo: bool | None = False
    logprobs: Integer | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    best_of: Integer | None = None
    """Accepted at the value of `n`."""

    @model_validator(mode="after")
    def _reject_unsupported_completion(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise field_error("best_of", "best_of other than n is not supported by this server")
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise field_error("max_tokens", "max_tokens 0 generates nothing; it needs echo=true or prompt_logprobs")
        return self
