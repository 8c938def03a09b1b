"""Builds the OpenAPI document of the server from the request models.

`server` serves it at `/openapi.json`.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kaito_presets.inference.openai_schema import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from kaito_presets.serving.chat import ChatRequest

BODIES: Final[Mapping[str, type[BaseModel]]] = {
    "/chat": ChatRequest,
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
"""Request models by route."""


def openapi_document(version: str, routes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Builds the document; `routes` maps each path to its methods."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in BODIES.values()], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kaito inference server", "version": version},
        "paths": {
            path: {method.lower(): _operation(path, method) for method in methods}
            for path, methods in sorted(routes.items())
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _operation(path: str, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"responses": {"200": {"description": "success"}}}
    model = BODIES.get(path) if method == "POST" else None
    if model is not None:
        schema = {"$ref": f"#/components/schemas/{model.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation
