"""Serves `POST /v1/completions`: generates, and renders the choices with echoed prompts and legacy log probabilities.

Called by `openai_routes`. With `echo`, tokens and log probabilities of the prompt precede those of the completion, and
the first one is null, as in vLLM and OpenAI's API. `text_offset` is the position in the text of the whole choice, also
in a stream.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from aiohttp import web

from kaito_presets.errors import BadRequest
from kaito_presets.inference.detokenizer import IncrementalDetokenizer
from kaito_presets.inference.language_model import TokenLogprob
from kaito_presets.inference.openai_response import (
    Document,
    EventStream,
    ResponseEnvelope,
    TokenNames,
    usage_of,
)
from kaito_presets.inference.openai_schema import CompletionRequest
from kaito_presets.inference.sampling_options import DEFAULT_OPTIONS, row_count, sampling_options
from kaito_presets.inference.service import (
    MAX_CONTEXT_TOKENS,
    Completion,
    CompletionChunk,
    GenerationRequest,
    GenerationService,
)

DEFAULT_COMPLETION_TOKENS: Final = 16
"""`max_tokens` when absent (OpenAI API reference)."""


async def text_completion(
    request: web.Request, body: CompletionRequest, service: GenerationService
) -> web.StreamResponse:
    """Answers one request, whole or as a stream.

    Raises:
        RequestError: the request is rejected, or the model failed before the first token.
    """
    service.note_ignored_fields(body.ignored)
    adapter = service.resolve_adapter(body.model)
    if not body.prompts:
        raise BadRequest("prompt is empty", param="prompt")
    count = row_count(body)
    prompts = await service.encode_all(body.prompts, count=count, special=body.add_special_tokens is not False)
    grammar = None if body.grammar is None else await service.compile(body.grammar)
    options = sampling_options(body)
    counts = [value for value in (body.prompt_logprobs, body.logprobs if body.echo else None) if value is not None]
    generations = [
        GenerationRequest(
            prompt=service.truncated(prompt, body.truncate_prompt_tokens, body.truncation_side),
            options=options,
            defaults=DEFAULT_OPTIONS,
            max_new_tokens=body.max_tokens,
            default_new_tokens=DEFAULT_COMPLETION_TOKENS,
            stop=body.stops,
            count=count,
            seed=body.seed,
            logprobs=body.logprobs,
            prompt_logprobs=max(counts, default=None),
            adapter=adapter,
            grammar=grammar,
            special_tokens=body.skip_special_tokens is False,
            include_stop_string=bool(body.include_stop_str_in_output),
            include_end_token=bool(body.include_stop_str_in_output),
        )
        for prompt in prompts
    ]
    envelope = ResponseEnvelope("text_completion", "cmpl", request, body, service.info.name)
    renderer = CompletionChoices(service, generations, body)
    if body.stream:
        return await EventStream(request, envelope, body).run(service, generations, renderer)
    groups = await service.complete_all(generations)
    choices = (
        renderer.choice(group, index, answer)
        for group, completions in enumerate(groups)
        for index, answer in enumerate(completions)
    )
    answers = [answer for completions in groups for answer in completions]
    return await envelope.response(choices, usage_of((generation.prompt for generation in generations), answers))


@final
class CompletionChoices:
    """Renders the choices of one request."""

    def __init__(
        self, service: GenerationService, generations: Sequence[GenerationRequest], body: CompletionRequest
    ) -> None:
        self._service = service
        self._names = TokenNames(service, body)
        self._generations = generations
        self._per_prompt = body.n or 1
        self._echo = bool(body.echo)
        self._has_added = [isinstance(prompt, str) and body.add_special_tokens is not False for prompt in body.prompts]
        self._logprobs = body.logprobs
        self._prompt_logprobs = body.prompt_logprobs
        self._token_ids = bool(body.return_token_ids)
        self._open: dict[int, _LogprobsRenderer] = {}
        self._echoed: dict[int, _EchoedPrompt] = {}
        self._heads_by_group: dict[int, str] = {}

    def choice(self, group: int, index: int, answer: Completion) -> Document:
        """Renders a whole choice; `group` is the index of the prompt, `index` that of its completion."""
        generation = self._generations[group]
        tokens = self._renderer(group)
        scored = self._logprobs is not None
        head = self._prompt(group, tokens, answer.prompt_token_logprobs) if self._echo and scored else {}
        document: Document = {
            "index": group * self._per_prompt + index,
            "text": self._head(group) + answer.text,
            "logprobs": _joined(head, tokens.push(answer.logprobs)) if scored else None,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "prompt_logprobs": None,
            "prompt_token_ids": list(generation.prompt) if self._token_ids else None,
            "token_ids": list(answer.tokens) if self._token_ids else None,
        }
        if self._prompt_logprobs is not None:
            scores = answer.prompt_token_logprobs
            document["prompt_logprobs"] = self._names.prompt_logprobs(generation.prompt, scores, self._prompt_logprobs)
        return document

    def chunks(self, group: int, piece: CompletionChunk) -> Iterable[Document]:
        """Renders a chunk of a stream; the first one of a choice is preceded by the prompt if `echo` is set."""
        number = group * self._per_prompt + piece.index
        first = number not in self._open
        yield from self._heads(group, number, piece)
        if piece.text or piece.finish_reason or piece.logprobs or (self._token_ids and piece.tokens):
            document = self._chunk(number, piece)
            if first and self._token_ids:
                document["prompt_token_ids"] = list(self._generations[group].prompt)
            yield document

    def _heads(self, group: int, number: int, piece: CompletionChunk) -> Iterable[Document]:
        if number in self._open:
            return
        tokens = self._open[number] = self._renderer(group)
        if self._echo:
            scored = self._logprobs is not None
            logprobs = self._prompt(group, tokens, piece.prompt_token_logprobs) if scored else None
            yield {"index": number, "text": self._head(group), "logprobs": logprobs, "finish_reason": None}

    def _chunk(self, number: int, piece: CompletionChunk) -> Document:
        document: Document = {
            "index": number,
            "text": piece.text,
            "logprobs": self._open[number].push(piece.logprobs) if self._logprobs is not None else None,
            "finish_reason": piece.finish_reason,
        }
        if piece.finish_reason:
            document["stop_reason"] = piece.stop_reason
        if self._token_ids:
            document["token_ids"] = list(piece.tokens)
        return document

    def _renderer(self, group: int) -> "_LogprobsRenderer":
        generation = self._generations[group]
        return _LogprobsRenderer(
            self._service, self._names, generation, count=self._logprobs or 0, hidden=self._hidden(group)
        )  # fmt: skip

    def _hidden(self, group: int) -> int:
        """Returns the number of first tokens of a prompt that are not in its text, because tokenization added them."""
        if not (self._echo and self._has_added[group]):
            return 0
        return self._service.added_tokens(self._generations[group].prompt)

    def _prompt(self, group: int, tokens: "_LogprobsRenderer", scores: Sequence[TokenLogprob | None]) -> Document:
        """Renders the tokens of the prompt, once for all of its completions."""
        echo = self._echoed.get(group)
        if echo is None:
            echo = self._echoed[group] = tokens.prompt(scores)
        else:
            tokens.skip(echo)
        return echo.document

    def _head(self, group: int) -> str:
        if not self._echo:
            return ""
        head = self._heads_by_group.get(group)
        if head is None:
            prompt = self._generations[group].prompt[self._hidden(group) :]
            head = self._heads_by_group[group] = self._service.decode(prompt, special=True)
        return head


@final
@dataclass(frozen=True, slots=True)
class _EchoedPrompt:
    """The rendered tokens of a prompt, and the state from which its completions continue."""

    document: Document
    decoder: IncrementalDetokenizer
    """Detokenizer after the prompt."""
    position: int
    """Length of the prompt's text."""
    before: list[int]
    """The last tokens of the prompt."""


