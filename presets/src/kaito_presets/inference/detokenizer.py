"""From token ids to text while they arrive: incremental decoding that never emits half a character, and stop
strings; values of requests in error messages.

Called by the service for streams and for requests with stop strings. Guarantees that the pieces concatenate
to what decoding all tokens at once gives, and that no character of a stop string (nor anything after it) is
ever emitted.
"""

from collections.abc import Callable, Sequence
from typing import final

Decode = Callable[[Sequence[int]], str]

_INCOMPLETE = "\ufffd"
"""What a decoder writes for the bytes of a character that is not complete yet."""
_LONGEST_CHARACTER_TOKENS = 8
"""A byte-level token holds at least one byte and a character has at most four; beyond this the bytes are
invalid."""


@final
class IncrementalDetokenizer:
    """Decodes a growing list of tokens. It re-reads a few tokens back, because the text of a token depends
    on its neighbors."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0
        self._emitted = 0

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly none."""
        self._tokens.append(token)
        return self._advance(final=False)

    def copy(self) -> "IncrementalDetokenizer":
        """A decoder that has read the same tokens."""
        result = IncrementalDetokenizer(self._decode)
        result._tokens, result._context, result._emitted = [*self._tokens], self._context, self._emitted
        return result

    def flush(self) -> str:
        """What is left when no more tokens come."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        if self._emitted == len(self._tokens):
            return ""
        before = self._decode(self._tokens[self._context : self._emitted])
        after = self._decode(self._tokens[self._context :])
        incomplete = after.endswith(_INCOMPLETE) and len(self._tokens) - self._emitted < _LONGEST_CHARACTER_TOKENS
        if incomplete and not final:
            return ""
        self._context, self._emitted = self._emitted, len(self._tokens)
        return after[len(before) :]


@final
class StopStrings:
    """Cuts a stream of text before the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The part of the text that is safe to emit; after `found` is set there is no more."""
        if not self._stops:
            return piece
        text = self._held + piece
        positions = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        if positions:
            self.found, self._held = True, ""
            return text[: min(positions)]
        keep = max(self._longest_beginning(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once it is known that no stop string follows."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _longest_beginning(text: str, stop: str) -> int:
        return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
