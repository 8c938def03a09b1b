"""Text in, text out: what the routes call, above tokens and batches.

Called by the `/chat` and OpenAI routes. Guarantees that prompt and output together fit the context or the
request is refused (an answer is never silently cut short by a long prompt), that the prompts of one request
are accepted together or not at all, that stop strings end generation, that abandoning a request (the task is
cancelled, the stream is closed) frees its place in the batch, and that every generated token is counted once.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from kaito_presets.errors import BadRequest, PromptTooLong, UnknownModel
from kaito_presets.inference.detokenizer import IncrementalDetokenizer, StopStrings
from kaito_presets.inference.language_model import (
    LanguageModel,
    Message,
    ModelInfo,
    Option,
    Row,
    SamplingPlan,
    TemplateOptions,
    TokenLogprob,
)
from kaito_presets.inference.scheduler import Scheduler, Ticket
from kaito_presets.json_values import abbreviate

INLINE_CHARACTERS: Final = 8_000
"""Shorter prompts are tokenized on the event loop (well under a millisecond); longer ones on a thread."""
INLINE_MESSAGES: Final = 50
"""The same for the messages of a conversation."""

PromptScores = Sequence[TokenLogprob | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One request for text."""

    prompt: Sequence[int]
    options: Mapping[str, Option]
    """What the request asks for."""
    defaults: Mapping[str, Option] = field(default_factory=dict[str, Option])
    """What its route asks for where neither the request nor the model's generation config does."""
    max_new_tokens: int | None = None
    """None: what the model's generation config says, else `default_new_tokens`, else the rest of the context; what does
    not fit is cut then, because the request did not ask for it. 0: only the prompt is read, for `prompt_logprobs`."""
    default_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    count: int = 1
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    adapter: str | None = None
    clean_up_spaces: bool = False
    special_tokens: bool = False
    """Whether special tokens are part of the text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the answer number `index`."""

    index: int
    text: str
    finish: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    new_tokens: int = 0
    prompt_scores: "PromptScores" = ()
    """On the first piece of each answer: log probabilities of the prompt, if asked for."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish: str
    new_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_scores: "PromptScores" = ()


class Observer(Protocol):
    """Learns about requests; implemented by the metrics."""

    def started(self, prompt_tokens: int) -> None:
        """A request was queued."""
        ...

    def first_token(self, seconds: float) -> None:
        """The first token of a row came after `seconds`."""
        ...

    def generated(self, tokens: int, seconds: float) -> None:
        """A row ended with `tokens` tokens after `seconds`."""
        ...


@final
class Service:
    """A loaded model and its scheduler."""

    def __init__(self, model: LanguageModel, scheduler: Scheduler, observer: Observer) -> None:
        self._model = model
        self.scheduler = scheduler
        self._observer = observer
        self._token_texts: dict[int, str] = {}
        # One thread: the tokenizers behind the model are not promised to be re-entrant.
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")

    @property
    def info(self) -> ModelInfo:
        """What is being served."""
        return self._model.info

    @property
    def base_name(self) -> str:
        """Name under which the model answers without any adapter."""
        return f"{self.info.name}:base"

    def model_names(self) -> list[str]:
        """Every name `model=` accepts: the served name first."""
        if not self.info.adapters:
            return [self.info.name]
        return [self.info.name, self.base_name, *self.info.adapters]

    def adapter_of(self, model: str | None) -> str | None:
        """The adapter that the model name of a request selects, in the terms of `Row.adapter`.

        Raises:
            UnknownModel: nothing of that name is served here.
        """
        if model is None or model == self.info.name:
            return None
        if model in self.info.adapters:
            return model
        if self.info.adapters and model == self.base_name:
            return ""
        raise UnknownModel(
            f"the model {abbreviate(model)} does not exist; served here: {', '.join(self.model_names())}", param="model"
        )

    async def encode_all(self, prompts: Sequence[str | list[int]], *, count: int, special: bool) -> list[list[int]]:
        """Token ids of the prompts of one request, each of which asks for `count` answers; those that are token ids
        already stay as they are.

        Raises:
            BadRequest: more answers than the server ever takes at once; found out before any text is read.
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
        """Token ids of a text or of a conversation."""
        if isinstance(prompt, str):
            if len(prompt) < INLINE_CHARACTERS:
                return self._model.encode(prompt, special=special)
            return await self._on_thread(lambda: self._model.encode(prompt, special=special))
        # A template visits every message and may print what is beside the content.
        few = len(prompt) <= INLINE_MESSAGES and not any(message.extra for message in prompt)
        if few and sum(len(message.content) for message in prompt) < INLINE_CHARACTERS:
            return self._model.encode_chat(prompt, template)
        return await self._on_thread(lambda: self._model.encode_chat(prompt, template))

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """Text of token ids."""
        return self._model.decode(tokens, clean_up_spaces=clean_up_spaces, special=special)

    def token_text(self, token: int) -> str:
        """Text of one token; an answer with log probabilities holds up to 21 for each of its own."""
        text = self._token_texts.get(token)
        if text is None:
            text = self._token_texts[token] = self._model.decode([token], special=True)
        return text

    async def complete(self, request: Generation) -> list[Completion]:
        """Generate the whole answer (all `count` of them).

        Raises:
            RequestError: refused, failed, or the server is busy.
        """
        return (await self.complete_all([request]))[0]

    async def complete_all(self, requests: Sequence[Generation]) -> list[list[Completion]]:
        """Generate the whole answers to several prompts of one request, side by side.

        They are accepted together or not at all; if one fails, the others are abandoned.

        Raises:
            RequestError: refused, failed, or the server is busy.
        """
        started = time.monotonic()
        groups = self._submit(requests, streaming=False)
        try:
            parts = [
                self._complete_one(request, ticket, started)
                for request, tickets in zip(requests, groups, strict=True)
                for ticket in tickets
            ]
            found = iter([await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts))
            return [[completion for _ in tickets for completion in next(found)] for tickets in groups]
        finally:
            _cancel(groups)

    async def stream(self, request: Generation) -> AsyncGenerator[Piece, None]:
        """Generate piece by piece; pieces of several answers come interleaved. Close the generator to
        stop."""
        pieces = self.stream_all([request])
        try:
            async for _, piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def stream_all(self, requests: Sequence[Generation]) -> AsyncGenerator[tuple[int, Piece], None]:
        """Generate the answers to several prompts of one request piece by piece, side by side; each piece comes with
        the index of its prompt."""
        started = time.monotonic()
        groups = self._submit(requests, streaming=True)
        try:
            if len(groups) == 1 and len(groups[0]) == 1:
                async for piece in self._pieces(requests[0], groups[0][0], 0, started):
                    yield 0, piece
                return
            merged: asyncio.Queue[tuple[int, Piece] | BaseException] = asyncio.Queue()

            async def forward(group: int, index: int, ticket: Ticket) -> None:
                try:
                    async for piece in self._pieces(requests[group], ticket, index, started):
                        merged.put_nowait((group, piece))
                except Exception as error:  # noqa: BLE001 - carried to the reader, which raises it
                    merged.put_nowait(error)

            failure: BaseException | None = None
            async with asyncio.TaskGroup() as tasks:
                for group, tickets in enumerate(groups):
                    for index, ticket in enumerate(tickets):
                        tasks.create_task(forward(group, index, ticket))
                open_answers = sum(len(tickets) for tickets in groups)
                while open_answers:
                    item = await merged.get()
                    if isinstance(item, BaseException):
                        # Raised outside the group, which would wrap it; the other answers end by their cancelled rows.
                        failure = item
                        _cancel(groups)
                        break
                    open_answers -= item[1].finish is not None
                    yield item
            if failure:
                raise failure
        finally:
            _cancel(groups)

    def close(self) -> None:
        """Release the tokenizer's thread."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: "Encode") -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def _submit(self, requests: Sequence[Generation], *, streaming: bool) -> list[list[Ticket]]:
        """Queue the rows of all prompts, or none of them."""
        plans: list[SamplingPlan] = []
        for index, request in enumerate(requests):
            # The prompts of one request share their options, which are resolved once.
            shared = index > 0 and request.options is requests[index - 1].options
            plans.append(plans[-1] if shared else self._model.plan(request.options, request.defaults))
        groups = [self._rows(request, plan) for request, plan in zip(requests, plans, strict=True)]
        incremental = streaming or any(
            request.stop or plan.stop_strings for request, plan in zip(requests, plans, strict=True)
        )
        tickets = iter(self.scheduler.submit([row for rows in groups for row in rows], incremental=incremental))
        for request in requests:
            self._observer.started(len(request.prompt))
        return [[next(tickets) for _ in rows] for rows in groups]

    def _rows(self, request: Generation, plan: SamplingPlan) -> list[Row]:
        room = self.info.context_tokens - len(request.prompt)
        wanted = request.max_new_tokens
        if not request.prompt:
            raise BadRequest("the prompt holds no token", param="prompt")
        self._check_tokens(request.prompt)
        if room < (1 if wanted is None else wanted):
            asked = (
                f" and {wanted} new tokens were asked for; lower max_tokens or max_completion_tokens "
                "(in /chat max_new_tokens or max_length)"
                if wanted is not None
                else ""
            )
            raise PromptTooLong(
                f"this model's context is {self.info.context_tokens} tokens; the prompt has "
                f"{len(request.prompt)}{asked}",
                param="prompt",
            )
        if plan.alone and (request.logprobs is not None or request.prompt_logprobs is not None):
            raise BadRequest(
                f"log probabilities are not available with {', '.join(plan.alone_because)}", param="logprobs"
            )
        if wanted is None:
            wanted = min(room, plan.length or request.default_new_tokens or room)
        return [
            Row(
                prompt=request.prompt,
                plan=plan,
                max_new_tokens=max(1, wanted),
                adapter=request.adapter,
                # Several answers of one seeded request must differ from each other, and be the same next time.
                seed=None if request.seed is None else _signed_64_bits(request.seed + index),
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
            )
            for index in range(request.count * plan.sequences)
        ]

    def _check_tokens(self, prompt: Sequence[int]) -> None:
        """A token id outside the vocabulary would read past a table; on a GPU that takes the whole process down."""
        limit = self.info.vocabulary
        wrong = next((token for token in prompt if token < 0 or token >= limit), None) if limit else None
        if wrong is not None:
            raise BadRequest(f"token id {wrong} is outside the vocabulary of {limit}", param="prompt")

    async def _complete_one(self, request: Generation, ticket: Ticket, started: float) -> list[Completion]:
        if ticket.incremental:
            return [await self._complete_incrementally(request, ticket, started)]
        event = await ticket.next()
        self._observer.first_token(event.at - started)
        self._observer.generated(len(event.tokens), time.monotonic() - started)
        scores = ticket.row.prompt_scores
        if request.max_new_tokens == 0:
            return [Completion("", "length", 0, (), scores)]
        finish = event.finish or "length"
        return [
            Completion(self._text(request, tokens), finish, len(tokens), tuple(event.logprobs), scores)
            for tokens in (event.sequences or [event.tokens])
        ]

    async def _complete_incrementally(self, request: Generation, ticket: Ticket, started: float) -> Completion:
        text, count, finish = "", 0, "length"
        logprobs: list[TokenLogprob] = []
        async for piece in self._pieces(request, ticket, 0, started):
            text += piece.text
            count += piece.new_tokens
            logprobs.extend(piece.logprobs)
            finish = piece.finish or finish
        return Completion(text, finish, count, tuple(logprobs), ticket.row.prompt_scores)

    async def _pieces(
        self, request: Generation, ticket: Ticket, index: int, started: float
    ) -> AsyncGenerator[Piece, None]:
        decoder = IncrementalDetokenizer(lambda tokens: self._text(request, tokens))
        stops = StopStrings((*request.stop, *ticket.row.plan.stop_strings))
        total = 0
        finish: str | None = None
        while finish is None:
            event = await ticket.next()
            scores: PromptScores = () if total else ticket.row.prompt_scores
            if not total and event.tokens:
                self._observer.first_token(event.at - started)
            if request.max_new_tokens == 0:
                yield Piece(index, "", "length", (), 0, scores)
                return
            total += len(event.tokens)
            text = stops.push("".join(decoder.push(token) for token in event.tokens))
            finish = event.finish
            if finish and not stops.found:
                text += stops.push(decoder.flush())
                text += stops.flush()
            if stops.found:
                ticket.cancel()
                finish = "stop"
            yield Piece(index, text, finish, tuple(event.logprobs), len(event.tokens), scores)
        self._observer.generated(total, time.monotonic() - started)

    def _text(self, request: Generation, tokens: Sequence[int]) -> str:
        return self._model.decode(
            tokens, clean_up_spaces=request.clean_up_spaces, special=request.special_tokens
        )  # fmt: skip


def _cancel(groups: Sequence[Sequence[Ticket]]) -> None:
    for tickets in groups:
        for ticket in tickets:
            ticket.cancel()


def _signed_64_bits(seed: int) -> int:
    """Seeds of several answers wrap around at the end of the range."""
    return (seed + 2**63) % 2**64 - 2**63


class Encode(Protocol):
    """A deferred call of the tokenizer."""

    def __call__(self) -> list[int]:
        """Token ids."""
        ...
