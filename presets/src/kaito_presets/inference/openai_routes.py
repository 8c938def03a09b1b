"""Serves OpenAI's routes `/v1/models`, `/v1/chat/completions` and `/v1/completions`.

`server` adds the routes. Bodies follow the OpenAI API reference, and the tests use the official Python client.
`created` of a model is the time of its load. A client that disconnects cancels its generation, because its handler is
canceled or the write to it fails.
"""

from collections.abc import Callable

from aiohttp import web

from kaito_presets.errors import UnknownModel
from kaito_presets.inference.chat_completions import chat_completion
from kaito_presets.inference.openai_response import Document
from kaito_presets.inference.openai_schema import ChatCompletionRequest, CompletionRequest
from kaito_presets.inference.service import GenerationService
from kaito_presets.inference.text_completions import text_completion
from kaito_presets.serving.http_errors import read_body

GetService = Callable[[], GenerationService]


def routes(service: GetService) -> list[web.RouteDef]:
    """Builds the routes; `service` raises `Unavailable` while no request can be served."""

    async def models(_: web.Request) -> web.Response:
        loaded = service()
        data = [_model_document(loaded, name) for name in loaded.model_names()]
        return web.json_response({"object": "list", "data": data})

    async def model(request: web.Request) -> web.Response:
        loaded, name = service(), request.match_info["name"]
        if name not in loaded.model_names():
            raise UnknownModel(f"the model {name!r} does not exist", param="model")
        return web.json_response(_model_document(loaded, name))

    async def chat_completions(request: web.Request) -> web.StreamResponse:
        loaded = service()
        body = await read_body(request, ChatCompletionRequest)
        return await chat_completion(request, body, loaded)

    async def completions(request: web.Request) -> web.StreamResponse:
        loaded = service()
        body = await read_body(request, CompletionRequest)
        return await text_completion(request, body, loaded)

    return [
        web.get("/v1/models", models),
        web.get("/v1/models/{name:.+}", model),
        web.post("/v1/chat/completions", chat_completions),
        web.post("/v1/completions", completions),
    ]


def _model_document(service: GenerationService, name: str) -> Document:
    info = service.info
    return {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": "kaito",
        "root": info.source,
        "parent": None if name == info.name else info.name,
        "max_model_len": info.context_tokens,
    }
