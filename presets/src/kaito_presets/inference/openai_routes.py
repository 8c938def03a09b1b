"""Serves OpenAI's routes `/v1/models`, `/v1/chat/completions` and `/v1/completions`, with server-sent events for
streams.

`server` adds the routes. Bodies follow the OpenAI API reference, and the tests use the official Python client.
`created` of a model is the time of its load. A client that disconnects cancels its generation, because its handler is
canceled or the write to it fails.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from kaito_presets.errors import BadRequest, RequestError, UnknownModel
from kaito_presets.inference.completions import CompletionChoices
from kaito_presets.inference.language_model import Message, Option, TemplateOptions, TokenLogprob
from kaito_presets.inference.openai_schema import ChatCompletionRequest, CompletionRequest, SamplingRequest
from kaito_presets.inference.service import Completion, CompletionChunk, GenerationRequest, GenerationService
from kaito_presets.serving.http_errors import openai_error, read_body

DEFAULT_COMPLETION_TOKENS: Final = 16
"""`max_tokens` of the legacy completions route when absent (OpenAI API reference)."""

GetService = Callable[[], GenerationService]
Document = dict[str, Any]


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
        return await _chat(request, body, loaded)

    async def completions(request: web.Request) -> web.StreamResponse:
        loaded = service()
        body = await read_body(request, CompletionRequest)
        return await _complete(request, body, loaded)

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


def _options(body: SamplingRequest) -> dict[str, Option]:
    """Converts the sampling fields of a request to transformers' options."""
    options: dict[str, Option] = {}
    if body.temperature is not None:
        options |= {"do_sample": body.temperature != 0, "temperature": body.temperature}
    if body.top_p is not None:
        options["top_p"] = body.top_p
    if body.top_k is not None:
        options["top_k"] = max(0, body.top_k)
    if body.min_p is not None:
        options["min_p"] = body.min_p
    if body.repetition_penalty is not None:
        options["repetition_penalty"] = body.repetition_penalty
    if body.min_tokens:
        options["min_new_tokens"] = body.min_tokens
    if body.ignore_eos:
        options["eos_token_id"] = []
    for name in ("typical_p", "frequency_penalty", "presence_penalty", "logit_bias", "stop_token_ids"):
        if value := getattr(body, name):
            options[name] = value
    return options


DEFAULT_OPTIONS: Final[Mapping[str, Option]] = {"do_sample": True, "top_k": 0}
"""OpenAI's API samples from the whole distribution. The model's generation config takes precedence, as in vLLM."""


async def _chat(request: web.Request, body: ChatCompletionRequest, service: GenerationService) -> web.StreamResponse:
    adapter = service.resolve_adapter(body.model)
    template = TemplateOptions(
        # The last message already starts the assistant's turn when it is continued.
        add_generation_prompt=body.add_generation_prompt is not False and not body.continue_final_message,
        continue_final_message=bool(body.continue_final_message),
        variables=body.template_variables,
    )
    messages = [Message(message.role, message.text, message.extra) for message in body.messages]
    prompt = await service.encode(messages, template=template)
    generation = GenerationRequest(
        prompt=prompt,
        options=_options(body),
        defaults=DEFAULT_OPTIONS,
        max_new_tokens=body.new_tokens,
        stop=body.stops,
        count=body.n or 1,
        seed=body.seed,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        adapter=adapter,
        special_tokens=body.skip_special_tokens is False,
    )
    frame = _ResponseEnvelope("chat.completion", "chatcmpl", body.model or service.info.name, request)
    if body.stream:
        return await _stream_chat(request, body, service, generation, frame)
    answers = await service.complete(generation)
    choices = (
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text},
            "logprobs": _chat_logprobs(service, answer.logprobs) if body.logprobs else None,
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    )
    return await frame.response(choices, _usage([prompt], answers))


async def _stream_chat(
    request: web.Request,
    body: ChatCompletionRequest,
    service: GenerationService,
    generation: GenerationRequest,
    frame: "_ResponseEnvelope",
) -> web.StreamResponse:
    def choice(piece: CompletionChunk) -> Document:
        delta: Document = {"content": piece.text} if piece.text or not piece.finish_reason else {}
        return {
            "index": piece.index,
            "delta": delta,
            "logprobs": _chat_logprobs(service, piece.logprobs) if body.logprobs else None,
            "finish_reason": piece.finish_reason,
        }

    begun: set[int] = set()

    def first(_: int, piece: CompletionChunk) -> list[Document]:
        if piece.index in begun:
            return []
        begun.add(piece.index)
        delta = {"role": "assistant", "content": ""}
        return [{"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": None}]

    stream = _EventStream(request, frame, body)
    return await stream.run(service, [generation], lambda _, piece: choice(piece), first)


