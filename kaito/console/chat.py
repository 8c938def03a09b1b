"""Relays a chat to the server of a Workspace, and streams the answer as server-sent events.

The request goes through the API server's proxy to the Workspace's Service, with the rights of the user. Prompts and
answers pass through: they are neither logged nor stored.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

from aiohttp import web

from kaito.chat.endpoint import Answer, ChatEndpoint, ChatError, Message, find_endpoint
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.stream import EVENT_STREAM_HEADERS, KEEP_ALIVE_SECONDS
from kaito.console.views.json_values import Json, to_json
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.meta import ObjectKey
from kaito.runtime.tasks import TaskScope

FIRST_TOKEN_SECONDS: Final = 300.0
"""Time limit of the first token: the request may wait in the queue of a busy server."""

NEXT_TOKEN_SECONDS: Final = 60.0
"""Time limit between two tokens."""

MAX_CONCURRENT_CHATS: Final = 64

MAX_TOKENS: Final = 131_072

_ROLES: Final = frozenset({"system", "user", "assistant"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation, and how it is answered."""

    messages: list[Message]
    model: str = ""
    """Empty for the served name."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Options of the OpenAI API."""

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> "ChatRequest":
        """Reads the body of a request.

        Raises:
            Refusal: a field has a value that is not allowed.
        """
        if body.get("strengths"):
            remedy = "choose an adapter or NAME:base as model, or change inference.adapters of the Workspace"
            raise Refusal(400, f"the server does not take strengths for one request: {remedy}", "strengths")
        model = body.get("model") or ""
        if not isinstance(model, str):
            raise Refusal(400, "model is not a text: name one of /models", "model")
        options = {
            "temperature": _number(body, "temperature", 0.0, 2.0),
            "top_p": _number(body, "topP", 0.0, 1.0),
            "max_tokens": _whole(body, "maxTokens", 1, MAX_TOKENS),
        }
        known = {name: value for name, value in options.items() if value is not None}
        return cls(messages=_messages(body.get("messages")), model=model, options=known)


def _messages(value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise Refusal(400, "messages is missing or empty: send at least one message", "messages")
    found: list[Message] = []
    for each in cast("list[object]", value):
        message = cast("dict[str, object]", each) if isinstance(each, dict) else {}
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES or not isinstance(content, str):
            known = ", ".join(sorted(_ROLES))
            raise Refusal(400, f"a message needs a role ({known}) and a content that is a text", "messages")
        found.append({"role": str(role), "content": content})
    return found


def _number(body: Mapping[str, object], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refusal(400, f"{name} is not a number from {least:g} to {most:g}", name)
    return float(value)


def _whole(body: Mapping[str, object], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refusal(400, f"{name} is not a whole number from {least} to {most}", name)
    return value


@final
class ChatRelay:
    """Relays chats; a limited number at a time.

    Args:
        first_token_seconds: time limit of the first token.
        next_token_seconds: time limit between two tokens.
    """

    def __init__(
        self, *, first_token_seconds: float = FIRST_TOKEN_SECONDS, next_token_seconds: float = NEXT_TOKEN_SECONDS
    ) -> None:
        self._first_token_seconds = first_token_seconds
        self._next_token_seconds = next_token_seconds
        self._running = 0

    async def models(self, key: ObjectKey, user: User) -> list[str]:
        """Returns what can answer: the served name first, then adapters.

        Raises:
            Refusal: the Workspace does not answer.
        """
        async with _endpoint(key, user) as endpoint:
            return await endpoint.models()

    async def relay(self, request: web.Request, key: ObjectKey, user: User, chat: ChatRequest) -> web.StreamResponse:
        """Streams the answer to the browser; ends when the browser leaves.

        Raises:
            Refusal: the Workspace does not answer, or too many chats run.
        """
        if self._running >= MAX_CONCURRENT_CHATS:
            raise Refusal(429, f"{MAX_CONCURRENT_CHATS} answers are being written: try again in a moment")
        self._running += 1
        try:
            async with _endpoint(key, user) as endpoint:
                model = chat.model or (await endpoint.models())[0]
                response = web.StreamResponse(headers=EVENT_STREAM_HEADERS)
                await response.prepare(request)
                try:
                    await self._answer(response, endpoint, model, chat)
                except (ChatError, KaitoRuntimeError, TimeoutError) as error:
                    await response.write(_event("error", {"error": _describe(error)}))
                return response
        finally:
            self._running -= 1

    async def _answer(
        self, response: web.StreamResponse, endpoint: ChatEndpoint, model: str, chat: ChatRequest
    ) -> None:
        answer, began, first = Answer(), monotonic(), 0.0
        async with (
            TaskScope("chat") as scope,
            aclosing(endpoint.stream(model, chat.messages, chat.options, answer)) as pieces,
        ):
            while True:
                limit = self._next_token_seconds if first else self._first_token_seconds
                piece = await _next(scope, pieces, response, limit)
                if piece is None:
                    break
                first = first or monotonic()
                await response.write(_event("token", {"text": piece}))
        await response.write(_event("done", _figures(answer, began, first, monotonic())))


async def _next(
    scope: TaskScope, pieces: AsyncGenerator[str], response: web.StreamResponse, limit: float
) -> str | None:
    """Returns the next piece of the answer, and keeps the connection alive meanwhile; None at the end.

    Raises:
        TimeoutError: there is none in time.
        ChatError: the server failed.
    """
    until = monotonic() + limit
    waiting = scope.spawn(_piece(pieces), name="piece")
    while not waiting.done():
        left = until - monotonic()
        if left <= 0:
            waiting.cancel()
            await asyncio.wait([waiting])
            raise TimeoutError
        await asyncio.wait([waiting], timeout=min(left, KEEP_ALIVE_SECONDS))
        if not waiting.done() and left > KEEP_ALIVE_SECONDS:
            await response.write(b": keep-alive\n\n")
    found = waiting.result()
    if isinstance(found, Exception):
        raise found
    return found


async def _piece(pieces: AsyncGenerator[str]) -> str | Exception | None:
    """Returns the next piece, or the error: one that is raised would cancel the scope."""
    try:
        return await anext(pieces, None)
    except (ChatError, KaitoRuntimeError) as error:
        return error


@asynccontextmanager
async def _endpoint(key: ObjectKey, user: User) -> AsyncGenerator[ChatEndpoint]:
    """Opens the endpoint of a Workspace with the rights of the user.

    Raises:
        Refusal: the Workspace does not answer.
    """
    try:
        endpoint = await find_endpoint(user.client, user.transport, key.name, key.namespace)
    except ChatError as error:
        raise Refusal(409, str(error)) from error
    try:
        yield endpoint
    except ChatError as error:
        raise Refusal(502, str(error)) from error
    finally:
        if endpoint.transport is not user.transport:
            await endpoint.transport.close()


def _figures(answer: Answer, began: float, first: float, ended: float) -> Json:
    """Returns the figures of a complete answer."""
    generated = ended - first if first else 0.0
    return {
        "promptTokens": answer.prompt_tokens,
        "completionTokens": answer.tokens if answer.is_counted or answer.tokens else None,
        "firstTokenSeconds": round(first - began, 3) if first else None,
        "tokensPerSecond": round((answer.tokens - 1) / generated, 1) if answer.tokens > 1 and generated > 0 else None,
        "finishReason": answer.finish_reason or None,
    }


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server sends no token: look at the chain of the Workspace, and try again"
    return str(error)


def _event(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {to_json(data)}\n\n".encode()
