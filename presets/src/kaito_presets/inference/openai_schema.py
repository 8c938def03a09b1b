"""Schemas of the requests to OpenAI's routes.

Used by `openai_routes`. Each field is implemented, or cannot affect the text by definition (`user`, `metadata`), or is
rejected by name. A field of a missing feature (tools, structured output) is accepted at its neutral values: null, an
empty value, and its documented default. Unknown fields are rejected unless they are null or empty, because a client
would otherwise not notice a misspelled or unsupported option. Sources: OpenAI API reference, chat and completions;
requests of vLLM 0.32 (`top_k`, `min_p`, `ignore_eos`).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kaito_presets.json_values import abbreviate, is_list, is_object


def field_error(field: str, message: str) -> PydanticCustomError:
    """Builds the error of a field that a validator of the whole body rejects; the response names it in `param`."""
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic reports a ValueError
    return value


Integer = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_not_a_boolean)]
"""pydantic's own `int` and `float` accept true as 1."""

# A list in a body may contain a million items. Validation stops at the first wrong item (`fail_fast`): an error for
# each would take seconds of the event loop and megabytes of the response.
StopTokens = Annotated[list[Integer], Field(max_length=1024, fail_fast=True)]
Strings = Annotated[list[str], Field(fail_fast=True)]

MAX_BIASES: Final = 1024
"""Most tokens with a bias in one request."""


def _few_biases(value: object) -> object:
    if is_object(value) and len(value) > MAX_BIASES:
        raise ValueError(f"at most {MAX_BIASES} tokens can have a bias, not {len(value)}")
    return value


Biases = Annotated[dict[str, Number], BeforeValidator(_few_biases)]

PROMPT_SHAPES: Final = "must be text, a list of texts, a list of token ids, or a list of such lists"


def _prompts(value: object) -> list[str | list[int]]:
    """Parses the prompts of a request.

    pydantic would try a union of the four shapes one after the other and report the errors of each.
    """
    if isinstance(value, str):
        return [value]
    if not is_list(value):
        raise ValueError(f"{PROMPT_SHAPES}, not {abbreviate(value)}")
    if value and _number_of(value[0]) is not None:
        return [_token_ids(value, "")]
    return [item if isinstance(item, str) else _token_ids(item, f"[{index}]") for index, item in enumerate(value)]


def _token_ids(value: object, where: str) -> list[int]:
    if not is_list(value):
        raise ValueError(f"{PROMPT_SHAPES}; prompt{where} is {abbreviate(value)}")
    result: list[int] = []
    for index, item in enumerate(value):
        token = _number_of(item)
        if token is None:
            raise ValueError(f"{PROMPT_SHAPES}; prompt{where}[{index}] is {abbreviate(item)}")
        result.append(token)
    return result


