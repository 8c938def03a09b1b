"""Generates text for the routes: tokenizes prompts, submits rows to the scheduler, and converts tokens to text.

Used by the `/chat` and OpenAI routes. Guarantees:

* Prompt and requested completion fit the context together, or the request is rejected. A long prompt never shortens a
  completion whose length was requested.
* The prompts of one request are accepted together or not at all.
* Stop strings end the generation and are not part of the text.
* A canceled task or a closed stream cancels the rows of its request.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Final, Protocol, final

from kaito_presets.errors import BadRequest, Overloaded, PromptTooLong, UnknownModel
from kaito_presets.inference.detokenizer import INCOMPLETE, IncrementalDetokenizer, StopStrings
from kaito_presets.inference.events import RowHandle
from kaito_presets.inference.language_model import (
    Grammar,
    LanguageModel,
    Message,
    ModelInfo,
    Option,
    Row,
    SamplingPlan,
    TemplateOptions,
    TokenLogprob,
)
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.json_values import abbreviate, is_list

log = logging.getLogger(__name__)

INLINE_CHARACTERS: Final = 8_000
"""Shorter prompts are tokenized on the event loop, which takes less than a millisecond; longer ones on a thread."""
INLINE_MESSAGES: Final = 50
"""Conversations of at most as many messages are rendered on the event loop."""

MAX_CONTEXT_TOKENS: Final = 3
"""Most tokens before the last one of a character: a character has at most four bytes."""
MAX_LOGGED_FIELDS: Final = 100
MAX_COMPILATIONS: Final = 64
"""Most grammars that are being compiled or wait for it."""

PromptLogprobs = Sequence[TokenLogprob | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt with everything that determines its completions."""

    prompt: Sequence[int]
    options: Mapping[str, Option]
    """Options of the request."""
    defaults: Mapping[str, Option] = field(default_factory=dict[str, Option])
    """Defaults of the route; the generation config of the model takes precedence over them."""
    max_new_tokens: int | None = None
    """Most new tokens. None: the value of the model's generation config, else `default_new_tokens`, else the rest of
    the context; such a default is reduced to what fits. 0: only the prompt is computed, for `prompt_logprobs`."""
    default_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    count: int = 1
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    adapter: str | None = None
    clean_up_spaces: bool = False
    grammar: object | None = None
    """Result of `GenerationService.compile` to which the completions are restricted."""
    special_tokens: bool = False
    """Whether the text contains special tokens."""
    include_stop_string: bool = False
    """Whether the text ends with the stop string that ended it."""
    include_end_token: bool = False
    """Whether the text contains the text of the token that ended it (unless that is a special token)."""


@dataclass(frozen=True, slots=True)
class CompletionChunk:
    """A part of one completion in a stream; `index` numbers the completions of a prompt."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: tuple[int, ...] = ()
    stop_reason: str | int | None = None
    """The stop string or the token of `stop_token_ids` that ended the completion."""
    prompt_token_logprobs: "PromptLogprobs" = ()
    """Log probabilities of the prompt, if requested; only in the first chunk of a completion."""

    @property
    def new_tokens(self) -> int:
        """Number of tokens of the chunk."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of a prompt."""

    text: str
    finish_reason: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_token_logprobs: "PromptLogprobs" = ()
    stop_reason: str | int | None = None
    """The stop string or the token of `stop_token_ids` that ended the completion."""

    @property
    def new_tokens(self) -> int:
        """Number of generated tokens, with the token that ended the completion."""
        return len(self.tokens)


class Observer(Protocol):
    """Receives measurements of requests; `Metrics` implements it."""

    def started(self, prompt_tokens: int) -> None:
        """Called when a request was queued."""
        ...

    def first_token(self, seconds: float) -> None:
        """Called when a row has its first token, `seconds` after the request."""
        ...

    def generated(self, tokens: int, seconds: float) -> None:
        """Called when a row has ended, `seconds` after the request."""
        ...

    def fields_ignored(self) -> None:
        """Called for a request with unknown fields."""
        ...