@final
class _LogprobsRenderer:
    """Renders the tokens of one choice with log probabilities and positions in its text."""

    def __init__(
        self,
        service: GenerationService,
        names: TokenNames,
        generation: GenerationRequest,
        *,
        count: int,
        hidden: int,
    ) -> None:
        self._names = names
        self._count = count
        self._prompt = generation.prompt
        self._hidden = hidden
        """Number of first tokens of the prompt without text."""
        self._service = service
        self._in_completion = partial(service.decode, special=generation.special_tokens)
        self._decoder = IncrementalDetokenizer(self._in_completion)
        self._position = 0
        self._before: list[int] = []

    def prompt(self, scores: Sequence[TokenLogprob | None]) -> "_EchoedPrompt":
        """Renders the tokens of the prompt."""
        self._decoder = IncrementalDetokenizer(partial(self._service.decode, special=True))
        document = self._document(self._prompt, scores, hidden=self._hidden)
        self._decoder = self._decoder.copy(self._in_completion)
        return _EchoedPrompt(document, self._decoder.copy(), self._position, [*self._before])

    def skip(self, echo: "_EchoedPrompt") -> None:
        """Continues after a prompt that was rendered for another choice."""
        self._decoder, self._position, self._before = echo.decoder.copy(), echo.position, [*echo.before]

    def push(self, logprobs: Sequence[TokenLogprob]) -> Document:
        """Renders the next tokens of the completion."""
        return self._document([item.token for item in logprobs], logprobs)

    def _document(self, tokens: Sequence[int], scores: Sequence[TokenLogprob | None], *, hidden: int = 0) -> Document:
        offsets: list[int] = []
        names: list[str] = []
        tops: list[Mapping[str, float] | None] = []
        for index, (token, item) in enumerate(zip(tokens, scores, strict=True)):
            offsets.append(self._position)
            names.append(self._names(token, self._before))
            tops.append(None if item is None else self._top(item))
            self._position += len(self._decoder.push(token)) if index >= hidden else 0
            self._before = [*self._before[1 - MAX_CONTEXT_TOKENS :], token]
        return {
            "tokens": names,
            "token_logprobs": [None if item is None else item.logprob for item in scores],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _top(self, item: TokenLogprob) -> Mapping[str, float]:
        """Renders the sampled token and the most probable ones: up to `logprobs + 1`, as in OpenAI's API."""
        found = {self._names(item.token, self._before): item.logprob}
        for token, logprob in item.top[: self._count]:
            # Different tokens may have the same text (parts of characters); the most probable one counts, because
            # clients compare the sampled token with the largest value.
            name = self._names(token, self._before)
            found[name] = max(logprob, found.get(name, logprob))
        return found


def _joined(first: Document, second: Document) -> Document:
    return {name: [*first.get(name, []), *values] for name, values in second.items()}
