"""Serves `POST /v1/chat/completions`: renders the conversation, generates, and renders the choices.

Called by `openai_routes`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, final

from aiohttp import web

from kaito_presets.errors import BadRequest
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
from kaito_presets.inference.service import (
    MAX_CONTEXT_TOKENS,
    Completion,
    CompletionChunk,
    GenerationRequest,
    GenerationService,
)
from kaito_presets.inference.tool_calls import (
    FORMATS,
    ForcedCallParser,
    FormatParser,
    ToolParser,
    calls_document,
    parse_calls,
)
from kaito_presets.inference.tool_prompts import with_tools
from kaito_presets.inference.tools import NamedToolChoice, template_tools


async def chat_completion(
    request: web.Request, body: ChatCompletionRequest, service: GenerationService
) -> web.StreamResponse:
    """Answers one request, whole or as a stream.

    Raises:
        RequestError: the request is rejected, or the model failed before the first token.
    """
    service.note_ignored_fields(body.ignored)
    adapter = service.resolve_adapter(body.model)
    new_parser = _tool_parser(body, service)
    tokens = await encode_conversation(body, service)
    prompt = service.truncated(tokens, body.truncate_prompt_tokens, body.truncation_side)
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
        special_tokens=body.skip_special_tokens is False or _has_special_marks(body, service),
        include_stop_string=bool(body.include_stop_str_in_output),
        include_end_token=bool(body.include_stop_str_in_output),
    )
    envelope = ResponseEnvelope("chat.completion", "chatcmpl", request, body, service.info.name)
    renderer = _ChatChoices(service, body, new_parser)
    fields: Document = {"prompt_token_ids": list(prompt)} if body.return_token_ids else {}
    if body.stream:
        return await EventStream(request, envelope, body, **fields).run(service, [generation], renderer)
    empty: Document = {"prompt_token_ids": None, "prompt_logprobs": None}
    fields = empty | fields
    answers = await service.complete(generation)
    if body.prompt_logprobs is not None:
        scores = answers[0].prompt_token_logprobs
        fields["prompt_logprobs"] = TokenNames(service, body).prompt_logprobs(prompt, scores, body.prompt_logprobs)
    choices = (renderer.choice(index, answer) for index, answer in enumerate(answers))
    return await envelope.response(choices, usage_of([prompt], answers), **fields)


async def encode_conversation(body: ChatCompletionRequest, service: GenerationService) -> list[int]:
    """Renders the messages of a request with the chat template, and tokenizes the result.

    Raises:
        BadRequest: the template rejects them, or the model has none.
    """
    messages, tools = with_tools(
        [Message(message.role, message.text, message.extra) for message in body.messages],
        template_tools(body.active_tools),
        service.info,
    )
    template = TemplateOptions(
        # The last message already starts the assistant's turn when it is continued.
        add_generation_prompt=body.add_generation_prompt is not False and not body.continue_final_message,
        continue_final_message=bool(body.continue_final_message),
        variables=body.template_variables,
        tools=tools,
    )
    return await service.encode(messages, template=template)


NewParser = Callable[[], ToolParser]
FinishReason = TypeVar("FinishReason", str, str | None)


@dataclass(slots=True)
class _Calls:
    """Parser of one completion in a stream, and the number of its calls so far."""

    parser: ToolParser
    count: int = 0


def _tool_parser(body: ChatCompletionRequest, service: GenerationService) -> NewParser | None:
    """Returns the constructor of the parser for calls of tools, None if the request has none.

    Raises:
        BadRequest: the format of the model's calls is not known.
    """
    if not body.active_tools:
        return None
    if isinstance(body.tool_choice, NamedToolChoice):
        return partial(ForcedCallParser, body.tool_choice.function.name)
    if body.tool_choice == "required":
        return partial(ForcedCallParser, None)
    return partial(FormatParser, _format(service))


def _format(service: GenerationService) -> str:
    name = service.info.tool_format
    if name is None:
        raise BadRequest(
            "the format in which this model calls tools is not known: set the flag --tool_call_parser of the server, "
            "or send tool_choice required or none",
            param="tools",
        )
    return name


def _has_special_marks(body: ChatCompletionRequest, service: GenerationService) -> bool:
    return bool(body.active_tools and body.forced is None and FORMATS[_format(service)].special)


@final
class _ChatChoices:
    """Renders the choices of one request."""

    def __init__(self, service: GenerationService, body: ChatCompletionRequest, new_parser: NewParser | None) -> None:
        self._new_parser = new_parser
        self._parsers: dict[int, _Calls] = {}
        self._named = isinstance(body.tool_choice, NamedToolChoice)
        self._names = TokenNames(service, body)
        self._logprobs = bool(body.logprobs)
        self._token_ids = bool(body.return_token_ids)
        last = body.messages[-1]
        self._head = last.text if body.echo and last.role == "assistant" else ""
        self._role = body.answer_role
        self._before: dict[int, list[int]] = {}
        """The last tokens of each completion in a stream; its keys are the completions that have begun."""

    def choice(self, index: int, answer: Completion) -> Document:
        """Renders a whole choice."""
        message: Document = {"role": self._role, "content": self._head + answer.text}
        finish_reason = answer.finish_reason
        if self._new_parser is not None:
            content, calls = parse_calls(self._new_parser(), answer.text)
            message["content"] = self._head + content or None
            message["tool_calls"] = calls_document(calls)
            finish_reason = self._finish_reason(finish_reason, bool(calls))
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs_document(answer.logprobs, []) if self._logprobs else None,
            "finish_reason": finish_reason,
            "stop_reason": answer.stop_reason,
            "token_ids": list(answer.tokens) if self._token_ids else None,
        }

    def chunks(self, group: int, piece: CompletionChunk) -> Iterable[Document]:  # noqa: ARG002 - a single prompt
        """Renders a chunk of a stream; the first one of a choice is preceded by the role."""
        if piece.index not in self._before:
            self._before[piece.index] = []
            delta = {"role": self._role, "content": ""}
            yield {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": None}
            if self._head:
                yield {"index": piece.index, "delta": {"content": self._head}, "logprobs": None, "finish_reason": None}
        if piece.text or piece.finish_reason or piece.logprobs or (self._token_ids and piece.tokens):
            if self._new_parser is None:
                text: Document = {"content": piece.text} if piece.text or not piece.finish_reason else {}
                yield self._chunk(piece, text, piece.finish_reason)
            else:
                yield from self._chunk_with_calls(piece, self._new_parser)

    def _chunk_with_calls(self, piece: CompletionChunk, new_parser: NewParser) -> Iterable[Document]:
        """Renders content and calls that a chunk completes; text that may be part of a call is held back."""
        state = self._parsers.get(piece.index)
        if state is None:
            state = self._parsers[piece.index] = _Calls(new_parser())
        content, calls = state.parser.push(piece.text)
        if piece.finish_reason:
            rest, more = state.parser.finish()
            content, calls = content + rest, [*calls, *more]
        delta: Document = {"content": content} if content else {}
        if calls:
            delta["tool_calls"] = calls_document(calls, state.count)
            state.count += len(calls)
        if delta or piece.finish_reason or piece.logprobs or (self._token_ids and piece.tokens):
            finish_reason = self._finish_reason(piece.finish_reason, bool(state.count))
            yield self._chunk(piece, delta, finish_reason)

    def _finish_reason(self, finish_reason: FinishReason, has_calls: bool) -> FinishReason:
        """Returns `tool_calls` for a completion with calls; a named function keeps `stop`, as in OpenAI's API."""
        return "tool_calls" if finish_reason == "stop" and has_calls and not self._named else finish_reason

    def _chunk(self, piece: CompletionChunk, delta: Document, finish_reason: str | None) -> Document:
        document: Document = {
            "index": piece.index,
            "delta": delta,
            "logprobs": self._logprobs_document(piece.logprobs, self._before[piece.index]) if self._logprobs else None,
            "finish_reason": finish_reason,
        }
        if piece.finish_reason:
            document["stop_reason"] = piece.stop_reason
        if self._token_ids:
            document["token_ids"] = list(piece.tokens)
        return document

    def _logprobs_document(self, logprobs: Sequence[TokenLogprob], before: list[int]) -> Document:
        """Renders tokens that follow the tokens `before`, and appends them there."""
        names = self._names
        content: list[Document] = []
        for item in logprobs:
            top = [names.document(token, logprob, before) for token, logprob in item.top]
            content.append(names.document(item.token, item.logprob, before) | {"top_logprobs": top})
            before.append(item.token)
            del before[:-MAX_CONTEXT_TOKENS]
        return {"content": content, "refusal": None}
