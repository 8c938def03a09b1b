"""Serves the smaller routes of vLLM and OpenAI: `/tokenize`, `/detokenize`, `/v1/embeddings` and `/invocations`.

`server` adds the routes.
"""

import json

from aiohttp import web

from kaito_presets.errors import BadRequest
from kaito_presets.inference.chat_completions import chat_completion, encode_conversation
from kaito_presets.inference.openai_routes import GetService
from kaito_presets.inference.openai_schema import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeRequest,
)
from kaito_presets.inference.service import GenerationService
from kaito_presets.inference.text_completions import text_completion
from kaito_presets.json_values import is_object
from kaito_presets.serving.http_errors import read_body


def routes(service: GetService) -> list[web.RouteDef]:
    """Builds the routes; `service` raises `Unavailable` while no request can be served."""

    async def tokenize(request: web.Request) -> web.Response:
        loaded = service()
        if await _has_messages(request):
            chat = await read_body(request, TokenizeChatRequest)
            loaded.resolve_adapter(chat.model)
            return _tokens(await encode_conversation(chat, loaded), loaded, strings=bool(chat.return_token_strs))
        body = await read_body(request, TokenizeRequest)
        loaded.resolve_adapter(body.model)
        tokens = await loaded.encode(body.prompt, special=body.add_special_tokens is not False)
        return _tokens(tokens, loaded, strings=bool(body.return_token_strs))

    async def detokenize(request: web.Request) -> web.Response:
        loaded = service()
        body = await read_body(request, DetokenizeRequest)
        loaded.resolve_adapter(body.model)
        return web.json_response({"prompt": await loaded.decode_tokens(body.tokens)})

    async def embeddings(_: web.Request) -> web.Response:
        raise BadRequest(f"the model {service().info.name!r} generates text and has no embeddings")

    async def invocations(request: web.Request) -> web.StreamResponse:
        """Answers a chat or a text completion, by the fields of the body (the route of Amazon SageMaker)."""
        loaded = service()
        if await _has_messages(request):
            chat = await read_body(request, ChatCompletionRequest)
            return await chat_completion(request, chat, loaded)
        body = await read_body(request, CompletionRequest)
        return await text_completion(request, body, loaded)

    return [
        web.post("/tokenize", tokenize),
        web.post("/detokenize", detokenize),
        web.post("/v1/embeddings", embeddings),
        web.post("/invocations", invocations),
    ]


async def _has_messages(request: web.Request) -> bool:
    """Returns whether the body has messages; an invalid body is rejected when it is validated."""
    try:
        body: object = json.loads(await request.read())
    except (ValueError, RecursionError):
        return False
    return is_object(body) and "messages" in body


def _tokens(tokens: list[int], service: GenerationService, *, strings: bool) -> web.Response:
    texts = [service.vocabulary_entry(token) for token in tokens] if strings else None
    return web.json_response(
        {
            "count": len(tokens),
            "max_model_len": service.info.context_tokens,
            "tokens": tokens,
            "token_strs": texts,
        }
    )
