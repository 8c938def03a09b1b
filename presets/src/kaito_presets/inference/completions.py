"""The choices of `/v1/completions`: text with or without the prompt in front, and log probabilities in the legacy
format.

Used by `openai_routes`. With `echo`, tokens and log probabilities of the prompt come first (the first one is null), as
vLLM and OpenAI's API give them. `text_offset` is the position in the choice's whole text, in a stream as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from kaito_presets.inference.detokenizer import IncrementalDetokenizer
from kaito_presets.inference.language_model import TokenLogprob
from kaito_presets.inference.service import Completion, Generation, Piece, Service

Document = dict[str, Any]


@final
class CompletionAnswers:
    """Renders the answers of one request."""

    def __init__(self, service: Service, generations: Sequence[Generation], *, echo: bool, logprobs: bool) -> None:
        self._service = service
        self._generations = generations
        self._echo = echo
        self._logprobs = logprobs
        self._open: dict[int, _TokenList] = {}
        self._echoed: dict[int, _Echo] = {}

    def choice(self, group: int, index: int, answer: Completion) -> Document:
        """A whole answer."""
        generation = self._generations[group]
        tokens = _TokenList(self._service, generation)
        head = self._prompt(group, tokens, answer.prompt_scores) if self._echo and self._logprobs else {}
        return {
            "index": group * generation.count + index,
            "text": self._head(generation) + answer.text,
            "logprobs": _joined(head, tokens.push(answer.logprobs)) if self._logprobs else None,
            "finish_reason": answer.finish,
        }

    def heads(self, group: int, piece: Piece) -> list[Document]:
        """What precedes the first piece of an answer in a stream: the prompt, if it is echoed."""
        number = self._number(group, piece)
        if number in self._open:
            return []
        generation = self._generations[group]
        tokens = self._open[number] = _TokenList(self._service, generation)
        if not self._echo:
            return []
        logprobs = self._prompt(group, tokens, piece.prompt_scores) if self._logprobs else None
        return [{"index": number, "text": self._head(generation), "logprobs": logprobs, "finish_reason": None}]

    def chunk(self, group: int, piece: Piece) -> Document:
        """A further piece in a stream."""
        number = self._number(group, piece)
        return {
            "index": number,
            "text": piece.text,
            "logprobs": self._open[number].push(piece.logprobs) if self._logprobs else None,
            "finish_reason": piece.finish,
        }

    def _prompt(self, group: int, tokens: "_TokenList", scores: Sequence[TokenLogprob | None]) -> Document:
        """The prompt's tokens, which all answers to it have in common."""
        echo = self._echoed.get(group)
        if echo is None:
            echo = self._echoed[group] = tokens.prompt(scores)
        else:
            tokens.skip(echo)
        return echo.document

    def _number(self, group: int, piece: Piece) -> int:
        return group * self._generations[group].count + piece.index

    def _head(self, generation: Generation) -> str:
        if not self._echo:
            return ""
        return self._service.decode(generation.prompt, special=generation.special_tokens)


@final
@dataclass(frozen=True, slots=True)
class _Echo:
    """A prompt as all answers to it repeat it."""

    document: Document
    decoder: IncrementalDetokenizer
    """Has read the prompt."""
    position: int
    """Where the prompt ends."""


@final
class _TokenList:
    """Tokens of one choice with their positions in its text."""

    def __init__(self, service: Service, generation: Generation) -> None:
        self._service = service
        self._prompt = generation.prompt
        self._decoder = IncrementalDetokenizer(
            lambda tokens: service.decode(tokens, special=generation.special_tokens)
        )  # fmt: skip
        self._position = 0

    def prompt(self, scores: Sequence[TokenLogprob | None]) -> "_Echo":
        """The tokens of the prompt."""
        document = self._document(self._prompt, scores)
        return _Echo(document, self._decoder.copy(), self._position)

    def skip(self, echo: "_Echo") -> None:
        """Go on behind a prompt that another choice has rendered."""
        self._decoder, self._position = echo.decoder.copy(), echo.position

    def push(self, logprobs: Sequence[TokenLogprob]) -> Document:
        """The next tokens of the answer."""
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
        """The chosen token and the most probable ones (OpenAI API reference: up to `logprobs + 1` elements)."""
        found = {self._name(item.token): item.logprob}
        for token, logprob in item.top:
            # Tokens with equal text (pieces of characters) keep the larger probability.
            found.setdefault(self._name(token), logprob)
        return found

    def _name(self, token: int) -> str:
        return self._service.token_text(token)


def _joined(first: Document, second: Document) -> Document:
    return {name: [*first.get(name, []), *values] for name, values in second.items()}
