"""Renders the choices of `/v1/completions`: the text, with the prompt if `echo` is set, and legacy log probabilities.

Used by `openai_routes`. With `echo`, tokens and log probabilities of the prompt precede those of the completion, and
the first one is null, as in vLLM and OpenAI's API. `text_offset` is the position in the text of the whole choice, also
in a stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from kaito_presets.inference.detokenizer import IncrementalDetokenizer
from kaito_presets.inference.language_model import TokenLogprob
from kaito_presets.inference.service import Completion, CompletionChunk, GenerationRequest, GenerationService

Document = dict[str, Any]


@final
class CompletionChoices:
    """Renders the choices of one request."""

    def __init__(
        self, service: GenerationService, generations: Sequence[GenerationRequest], *, echo: bool, logprobs: bool
    ) -> None:
        self._service = service
        self._generations = generations
        self._echo = echo
        self._logprobs = logprobs
        self._open: dict[int, _LogprobsRenderer] = {}
        self._echoed: dict[int, _EchoedPrompt] = {}

    def choice(self, group: int, index: int, answer: Completion) -> Document:
        """Renders a whole choice; `group` is the index of the prompt, `index` that of its completion."""
        generation = self._generations[group]
        tokens = _LogprobsRenderer(self._service, generation)
        head = self._prompt(group, tokens, answer.prompt_token_logprobs) if self._echo and self._logprobs else {}
        return {
            "index": group * generation.count + index,
            "text": self._head(generation) + answer.text,
            "logprobs": _joined(head, tokens.push(answer.logprobs)) if self._logprobs else None,
            "finish_reason": answer.finish_reason,
        }

    def heads(self, group: int, piece: CompletionChunk) -> list[Document]:
        """Renders what precedes the first chunk of a completion in a stream: the prompt, if `echo` is set."""
        number = self._number(group, piece)
        if number in self._open:
            return []
        generation = self._generations[group]
        tokens = self._open[number] = _LogprobsRenderer(self._service, generation)
        if not self._echo:
            return []
        logprobs = self._prompt(group, tokens, piece.prompt_token_logprobs) if self._logprobs else None
        return [{"index": number, "text": self._head(generation), "logprobs": logprobs, "finish_reason": None}]

    def chunk(self, group: int, piece: CompletionChunk) -> Document:
        """Renders one chunk of a stream."""
        number = self._number(group, piece)
        return {
            "index": number,
            "text": piece.text,
            "logprobs": self._open[number].push(piece.logprobs) if self._logprobs else None,
            "finish_reason": piece.finish_reason,
        }

    def _prompt(self, group: int, tokens: "_LogprobsRenderer", scores: Sequence[TokenLogprob | None]) -> Document:
        """Renders the tokens of the prompt, once for all of its completions."""
        echo = self._echoed.get(group)
        if echo is None:
            echo = self._echoed[group] = tokens.prompt(scores)
        else:
            tokens.skip(echo)
        return echo.document

    def _number(self, group: int, piece: CompletionChunk) -> int:
        return group * self._generations[group].count + piece.index

    def _head(self, generation: GenerationRequest) -> str:
        if not self._echo:
            return ""
        return self._service.decode(generation.prompt, special=generation.special_tokens)


@final
@dataclass(frozen=True, slots=True)
class _EchoedPrompt:
    """The rendered tokens of a prompt, and the state from which its completions continue."""

    document: Document
    decoder: IncrementalDetokenizer
    """Detokenizer after the prompt."""
    position: int
    """Length of the prompt's text."""


@final
class _LogprobsRenderer:
    """Renders the tokens of one choice with log probabilities and positions in its text."""

    def __init__(self, service: GenerationService, generation: GenerationRequest) -> None:
        self._service = service
        self._prompt = generation.prompt
        self._decoder = IncrementalDetokenizer(
            lambda tokens: service.decode(tokens, special=generation.special_tokens)
        )  # fmt: skip
        self._position = 0

    def prompt(self, scores: Sequence[TokenLogprob | None]) -> "_EchoedPrompt":
        """Renders the tokens of the prompt."""
        document = self._document(self._prompt, scores)
        return _EchoedPrompt(document, self._decoder.copy(), self._position)

    def skip(self, echo: "_EchoedPrompt") -> None:
        """Continues after a prompt that was rendered for another choice."""
        self._decoder, self._position = echo.decoder.copy(), echo.position

    def push(self, logprobs: Sequence[TokenLogprob]) -> Document:
        """Renders the next tokens of the completion."""
        return self._document([item.token for item in logprobs], logprobs)

    def _document(self, tokens: Sequence[int], scores: Sequence[TokenLogprob | None]) -> Document:
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._position)
            self._position += len(self._decoder.push(token))
        return {
            "tokens": [self._name(token) for token in tokens],
            "token_logprobs": [None if item is None else item.logprob for item in scores],
            "top_logprobs": [None if item is None else self._top(item) for item in scores],
            "text_offset": offsets,
        }

    def _top(self, item: TokenLogprob) -> Mapping[str, float]:
        """Renders the sampled token and the most probable ones: up to `logprobs + 1`, as in OpenAI's API."""
        found = {self._name(item.token): item.logprob}
        for token, logprob in item.top:
            # Different tokens may have the same text (parts of characters); the more probable one comes first.
            found.setdefault(self._name(token), logprob)
        return found

    def _name(self, token: int) -> str:
        return self._service.token_text(token)


def _joined(first: Document, second: Document) -> Document:
    return {name: [*first.get(name, []), *values] for name, values in second.items()}
