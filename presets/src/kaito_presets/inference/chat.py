"""Serves `POST /chat` with the transformers model.

Called by `server`; the contract is in `kaito_presets.serving.chat`.
"""

from collections.abc import Mapping
from typing import Final

from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import Message, Option
from kaito_presets.inference.request_fields import SEED_LIMIT
from kaito_presets.inference.service import GenerationRequest, GenerationService
from kaito_presets.serving.chat import (
    DEFAULT_NEW_TOKENS,
    DEFAULT_TOP_K,
    TURN_SEPARATOR,
    ChatRequest,
    ChatResponse,
    LengthOptions,
    take_integer,
)

DEFAULT_OPTIONS: Final[Mapping[str, Option]] = {"do_sample": True, "top_k": DEFAULT_TOP_K}
"""Upstream's defaults of `generate_kwargs` that differ from transformers' own."""


async def answer(request: ChatRequest, service: GenerationService, *, conversational: bool) -> ChatResponse:
    """Answers one request.

    Args:
        request: the body of the request.
        service: the loaded model.
        conversational: whether a request without prompt must have messages (`--pipeline conversational`).

    Raises:
        RequestError: the request is refused, or the model failed.
    """
    if request.messages or (conversational and not request.prompt):
        return await _converse(request, service)
    text = request.require_prompt()
    is_turn = request.is_turn(has_template=service.info.has_chat_template)
    tokens = await service.encode([Message("user", text)] if is_turn else text)
    generation = _generation(request, tokens, service.info.context_tokens)
    completions = await service.complete(generation)
    head = ""
    if request.return_full_text:
        head = text if generation.prompt == tokens else service.decode(generation.prompt)
        head += TURN_SEPARATOR if is_turn else ""
    return ChatResponse.of_prompt([completion.text for completion in completions], head=head)


async def _converse(request: ChatRequest, service: GenerationService) -> ChatResponse:
    if not request.messages:
        raise BadRequest("Conversational parameter messages required", param="messages")
    messages = [Message(message.role, message.content) for message in request.messages]
    tokens = await service.encode(messages)
    completions = await service.complete(_generation(request, tokens, service.info.context_tokens))
    return ChatResponse(Result=completions[0].text)


def _generation(request: ChatRequest, tokens: list[int], context_tokens: int) -> GenerationRequest:
    options: dict[str, Option] = dict(request.generate_kwargs or {})
    lengths = LengthOptions.take_from(request, options)
    new_tokens = lengths.new_tokens(len(tokens))
    count = lengths.kept_prompt_tokens(len(tokens), context_tokens)
    return GenerationRequest(
        prompt=tokens[len(tokens) - count :],
        options=options,
        defaults=DEFAULT_OPTIONS,
        max_new_tokens=new_tokens,
        default_new_tokens=DEFAULT_NEW_TOKENS,
        seed=take_integer(options, "seed", minimum=-SEED_LIMIT, maximum=SEED_LIMIT - 1),
        clean_up_spaces=request.clean_up_tokenization_spaces,
        include_end_token=True,
    )