def _number_of(value: object) -> int | None:
    """Returns an integer, or None for another value; in JSON, 1.0 is an integer too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


MAX_LENGTH: Final = 2**31 - 1
SEED_LIMIT: Final = 2**63
"""Seeds are signed 64-bit numbers, as in vLLM and torch."""

ANY: Final = object()
"""Marks a field that is accepted at every value."""

NEUTRAL_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    # OpenAI: billing, storage, caching and speed.
    "user": (ANY,), "metadata": (ANY,), "store": (ANY,), "service_tier": (ANY,), "safety_identifier": (ANY,),
    "prompt_cache_key": (ANY,), "prompt_cache_retention": (ANY,), "prediction": (ANY,),
    # OpenAI: features.
    "modalities": (["text"],), "verbosity": ("medium",), "function_call": ("none", "auto"),
    # vLLM.
    "use_beam_search": (False,), "length_penalty": (1,), "priority": (0,), "early_stopping": (False,),
    "include_stop_str_in_output": (False,), "spaces_between_special_tokens": (True,), "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,), "detokenize": (True,), "cache_salt": (ANY,), "request_id": (ANY,),
    "include_reasoning": (True,), "echo": (False,), "best_of": (1,),
    # Other servers and their clients (llama.cpp, text-generation-webui, Ollama, KoboldCpp).
    "add_bos_token": (True,), "ban_eos_token": (False,), "cache_prompt": (ANY,), "keep_alive": (ANY,),
    "repeat_penalty": (1,), "rep_pen": (1,), "tfs": (1,), "tfs_z": (1,), "top_a": (0,), "mirostat": (0,),
    "mirostat_mode": (0,), "penalty_alpha": (0,), "num_beams": (1,), "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "guidance_scale": (1,),
    "dry_multiplier": (0,), "xtc_probability": (0,), "smoothing_factor": (0,), "dynamic_temperature": (False,),
    "min_length": (0,), "temperature_last": (False,),
}  # fmt: skip
"""Neutral values, besides null and empty ones, of fields that the models below do not declare."""

UNSUPPORTED_FIELDS: Final[Mapping[str, str]] = {
    "functions": "functions are not supported by the transformers runtime; the vLLM runtime has tools",
    "prompt_logprobs": "prompt_logprobs is not supported by this server; /v1/completions with echo and logprobs is",
}
"""Messages for unsupported fields that clients use often."""


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _is_neutral(name: str, value: object) -> bool:
    if _is_empty(value):
        return True
    return any(
        accepted is ANY or (accepted == value and isinstance(accepted, bool) == isinstance(value, bool))
        for accepted in NEUTRAL_VALUES.get(name, ())
    )


def _reject_extra_fields(body: BaseModel) -> None:
    for name, value in (body.model_extra or {}).items():
        if not _is_neutral(name, value):
            unknown = f"{name[:80]}: not a field of this server (accepted only at null or an empty value)"
            raise field_error(name[:80], UNSUPPORTED_FIELDS.get(name, unknown))


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    """Whether each chunk contains the token counts so far (vLLM)."""
    include_obfuscation: Literal[False] | None = None

    @model_validator(mode="after")
    def _known(self) -> "StreamOptions":
        _reject_extra_fields(self)
        return self


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
    add_special_tokens: bool | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > 16:
            raise ValueError("at most 16 stop strings")
        return value

    @model_validator(mode="after")
    def _reject_unsupported(self) -> "SamplingRequest":
        _reject_extra_fields(self)
        if self.stream_options is not None and not self.stream:
            raise field_error("stream_options", "stream_options needs stream=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream contains the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream contains the token counts so far."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


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
        _reject_extra_fields(self)
        for call in self.tool_calls or []:
            function = call.get("function")
            if not is_object(function) or not isinstance(function.get("name"), str):
                raise ValueError("tool_calls: each needs a function with a name")
            _decode_arguments(function)
        return self

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def extra(self) -> dict[str, Any]:
        """The fields for the chat template besides role and content."""
        return {name: value for name in TEMPLATE_FIELDS if not _is_empty(value := getattr(self, name))}


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
    top_logprobs: Integer | None = Field(default=None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    # Options of the chat template.
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = True
    continue_final_message: bool | None = False
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _reject_unsupported_chat(self) -> "ChatCompletionRequest":
        if self.tools and self.tool_choice != "none":
            raise field_error(
                "tools",
                "tools are not supported by the transformers runtime (the vLLM runtime has them); tool_choice=none "
                "switches them off",
            )
        if self.tool_choice not in (None, "none", "auto"):
            raise field_error("tool_choice", "tool_choice: tools are not supported by the transformers runtime")
        if self.response_format and self.response_format.get("type") != "text":
            raise field_error("response_format", "response_format other than text is not supported by this server")
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

    @property
    def new_tokens(self) -> int | None:
        """Most new tokens of the completion."""
        return self.max_completion_tokens or self.max_tokens

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


class CompletionRequest(SamplingRequest):
    """Body of `/v1/completions`."""

    prompts: Annotated[list[str | list[int]], PlainValidator(_prompts), Field(alias="prompt")]
    echo: bool | None = False
    logprobs: Integer | None = Field(default=None, ge=0, le=20)
    suffix: str | None = None
    best_of: Integer | None = None

    @model_validator(mode="after")
    def _reject_unsupported_completion(self) -> "CompletionRequest":
        if self.suffix:
            raise field_error("suffix", "suffix is not supported by this server")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise field_error("best_of", "best_of other than n is not supported by this server")
        if self.max_tokens == 0 and not self.echo:
            raise field_error("max_tokens", "max_tokens 0 generates nothing; it needs echo=true")
        return self