async def _complete(request: web.Request, body: CompletionRequest, service: GenerationService) -> web.StreamResponse:
    adapter = service.resolve_adapter(body.model)
    if not body.prompts:
        raise BadRequest("prompt is empty", param="prompt")
    prompts = await service.encode_all(
        body.prompts, count=body.n or 1, special=body.add_special_tokens is not False
    )  # fmt: skip
    options = _options(body)
    generations = [
        GenerationRequest(
            prompt=prompt,
            options=options,
            defaults=DEFAULT_OPTIONS,
            max_new_tokens=body.max_tokens,
            default_new_tokens=DEFAULT_COMPLETION_TOKENS,
            stop=body.stops,
            count=body.n or 1,
            seed=body.seed,
            logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if body.echo else None,
            adapter=adapter,
            special_tokens=body.skip_special_tokens is False,
        )
        for prompt in prompts
    ]
    frame = _ResponseEnvelope("text_completion", "cmpl", body.model or service.info.name, request)
    answers = CompletionChoices(service, generations, echo=bool(body.echo), logprobs=body.logprobs is not None)
    if body.stream:
        stream = _EventStream(request, frame, body)
        return await stream.run(service, generations, answers.chunk, answers.heads)
    groups = await service.complete_all(generations)
    choices = (
        answers.choice(group, index, answer)
        for group, completions in enumerate(groups)
        for index, answer in enumerate(completions)
    )
    usage = _usage(prompts, [answer for completions in groups for answer in completions])
    return await frame.response(choices, usage)


def _usage(prompts: Sequence[Sequence[int]], answers: Sequence[Completion]) -> Document:
    return _usage_document(sum(len(prompt) for prompt in prompts), sum(answer.new_tokens for answer in answers))


def _usage_document(prompt_tokens: int, new_tokens: int) -> Document:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


def _token_document(service: GenerationService, token: int, logprob: float) -> Document:
    text = service.token_text(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _chat_logprobs(service: GenerationService, logprobs: Sequence[TokenLogprob]) -> Document:
    content = [
        _token_document(service, item.token, item.logprob)
        | {"top_logprobs": [_token_document(service, token, logprob) for token, logprob in item.top]}
        for item in logprobs
    ]
    return {"content": content, "refusal": None}


class _ResponseEnvelope:
    """Fields and headers that all responses and chunks to one request have in common."""

    def __init__(self, kind: str, prefix: str, model: str, request: web.Request) -> None:
        identity = request.headers.get("x-request-id") or uuid.uuid4().hex
        self.kind = kind
        self.headers = {"x-request-id": identity}
        self._common = {"id": f"{prefix}-{identity}", "created": round(time.time()), "model": model}  # noqa: TID251 - a wall-clock time of the API

    def document(self, *, choices: Sequence[Document], usage: Document | None = None, chunk: bool = False) -> Document:
        """Builds a response, or one chunk of it."""
        kind = f"{self.kind}.chunk" if chunk and self.kind == "chat.completion" else self.kind
        document: Document = {**self._common, "object": kind, "choices": list(choices)}
        if usage is not None:
            document["usage"] = usage
        return document

    async def response(self, choices: Iterable[Document], usage: Document) -> web.Response:
        """Builds the whole response.

        With log probabilities, it contains up to millions of numbers. The choices are therefore serialized one by one,
        and the event loop serves other requests in between.
        """
        parts: list[str] = []
        for choice in choices:
            parts.append(json.dumps(choice))
            await asyncio.sleep(0)
        head = json.dumps({**self._common, "object": self.kind})
        text = f'{head[:-1]}, "choices": [{", ".join(parts)}], "usage": {json.dumps(usage)}}}'
        return web.json_response(text=text, headers=self.headers)


class _EventStream:
    """Streams a response as server-sent events.

    The status is sent with the first token. A later error is therefore an event with OpenAI's error object.
    """

    def __init__(self, request: web.Request, frame: _ResponseEnvelope, body: SamplingRequest) -> None:
        self._request = request
        self._frame = frame
        self._usage_at_end = body.include_usage
        self._usage_always = body.continuous_usage
        self._prompt_tokens = 0
        self._new_tokens = 0
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            | frame.headers
        )

    async def run(
        self,
        service: GenerationService,
        generations: Sequence[GenerationRequest],
        choice: Callable[[int, CompletionChunk], Document],
        heads: Callable[[int, CompletionChunk], Sequence[Document]],
    ) -> web.StreamResponse:
        """Streams all generations concurrently; `heads` renders what precedes the first chunk of a completion."""
        self._prompt_tokens = sum(len(generation.prompt) for generation in generations)
        pieces = service.stream_all(generations)
        try:
            async for group, piece in pieces:
                self._new_tokens += piece.new_tokens
                if not self._response.prepared:
                    # The status is sent as late as the first token, so that errors until then have their own status.
                    await self._response.prepare(self._request)
                for document in heads(group, piece):
                    await self._send_choice(document)
                    await asyncio.sleep(0)  # rendering a prompt with log probabilities takes long
                if piece.text or piece.finish_reason or piece.logprobs:
                    await self._send_choice(choice(group, piece))
        except RequestError as error:
            if not self._response.prepared:
                raise
            await self._send(openai_error(error.message, kind=error.kind, param=error.param, code=error.code))
        else:
            if self._usage_at_end:
                await self._send(self._frame.document(choices=[], usage=self._usage(), chunk=True))
            await self._response.write(b"data: [DONE]\n\n")
        finally:
            await pieces.aclose()
        await self._response.write_eof()
        return self._response

    def _usage(self) -> Document:
        return _usage_document(self._prompt_tokens, self._new_tokens)

    async def _send_choice(self, document: Document) -> None:
        usage = self._usage() if self._usage_always else None
        await self._send(self._frame.document(choices=[document], usage=usage, chunk=True))

    async def _send(self, document: Document) -> None:
        await self._response.write(b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n")
