"""The contract of `POST /chat`: bodies, defaults, and the rules for the length of prompt and answer.

Both servers read requests with these models and bind them to their engine. The contract is that of upstream Kaito's
transformers server (v0.3), field by field, with these deliberate differences:

* A prompt that does not fit is a 400, not a 500. An unknown key is a 422.
* The answer to a conversation is the text of its last message, not the `repr` of a Python dict.
* The default of 200 counts new tokens. (Upstream's 200 includes the prompt and truncates answers.) An explicit
  `max_length` keeps its meaning in transformers: prompt plus answer.
* A prompt without the marks of a chat template is a message of the user, if the model has a template. (Instruct models
  continue a bare text with nothing, or with noise.) `apply_chat_template` overrides this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kaito_presets.errors import BadRequest, PromptTooLong
from kaito_presets.json_values import abbreviate, is_object
from kaito_presets.serving.template_marks import has_template_marks

DEFAULT_NEW_TOKENS: Final = 200
"""New tokens of an answer when neither `max_new_tokens` nor `max_length` is set (upstream's number)."""

DEFAULT_TOP_K: Final = 10
"""Upstream's default of `generate_kwargs.top_k`; transformers' own is 50."""

MAX_LENGTH: Final = 2**31 - 1
"""Largest value of a length option."""

MAX_KEYS: Final = 64
"""Most keys of one JSON object in a body. Each unknown key is a validation error, so the number of keys bounds the
size of the error response."""

TURN_SEPARATOR: Final = "\n"
"""Text between the message and the answer in a result with the whole text."""


class _BoundedModel(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _count_keys(cls, value: object) -> object:
        if is_object(value) and len(value) > MAX_KEYS:
            raise ValueError(f"{len(value)} keys, of which at most {len(cls.model_fields)} are known")
        return value


class ChatMessage(_BoundedModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str


class ChatRequest(_BoundedModel):
    """Body of `POST /chat`."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] | None = None
    return_full_text: bool = True
    """Whether the result contains the prompt as well."""
    clean_up_tokenization_spaces: bool = False
    prefix: str | None = None
    """Text to put in front of the prompt."""
    handle_long_generation: Literal["hole"] | None = None
    """"hole": truncate a prompt that does not fit, on the left."""
    generate_kwargs: dict[str, JsonValue] | None = None
    """Options of transformers' `GenerationConfig`."""
    apply_chat_template: bool | None = None
    """Whether the prompt is a message of the user, which the model's chat template formats. By default it is one if the
    model has a template and the prompt contains no marks of one."""

    def is_turn(self, *, has_template: bool) -> bool:
        """Whether the prompt is a message of the user.

        Args:
            has_template: whether the model has a chat template.

        Raises:
            BadRequest: the request requires a template that the model does not have.
        """
        if self.apply_chat_template is None:
            return has_template and not has_template_marks(self.prompt or "")
        if self.apply_chat_template and not has_template:
            raise BadRequest("this model has no chat template; set --chat_template", param="apply_chat_template")
        return self.apply_chat_template

    def require_prompt(self) -> str:
        """Returns the prompt with its prefix.

        Raises:
            BadRequest: the request has no prompt.
        """
        if not self.prompt:
            raise BadRequest("Text generation parameter prompt required", param="prompt")
        return (self.prefix or "") + self.prompt


class ChatResponse(BaseModel):
    """Body of the response. The contract spells the key with a capital letter."""

    Result: str = Field(description="the generated text")

    @classmethod
    def of_prompt(cls, texts: Sequence[str], *, head: str) -> "ChatResponse":
        """Joins the answers to a prompt, each after `head` (the prompt, or nothing)."""
        return cls(Result="".join(head + text for text in texts))


@final
@dataclass(frozen=True, slots=True)
class LengthOptions:
    """The options of a request that bound the length of prompt and answer."""

    max_new_tokens: int | None
    max_length: int | None
    """Prompt plus answer. Has no effect when `max_new_tokens` is set, as in transformers."""
    truncates_prompt: bool
    """Whether `handle_long_generation` is "hole"."""

    @classmethod
    def take_from(cls, request: ChatRequest, options: dict[str, Any]) -> "LengthOptions":
        """Reads the length options of `request` and removes them from `options`, a copy of its `generate_kwargs`.

        Raises:
            BadRequest: a value is not a positive integer.
        """
        return cls(
            take_integer(options, "max_new_tokens", minimum=1, maximum=MAX_LENGTH),
            take_integer(options, "max_length", minimum=1, maximum=MAX_LENGTH),
            request.handle_long_generation == "hole",
        )

    @property
    def depends_on_prompt(self) -> bool:
        """Whether the number of prompt tokens must be known before the request can be sent to the engine."""
        return self.truncates_prompt or (self.max_length is not None and self.max_new_tokens is None)

    def new_tokens(self, prompt_tokens: int) -> int | None:
        """Computes the most new tokens of the answer; None if the request sets no bound.

        Raises:
            PromptTooLong: `max_length` leaves no token for the answer.
        """
        if self.max_new_tokens is not None or self.max_length is None:
            return self.max_new_tokens
        if self.max_length <= prompt_tokens and not self.truncates_prompt:
            raise PromptTooLong(
                f"generate_kwargs.max_length is {self.max_length} and includes the prompt, which has {prompt_tokens} "
                "tokens; use max_new_tokens to bound the answer alone",
                param="generate_kwargs.max_length",
            )
        return max(1, self.max_length - prompt_tokens)

    def kept_prompt_tokens(self, prompt_tokens: int, context_tokens: int) -> int:
        """Computes how many tokens of the prompt, counted from its end, remain after truncation.

        Raises:
            PromptTooLong: the answer alone does not fit the context.
        """
        if not self.truncates_prompt:
            return prompt_tokens
        new_tokens = self.new_tokens(prompt_tokens) or DEFAULT_NEW_TOKENS
        if new_tokens >= context_tokens:
            raise PromptTooLong(
                f"{new_tokens} new tokens do not fit a context of {context_tokens} tokens", param="generate_kwargs"
            )
        return min(prompt_tokens, context_tokens - new_tokens)


def take_integer(options: dict[str, Any], key: str, *, minimum: int, maximum: int) -> int | None:
    """Removes an option from `options` and returns its value, None if it is null or absent.

    Raises:
        BadRequest: the value is not an integer from `minimum` to `maximum`.
    """
    value = options.pop(key, None)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        accepted = "a positive integer" if minimum == 1 else f"an integer from {minimum} to {maximum}"
        raise BadRequest(f"generate_kwargs.{key} must be {accepted}, not {abbreviate(value)}", param=key)
    return value
