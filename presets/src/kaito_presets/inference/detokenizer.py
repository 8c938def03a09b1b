"""Converts a stream of token ids to text: incremental detokenization and stop strings.

Used by the service for streams and for requests with stop strings. Guarantees that the concatenated texts are equal to
the text of all tokens decoded together, that incomplete characters are held back, and that nothing after a stop
string is emitted, nor the stop string itself unless it is requested.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

from kaito_presets.inference.partial_match import overlap

Decode = Callable[[Sequence[int]], str]

INCOMPLETE: Final = "\ufffd"
"""Replacement character, which tokenizers emit for an incomplete UTF-8 sequence."""
_MAX_CHARACTER_TOKENS = 8
"""Tokens after which a replacement character is emitted: a character has at most four bytes and a token at least one,
so more tokens mean bytes that are not valid UTF-8."""


@final
class IncrementalDetokenizer:
    """Decodes a growing list of tokens.

    Each call decodes again from a few tokens before the new one, because the text of a token depends on its neighbors:
    many tokenizers drop the space in front of the first token.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0
        self._emitted = 0

    def push(self, token: int) -> str:
        """Appends a token; returns the text that it completes, which may be empty."""
        self._tokens.append(token)
        return self._advance(final=False)

    def copy(self, decode: Decode | None = None) -> "IncrementalDetokenizer":
        """Returns an independent detokenizer with the same state, which decodes further tokens with `decode`."""
        result = IncrementalDetokenizer(decode or self._decode)
        result._tokens, result._context, result._emitted = [*self._tokens], self._context, self._emitted
        return result

    def flush(self) -> str:
        """Returns the text that was held back, when no more tokens follow."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        if self._emitted == len(self._tokens):
            return ""
        before = self._decode(self._tokens[self._context : self._emitted])
        after = self._decode(self._tokens[self._context :])
        incomplete = after.endswith(INCOMPLETE) and len(self._tokens) - self._emitted < _MAX_CHARACTER_TOKENS
        if incomplete and not final:
            return ""
        self._context, self._emitted = self._emitted, len(self._tokens)
        return after[len(before) :]


@final
class StopStrings:
    """Truncates a stream of text at the first stop string; holds back text that may be the start of one."""

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._include = include
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, piece: str) -> str:
        """Appends text; returns what can be emitted. Sets `found` at a stop string, after which nothing is emitted."""
        if not self._stops:
            return piece
        text = self._held + piece
        found = min(((text.find(stop), stop) for stop in self._stops if stop in text), default=None)
        if found is not None:
            position, self.found = found
            self._held = ""
            return text[: position + len(self.found) if self._include else position]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Returns the text that was held back, when no more text follows."""
        held, self._held = self._held, ""
        return held