@final
class GenerationService:
    """A loaded model and its scheduler."""

    def __init__(self, model: LanguageModel, scheduler: Scheduler, observer: Observer) -> None:
        self._model = model
        self.scheduler = scheduler
        self._observer = observer
        self._token_texts: dict[int, str] = {}
        self._added: list[int] | None = None
        """Tokens that precede every text; None before they were needed."""
        self._logged_fields: set[str] = set()
        # One thread, because tokenizers of the tokenizers library change their padding and truncation state in a call.
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        # A thread of their own, so that a slow grammar delays only requests with grammars.
        self._compiling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._open_compilations = 0

    @property
    def info(self) -> ModelInfo:
        """Properties of the model."""
        return self._model.info

    @property
    def base_name(self) -> str:
        """Name of the model without adapters, `NAME:base`."""
        return f"{self.info.name}:base"

    def model_names(self) -> list[str]:
        """Returns the accepted values of `model`; the served name is the first."""
        if not self.info.adapters:
            return [self.info.name]
        return [self.info.name, self.base_name, *self.info.adapters]

    def resolve_adapter(self, model: str | None) -> str | None:
        """Resolves the `model` field of a request to a value of `Row.adapter`.

        Raises:
            UnknownModel: `model` is not one of `model_names`.
        """
        info = self.info  # replaced as a whole when adapters change
        if not model or model == info.name:
            return info.combined_version
        if model in info.adapters:
            return info.adapter_versions.get(model, model)
        if info.adapters and model == self.base_name:
            return ""
        raise UnknownModel(
            f"the model {abbreviate(model)} does not exist; this server has: {', '.join(self.model_names())}",
            param="model",
        )

    async def encode_all(self, prompts: Sequence[str | list[int]], *, count: int, special: bool) -> list[list[int]]:
        """Tokenizes the prompts of one request, each with `count` completions; lists of token ids are returned as they
        are.

        Raises:
            BadRequest: the request needs more rows than an idle server accepts. This is checked before any prompt is
                tokenized, because a body may contain millions of prompts.
        """
        self.scheduler.check_count(len(prompts) * count)

        def work() -> list[list[int]]:
            return [
                self._model.encode(prompt, special=special) if isinstance(prompt, str) else prompt
                for prompt in prompts
            ]  # fmt: skip

        if sum(len(prompt) for prompt in prompts if isinstance(prompt, str)) < INLINE_CHARACTERS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    async def encode(
        self, prompt: str | Sequence[Message], *, special: bool = True, template: TemplateOptions | None = None
    ) -> list[int]:
        """Tokenizes a text, or renders and tokenizes a conversation."""
        if isinstance(prompt, str):
            if len(prompt) < INLINE_CHARACTERS:
                return self._model.encode(prompt, special=special)
            return await self._on_thread(lambda: self._model.encode(prompt, special=special))
        # The time of a template depends on the number of messages and on fields beside the content (`tool_calls`).
        few = len(prompt) <= INLINE_MESSAGES and not any(message.extra for message in prompt)
        if few and sum(len(message.content) for message in prompt) < INLINE_CHARACTERS:
            return self._model.encode_chat(prompt, template)
        return await self._on_thread(lambda: self._model.encode_chat(prompt, template))

    def truncated(self, prompt: Sequence[int], limit: int | None, side: str | None) -> Sequence[int]:
        """Returns `limit` tokens of a prompt, without those on `side`; -1 stands for the context less one token."""
        if limit is None:
            return prompt
        count = self.info.context_tokens - 1 if limit == -1 else limit
        return prompt[:count] if side == "right" else prompt[-count:]

    def note_ignored_fields(self, names: Sequence[str]) -> None:
        """Counts a request with unknown fields, and logs each of the first `MAX_LOGGED_FIELDS` names once."""
        if names:
            self._observer.fields_ignored()
        for name in names:
            if name not in self._logged_fields and len(self._logged_fields) < MAX_LOGGED_FIELDS:
                self._logged_fields.add(name)
                log.info("requests contain the unknown field %s, which is ignored", abbreviate(name))

    async def compile(self, grammar: Grammar) -> object:
        """Compiles a grammar for `GenerationRequest.grammar`.

        Raises:
            BadRequest: the grammar is invalid, not supported or too complex.
            Overloaded: too many compilations are waiting.
        """
        if self._open_compilations >= MAX_COMPILATIONS:
            raise Overloaded("too many grammars are being compiled", retry_after_seconds=1)
        self._open_compilations += 1
        try:
            work = partial(self._model.compile_grammar, grammar)
            return await asyncio.get_running_loop().run_in_executor(self._compiling, work)
        finally:
            self._open_compilations -= 1

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """Converts token ids to text."""
        return self._model.decode(tokens, clean_up_spaces=clean_up_spaces, special=special)

    async def decode_tokens(self, tokens: Sequence[int]) -> str:
        """Converts token ids of a request to text, with special tokens.

        Raises:
            BadRequest: a token is outside the vocabulary.
        """
        self._check_tokens(tokens, "tokens")
        work = partial(self._model.decode, tokens, special=True)
        if len(tokens) < INLINE_CHARACTERS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def added_tokens(self, prompt: Sequence[int]) -> int:
        """Returns how many tokens at the beginning of a text were added when it was tokenized."""
        if self._added is None:
            self._added = self._model.encode("")
        pairs = zip(self._added, prompt, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def token_text(self, token: int) -> str:
        """Returns the text of one token.

        The texts are cached: a completion with log probabilities names up to 21 tokens per position.
        """
        text = self._token_texts.get(token)
        if text is None:
            text = self._token_texts[token] = self._model.decode([token], special=True)
        return text

    def token_text_after(self, token: int, before: Sequence[int]) -> str:
        """Returns the text that a token adds to the tokens before it.

        It differs from `token_text` for tokens that are a part of a character: the token that completes the character
        has its text, and those before it have none.
        """
        text = self.token_text(token)
        if INCOMPLETE not in text:
            return text
        parts = 0
        while parts < len(before) and self.token_text(before[-1 - parts]).endswith(INCOMPLETE):
            parts += 1
        # The tokens before may be the parts of several characters, so the shortest context that completes one counts.
        for count in range(1, min(parts, MAX_CONTEXT_TOKENS) + 1):
            text = self._model.decode([*before[len(before) - count :], token], special=True)
            if INCOMPLETE not in text:
                return text
        return ""

    def vocabulary_entry(self, token: int) -> str:
        """Returns the entry of a token in the vocabulary of the tokenizer."""
        return self._model.vocabulary_entry(token)

    async def complete(self, request: GenerationRequest) -> list[Completion]:
        """Generates all completions of one prompt.

        Raises:
            RequestError: the request is rejected or failed.
        """
        return (await self.complete_all([request]))[0]

    async def complete_all(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Generates the completions of several prompts concurrently; if one fails, the others are canceled.

        Raises:
            RequestError: the request is rejected or failed.
        """
        started = time.monotonic()
        groups = self._submit(requests, streaming=False)
        try:
            parts = [
                self._complete_one(request, handle, started)
                for request, handles in zip(requests, groups, strict=True)
                for handle in handles
            ]
            found = iter([await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts))
            return [[completion for _ in handles for completion in next(found)] for handles in groups]
        finally:
            _cancel(groups)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[CompletionChunk, None]:
        """Streams the completions of one prompt; chunks of several completions are interleaved.

        Closing the generator cancels the rows.
        """
        pieces = self.stream_all([request])
        try:
            async for _, piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def stream_all(
        self, requests: Sequence[GenerationRequest]
    ) -> AsyncGenerator[tuple[int, CompletionChunk], None]:
        """Streams the completions of several prompts; yields the index of the prompt with each chunk."""
        started = time.monotonic()
        groups = self._submit(requests, streaming=True)
        try:
            if len(groups) == 1 and len(groups[0]) == 1:
                async for piece in self._chunks(requests[0], groups[0][0], 0, started):
                    yield 0, piece
                return
            merged: asyncio.Queue[tuple[int, CompletionChunk] | BaseException] = asyncio.Queue()

            async def forward(group: int, index: int, handle: RowHandle) -> None:
                try:
                    async for piece in self._chunks(requests[group], handle, index, started):
                        merged.put_nowait((group, piece))
                except Exception as error:  # noqa: BLE001 - raised by the consumer below
                    merged.put_nowait(error)

            failure: BaseException | None = None
            async with asyncio.TaskGroup() as tasks:
                for group, handles in enumerate(groups):
                    for index, handle in enumerate(handles):
                        tasks.create_task(forward(group, index, handle))
                open_answers = sum(len(handles) for handles in groups)
                while open_answers:
                    item = await merged.get()
                    if isinstance(item, BaseException):
                        # Raised after the group, which would wrap it in an ExceptionGroup. The other tasks end
                        # because their rows are canceled.
                        failure = item
                        _cancel(groups)
                        break
                    open_answers -= item[1].finish_reason is not None
                    yield item
            if failure:
                raise failure
        finally:
            _cancel(groups)

    def close(self) -> None:
        """Stops the threads for tokenization and grammars."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self._compiling.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: "TokenizeCall") -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def _submit(self, requests: Sequence[GenerationRequest], *, streaming: bool) -> list[list[RowHandle]]:
        """Submits the rows of all prompts together."""
        plans: list[SamplingPlan] = []
        for index, request in enumerate(requests):
            # The prompts of one request share their options, so the plan is computed once.
            shared = index > 0 and request.options is requests[index - 1].options
            plans.append(plans[-1] if shared else self._model.plan(request.options, request.defaults))
        groups = [self._rows(request, plan) for request, plan in zip(requests, plans, strict=True)]
        incremental = streaming or any(
            request.stop or plan.stop_strings for request, plan in zip(requests, plans, strict=True)
        )
        handles = iter(self.scheduler.submit([row for rows in groups for row in rows], incremental=incremental))
        for request in requests:
            self._observer.started(len(request.prompt))
        return [[next(handles) for _ in rows] for rows in groups]

    def _rows(self, request: GenerationRequest, plan: SamplingPlan) -> list[Row]:
        remaining = self.info.context_tokens - len(request.prompt)
        requested = request.max_new_tokens
        if not request.prompt:
            raise BadRequest("the prompt is empty after tokenization", param="prompt")
        self._check_tokens(request.prompt)
        if remaining < (1 if requested is None else requested):
            remedy = (
                f" and the request is for {requested} new tokens; lower max_tokens or max_completion_tokens "
                "(in /chat max_new_tokens or max_length)"
                if requested is not None
                else ""
            )
            raise PromptTooLong(
                f"this model's context is {self.info.context_tokens} tokens; the prompt has "
                f"{len(request.prompt)}{remedy}",
                param="prompt",
            )
        if plan.is_unbatched and (request.logprobs is not None or request.prompt_logprobs is not None):
            raise BadRequest(
                f"log probabilities are not available with {', '.join(plan.unbatched_reasons)}", param="logprobs"
            )
        if request.grammar is not None:
            if plan.is_unbatched:
                raise BadRequest(f"structured outputs are not available with {', '.join(plan.unbatched_reasons)}")
            if not plan.end_tokens:
                raise BadRequest("structured outputs need an end token", param="ignore_eos")
        if requested is None:
            requested = min(remaining, plan.length or request.default_new_tokens or remaining)
        return [
            Row(
                prompt=request.prompt,
                plan=plan,
                max_new_tokens=max(1, requested),
                adapter=request.adapter,
                # The completions of a seeded request differ from each other and are the same when it is repeated.
                seed=None if request.seed is None else _signed_64_bits(request.seed + index),
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
                grammar=request.grammar,
            )
            for index in range(request.count * plan.sequences)
        ]

    def _check_tokens(self, prompt: Sequence[int], param: str = "prompt") -> None:
        """Rejects token ids outside the vocabulary.

        The embedding lookup of such an id is an assertion failure of the GPU, after which the process is unusable.
        """
        limit = self.info.vocabulary
        wrong = next((token for token in prompt if token < 0 or token >= limit), None) if limit else None
        if wrong is not None:
            raise BadRequest(f"token id {wrong} is out of vocabulary: the model has {limit} tokens", param=param)

    async def _complete_one(self, request: GenerationRequest, handle: RowHandle, started: float) -> list[Completion]:
        if handle.incremental:
            return [await self._complete_incrementally(request, handle, started)]
        event = await handle.next()
        self._observer.first_token(event.at - started)
        self._observer.generated(len(event.tokens), time.monotonic() - started)
        scores = handle.row.prompt_token_logprobs
        if request.max_new_tokens == 0:
            return [Completion("", "length", (), (), scores)]
        finish_reason = event.finish_reason or "length"
        plan = handle.row.plan
        return [
            Completion(
                self._text(request, _visible(request, plan, tokens)),
                finish_reason,
                tuple(tokens),
                tuple(event.logprobs),
                scores,
                _stop_token(request, tokens),
            )
            for tokens in (event.sequences or [event.tokens])
        ]

    async def _complete_incrementally(
        self, request: GenerationRequest, handle: RowHandle, started: float
    ) -> Completion:
        text, finish_reason, stop_reason = "", "length", None
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        async for piece in self._chunks(request, handle, 0, started):
            text += piece.text
            tokens.extend(piece.tokens)
            logprobs.extend(piece.logprobs)
            finish_reason = piece.finish_reason or finish_reason
            stop_reason = piece.stop_reason
        scores = handle.row.prompt_token_logprobs
        return Completion(text, finish_reason, tuple(tokens), tuple(logprobs), scores, stop_reason)

    async def _chunks(
        self, request: GenerationRequest, handle: RowHandle, index: int, started: float
    ) -> AsyncGenerator[CompletionChunk, None]:
        decoder = IncrementalDetokenizer(lambda tokens: self._text(request, tokens))
        plan = handle.row.plan
        stops = StopStrings((*request.stop, *plan.stop_strings), include=request.include_stop_string)
        total = 0
        finish_reason: str | None = None
        while finish_reason is None:
            event = await handle.next()
            scores: PromptLogprobs = () if total else handle.row.prompt_token_logprobs
            if not total and event.tokens:
                self._observer.first_token(event.at - started)
            if request.max_new_tokens == 0:
                yield CompletionChunk(index, "", "length", prompt_token_logprobs=scores)
                return
            total += len(event.tokens)
            finish_reason = event.finish_reason
            tokens = event.tokens if finish_reason is None else _visible(request, plan, event.tokens)
            text = stops.push("".join(decoder.push(token) for token in tokens))
            if finish_reason and stops.found is None:
                text += stops.push(decoder.flush())
                text += stops.flush()
            if stops.found is not None:
                handle.cancel()
                finish_reason = "stop"
            yield CompletionChunk(
                index,
                text,
                finish_reason,
                tuple(event.logprobs),
                tuple(event.tokens),
                stops.found or (_stop_token(request, event.tokens) if finish_reason else None),
                scores,
            )
        self._observer.generated(total, time.monotonic() - started)

    def _text(self, request: GenerationRequest, tokens: Sequence[int]) -> str:
        return self._model.decode(
            tokens, clean_up_spaces=request.clean_up_spaces, special=request.special_tokens
        )  # fmt: skip


def _cancel(groups: Sequence[Sequence[RowHandle]]) -> None:
    for handles in groups:
        for handle in handles:
            handle.cancel()


def _visible(request: GenerationRequest, plan: SamplingPlan, tokens: Sequence[int]) -> Sequence[int]:
    """Returns the tokens whose text belongs to the completion: without the one that ended it, unless requested."""
    hidden = tokens and tokens[-1] in plan.end_tokens and not request.include_end_token
    return tokens[:-1] if hidden else tokens


def _stop_token(request: GenerationRequest, tokens: Sequence[int]) -> int | None:
    """Returns the token of `stop_token_ids` that ended the completion."""
    stops = request.options.get("stop_token_ids")
    return tokens[-1] if tokens and is_list(stops) and tokens[-1] in stops else None


def _signed_64_bits(seed: int) -> int:
    """Wraps a seed at the end of the 64-bit range; seed and index of a completion may exceed it together."""
    return (seed + 2**63) % 2**64 - 2**63


class TokenizeCall(Protocol):
    """Deferred call of the tokenizer."""

    def __call__(self) -> list[int]:
        """Returns token ids."""
        ...
