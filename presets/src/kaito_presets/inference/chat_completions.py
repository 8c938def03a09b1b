"""Serves `POST /v1/chat/completions`: renders the conversation, generates, and renders the choices.

Called by `openai_routes`.
"""

from collections.abc import Iterable, Sequence
from typing import final

from aiohttp import web

from kaito_presets.inference.language_model import Message, TemplateOptions, TokenLogprob
from kaito_presets.inference.openai_response import (
    Document,
    EventStream,
    ResponseEnvelope,
    TokenNames,
    usage_of,
)
from kaito_presets.inference.openai_schema import ChatCompletionRequest
from kaito_presets.inference.sampling_options import DEFAULT_OPTIONS, row_count, sampling_options
from kaito_presets.inference.service import Completion, CompletionChunk, GenerationRequest, GenerationService


async def chat_completion(
    request: web.Request, body: ChatCompletionRequest, service: GenerationService
) -> web.StreamResponse:
    """Answers one request, whole or as a stream.

    Raises:
        RequestError: the request is rejected, or the model failed before the first token.
    """
    adapter = service.resolve_adapter(body.model)
    template = TemplateOptions(
        # The last message already starts the assistant's turn when it is continued.
        add_generation_prompt=body.add_generation_prompt is not False and not body.continue_final_message,
        continue_final_message=bool(body.continue_final_message),
        variables=body.template_variables,
    )
    messages = [Message(message.role, message.text, message.extra) for message in body.messages]
    prompt = service.truncated(await service.encode(messages, template=template), body.truncate_prompt_tokens)
    grammar = None if body.grammar is None else await service.compile(body.grammar)
    generation = GenerationRequest(
        prompt=prompt,
        options=sampling_options(body),
        defaults=DEFAULT_OPTIONS,
        max_new_tokens=body.new_tokens,
        stop=body.stops,
        count=row_count(body),
        seed=body.seed,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        adapter=adapter,
        grammar=grammar,
        special_tokens=body.skip_special_tokens is False,
        include_stop_string=bool(body.include_stop_str_in_output),
        include_end_token=bool(body.include_stop_str_in_output),
    )
    envelope = ResponseEnvelope("chat.completion", "chatcmpl", request, body, service.info.name)
    renderer = _ChatChoices(service, body)
    fields: Document = {"prompt_token_ids": list(prompt)} if body.return_token_ids else {}
    if body.stream:
        return await EventStream(request, envelope, body, **fields).run(service, [generation], renderer)
    answers = await service.complete(generation)
    if body.prompt_logprobs is not None:
        scores = answers[0].prompt_token_logprobs
        fields["prompt_logprobs"] = TokenNames(service, body).prompt_logprobs(scores, body.prompt_logprobs)
    choices = (renderer.choice(index, answer) for index, answer in enumerate(answers))
    return await envelope.response(choices, usage_of([prompt], answers), **fields)


@final
class _ChatChoices:
    """Renders the choices of one request."""

    def __init__(self, service: GenerationService, body: ChatCompletionRequest) -> None:
        self._names = TokenNames(service, body)
        self._logprobs = bool(body.logprobs)
        self._token_ids = bool(body.return_token_ids)
        last = body.messages[-1]
        self._head = last.text if body.echo and last.role == "assistant" else ""
        self._begun: set[int] = set()

    def choice(self, index: int, answer: Completion) -> Document:
        """Renders a whole choice."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": self._head + answer.text},
            "logprobs": self._logprobs_document(answer.logprobs) if self._logprobs else None,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
        } | ({"token_ids": list(answer.tokens)} if self._token_ids else {})

    def chunks(self, group: int, piece: CompletionChunk) -> Iterable[Document]:  # noqa: ARG002 - a single prompt
        """Renders a chunk of a stream; the first one of a choice is preceded by the role."""
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta = {"role": "assistant", "content": ""}
            yield {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": None}
            if self._head:
                yield {"index": piece.index, "delta": {"content": self._head}, "logprobs": None, "finish_reason": None}
        if piece.text or piece.finish_reason or piece.logprobs or (self._token_ids and piece.tokens):
            yield self._chunk(piece)

    def _chunk(self, piece: CompletionChunk) -> Document:
        delta: Document = {"content": piece.text} if piece.text or not piece.finish_reason else {}
        document: Document = {
            "index": piece.index,
            "delta": delta,
            "logprobs": self._logprobs_document(piece.logprobs) if self._logprobs else None,
            "finish_reason": piece.finish_reason,
        }
        if piece.finish_reason:
            document["stop_reason"] = piece.stop_reason
        if self._token_ids:
            document["token_ids"] = list(piece.tokens)
        return document

    def _logprobs_document(self, logprobs: Sequence[TokenLogprob]) -> Document:
        names = self._names
        content = [
            names.document(item.token, item.logprob)
            | {"top_logprobs": [names.document(token, logprob) for token, logprob in item.top]}
            for item in logprobs
        ]
        return {"content": content, "refusal": None}
