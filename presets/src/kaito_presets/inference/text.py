"""From token ids to text while they arrive: incremental decoding that never emits half a character, and stop
strings; values of requests in error messages.

Called by the service for streams and for requests with stop strings. Guarantees that the pieces concatenate
to what decoding all tokens at once gives, and that no character of a stop string (nor anything after it) is
ever emitted.
"""

import math
from collections.abc import Callable, Sequence
from typing import final

from kaito_presets.json_shapes import is_list

Decode = Callable[[Sequence[int]], str]

_INCOMPLETE = "\ufffd"
"""What a decoder writes for the bytes of a character that is not complete yet."""
_LONGEST_CHARACTER_TOKENS = 8
"""A byte-level token holds at least one byte and a character has at most four; beyond this the bytes are
simply invalid."""


@final
class IncrementalDecoder:
    """Decodes a growing list of tokens. It re-reads a few tokens back, because the text of a token depends
    on its neighbours."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0
        self._emitted = 0

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly none."""
        self._tokens.append(token)
        return self._advance(final=False)

    def copy(self) -> "IncrementalDecoder":
        """A decoder that has read the same tokens."""
        result = IncrementalDecoder(self._decode)
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


def brief(value: object) -> str:
    """A value for an error message: at most 80 characters, also of numbers with thousands of digits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return f"a number of about {math.log10(abs(value)):.0f} digits"
    try:
        text = repr(value) if not is_list(value) else f"[{', '.join(brief(item) for item in value[:8])}]"
    except ValueError:  # an integer of more digits than Python converts, inside an object
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
