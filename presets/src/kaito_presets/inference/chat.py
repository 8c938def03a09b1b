"""`POST /chat`: the first contract of Kaito's transformers server, kept field by field (v0.3), without its
faults.

Mounted by `server`. Differences from upstream, all on the refusing side of the contract: a prompt that does
not fit is a 400 (not a 500), an unknown key is a 422, a conversational answer is the text of the last
message (not the string form of a Python dict), and the default of 200 counts new tokens (upstream's 200
includes the prompt and cuts answers). An explicit `max_length` keeps the meaning it has in transformers:
prompt plus output.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kaito_presets.errors import BadRequest, PromptTooLong
from kaito_presets.inference.language_model import Message, Option
from kaito_presets.inference.openai_schema import SEED_LIMIT
from kaito_presets.inference.service import Generation, Service
from kaito_presets.inference.text import brief
from kaito_presets.json_shapes import is_object

DEFAULT_NEW_TOKENS: Final = 200
"""Upstream's number (v0.3 `UnifiedRequestModel`), counted in new tokens."""

WHOLE_LIMIT: Final = 2**31 - 1
"""Lengths beyond this are refused before they are computed with."""

DEFAULT_OPTIONS: Final[Mapping[str, Option]] = {"do_sample": True, "top_k": 10}
"""Upstream's defaults of `generate_kwargs` that differ from transformers' own."""


MOST_KEYS: Final = 64
"""Keys of one object of a body; each unknown one is an error of its own."""


class _FewKeys(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _count_keys(cls, value: object) -> object:
        if is_object(value) and len(value) > MOST_KEYS:
            raise ValueError(f"{len(value)} keys, of which at most {len(cls.model_fields)} are known")
        return value


class ChatMessage(_FewKeys):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str


class ChatRequest(_FewKeys):
    """Body of `POST /chat`."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] | None = None
    return_full_text: bool = True
    """Prompt and completion, or the completion only."""
    clean_up_tokenization_spaces: bool = False
    prefix: str | None = None
    """Put before the prompt."""
    handle_long_generation: Literal["hole"] | None = None
    """"hole": drop the left part of a prompt that does not fit."""
    generate_kwargs: dict[str, JsonValue] | None = None
    """Anything transformers' GenerationConfig knows."""


class ChatResponse(BaseModel):
    """Body of the answer; the capital letter is the contract's."""

    Result: str = Field(description="the generated text")


async def answer(request: ChatRequest, service: Service, *, conversational: bool) -> ChatResponse:
    """Answer one request.

    Raises:
        RequestError: refused or failed.
    """
    if request.messages or (conversational and not request.prompt):
        return await _converse(request, service)
    if not request.prompt:
        raise BadRequest("Text generation parameter prompt required", param="prompt")
    text = (request.prefix or "") + request.prompt
    tokens = await service.encode(text)
    generation = _generation(request, tokens, service.info.context_tokens)
    completions = await service.complete(generation)
    head = ""
    if request.return_full_text:
        head = text if generation.prompt == tokens else service.decode(generation.prompt)
    return ChatResponse(Result="".join(head + completion.text for completion in completions))


async def _converse(request: ChatRequest, service: Service) -> ChatResponse:
    if not request.messages:
        raise BadRequest("Conversational parameter messages required", param="messages")
    messages = [Message(message.role, message.content) for message in request.messages]
    tokens = await service.encode(messages)
    completions = await service.complete(_generation(request, tokens, service.info.context_tokens))
    return ChatResponse(Result=completions[0].text)


def _generation(request: ChatRequest, tokens: list[int], context: int) -> Generation:
    asked: dict[str, Option] = dict(request.generate_kwargs or {})
    new_tokens = _whole_number(asked, "max_new_tokens")
    total = _whole_number(asked, "max_length")
    if total is not None and new_tokens is None:
        if request.handle_long_generation is None and total <= len(tokens):
            raise PromptTooLong(
                f"generate_kwargs.max_length is {total} and counts the prompt, which has {len(tokens)} tokens; "
                "use max_new_tokens to bound the answer alone",
                param="generate_kwargs.max_length",
            )
        new_tokens = max(1, total - len(tokens))
    if request.handle_long_generation == "hole":
        wanted = new_tokens or DEFAULT_NEW_TOKENS
        if wanted >= context:
            raise PromptTooLong(f"{wanted} new tokens do not fit a context of {context}", param="generate_kwargs")
        tokens = tokens[-(context - wanted) :]
    seed = _whole_number(asked, "seed")
    return Generation(
        prompt=tokens,
        options=asked,
        defaults=DEFAULT_OPTIONS,
        max_new_tokens=new_tokens,
        default_new_tokens=DEFAULT_NEW_TOKENS,
        seed=seed,
        clean_up_spaces=request.clean_up_tokenization_spaces,
    )


def _whole_number(options: dict[str, Option], key: str) -> int | None:
    """Take `key` out of the options."""
    value = options.pop(key, None)
    if value is None:
        return None
    low, high = (-SEED_LIMIT, SEED_LIMIT - 1) if key == "seed" else (1, WHOLE_LIMIT)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        kind = f"whole number from {low} to {high}" if key == "seed" else "positive whole number"
        raise BadRequest(f"generate_kwargs.{key} must be a {kind}, not {brief(value)}", param=key)
    return value
