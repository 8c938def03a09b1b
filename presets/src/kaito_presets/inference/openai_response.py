"""Renders what the responses of OpenAI's routes have in common: envelope, usage, token names, and streams of events.

Used by `chat_completions` and `text_completions`.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, final
from urllib.parse import quote

from aiohttp import web

from kaito_presets.errors import RequestError
from kaito_presets.inference.language_model import TokenLogprob
from kaito_presets.inference.openai_schema import SamplingRequest
from kaito_presets.inference.service import (
    MAX_CONTEXT_TOKENS,
    Completion,
    CompletionChunk,
    GenerationRequest,
    GenerationService,
)
from kaito_presets.serving.http_errors import openai_error

IGNORED_FIELDS_HEADER: Final = "X-Kaito-Ignored-Fields"
"""Names of the unknown fields of the request, separated by commas."""

Document = dict[str, Any]


def usage_document(prompt_tokens: int, new_tokens: int) -> Document:
    """Builds the object `usage`."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


def usage_of(prompts: Iterable[Sequence[int]], answers: Iterable[Completion]) -> Document:
    """Builds the object `usage` of a whole response."""
    return usage_document(sum(len(prompt) for prompt in prompts), sum(answer.new_tokens for answer in answers))


@final
class TokenNames:
    """Names tokens in log probabilities: by their text, or by `token_id:NUMBER` (`return_tokens_as_token_ids`)."""

    def __init__(self, service: GenerationService, body: SamplingRequest) -> None:
        self._service = service
        self._as_ids = bool(body.return_tokens_as_token_ids)

    def __call__(self, token: int, before: Sequence[int]) -> str:
        """Returns the name of a token that follows the tokens `before`."""
        return f"token_id:{token}" if self._as_ids else self._service.token_text_after(token, before)

    def document(self, token: int, logprob: float, before: Sequence[int]) -> Document:
        """Builds a token with its log probability in the format of chat completions.

        The bytes of the tokens of a completion are together its text in UTF-8.
        """
        text = self._service.token_text_after(token, before)
        return {"token": self(token, before), "logprob": logprob, "bytes": list(text.encode())}

    def prompt_logprobs(
        self, prompt: Sequence[int], scores: Sequence[TokenLogprob | None], count: int
    ) -> list[Document | None]:
        """Builds `prompt_logprobs` in vLLM's format: per token of the prompt, an object by token id."""
        return [
            None
            if item is None
            else self._prompt_token(item, count, prompt[max(0, index - MAX_CONTEXT_TOKENS) : index])
            for index, item in enumerate(scores)
        ]

    def _prompt_token(self, item: TokenLogprob, count: int, before: Sequence[int]) -> Document:
        ranked = [(item.token, item.logprob, item.rank)]
        ranked += [(token, logprob, index) for index, (token, logprob) in enumerate(item.top[:count], start=1)]
        return {
            str(token): {
                "logprob": logprob,
                "rank": rank,
                "decoded_token": self._service.token_text_after(token, before),
            }
            for token, logprob, rank in ranked
        }


@final
class ResponseEnvelope:
    """Fields and headers that all responses and chunks to one request have in common."""

    def __init__(self, kind: str, prefix: str, request: web.Request, body: SamplingRequest, model: str) -> None:
        identity = request.headers.get("x-request-id") or uuid.uuid4().hex
        self.kind = kind
        self.headers = {"x-request-id": identity} | ignored_fields_header(body.ignored)
        created = round(time.time())  # noqa: TID251 - a wall-clock time of the API
        self._common = {"id": f"{prefix}-{identity}", "created": created, "model": body.model or model}

    def document(self, *, choices: Sequence[Document], usage: Document | None = None, chunk: bool = False) -> Document:
        """Builds a response, or one chunk of it."""
        kind = f"{self.kind}.chunk" if chunk and self.kind == "chat.completion" else self.kind
        document: Document = {**self._common, "object": kind, "choices": list(choices)}
        if usage is not None:
            document["usage"] = usage
        return document

    async def response(self, choices: Iterable[Document], usage: Document, **fields: object) -> web.Response:
        """Builds the whole response.

        With log probabilities, it contains up to millions of numbers. The choices are therefore serialized one by one,
        and the event loop serves other requests in between.
        """
        parts: list[str] = []
        for choice in choices:
            parts.append(json.dumps(choice))
            await asyncio.sleep(0)
        head = json.dumps({**self._common, "object": self.kind, **fields})
        text = f'{head[:-1]}, "choices": [{", ".join(parts)}], "usage": {json.dumps(usage)}}}'
        return web.json_response(text=text, headers=self.headers)


def ignored_fields_header(names: Sequence[str]) -> dict[str, str]:
    """Builds the header with the names of ignored fields; names are percent-encoded, because they may be any text."""
    return {IGNORED_FIELDS_HEADER: ", ".join(quote(name[:80], safe=".[]$") for name in names)} if names else {}


class ChunkRenderer(Protocol):
    """Renders the chunks of a stream."""

    def chunks(self, group: int, piece: CompletionChunk) -> Iterable[Document]:
        """Renders a chunk of one completion of the prompt `group` as choices, of which each becomes an event."""
        ...


@final
class EventStream:
    """Streams a response as server-sent events.

    The status is sent with the first token. A later error is therefore an event with OpenAI's error object.
    """

    def __init__(
        self, request: web.Request, envelope: ResponseEnvelope, body: SamplingRequest, **first: object
    ) -> None:
        self._request = request
        self._envelope = envelope
        self._usage_at_end = body.include_usage
        self._usage_always = body.continuous_usage
        self._first = first
        self._prompt_tokens = 0
        self._new_tokens = 0
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            | envelope.headers
        )

    async def run(
        self, service: GenerationService, generations: Sequence[GenerationRequest], renderer: ChunkRenderer
    ) -> web.StreamResponse:
        """Streams all generations concurrently."""
        self._prompt_tokens = sum(len(generation.prompt) for generation in generations)
        pieces = service.stream_all(generations)
        try:
            async for group, piece in pieces:
                counted = False
                if not self._response.prepared:
                    # The status is sent as late as the first token, so that errors until then have their own status.
                    await self._response.prepare(self._request)
                for document in renderer.chunks(group, piece):
                    if not counted and "role" not in document.get("delta", ()):  # the role precedes the first token
                        self._new_tokens += piece.new_tokens
                        counted = True
                    await self._send_choice(document)
                    await asyncio.sleep(0)  # rendering a prompt with log probabilities takes long
                if not counted:
                    self._new_tokens += piece.new_tokens
        except RequestError as error:
            if not self._response.prepared:
                raise
            await self._send(openai_error(error.message, kind=error.kind, param=error.param, code=error.code))
        else:
            if self._usage_at_end:
                await self._send(self._envelope.document(choices=[], usage=self._usage(), chunk=True))
            await self._response.write(b"data: [DONE]\n\n")
        finally:
            await pieces.aclose()
        await self._response.write_eof()
        return self._response

    def _usage(self) -> Document:
        return usage_document(self._prompt_tokens, self._new_tokens)

    async def _send_choice(self, document: Document) -> None:
        usage = self._usage() if self._usage_always else None
        fields, self._first = self._first, {}
        await self._send(self._envelope.document(choices=[document], usage=usage, chunk=True) | fields)

    async def _send(self, document: Document) -> None:
        await self._response.write(b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n")
