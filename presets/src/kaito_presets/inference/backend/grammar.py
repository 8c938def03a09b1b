"""Compiles grammars of requests and computes the tokens that they allow, with llguidance.

Used by `model` (compilation, on a thread of the service) and `sampling` (one state per row, on the scheduler's thread).
Time and memory of compilation and of each step are bounded by `_LIMITS`: a grammar that exceeds them fails its own
request. A reference to another document is an error, because nothing is fetched.
"""
# torch is partly untyped; its unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer

from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import Grammar

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_CACHED: Final = 64
"""Compiled grammars that are kept: clients send the same schema with every request."""

_LIMITS: Final = LLParserLimits(
    # At most about 20 ms to build the lexer, and 10 ms for the mask of a step.
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
_JSON_OPTIONS: "JsonCompileOptions" = {
    # One space, or a line break with indentation. Small models repeat white space until their length limit.
    "whitespace_pattern": r"( |\n[ \t]{0,40})?",
}
_BITS: Final = torch.arange(8, dtype=torch.uint8)


@final
class GrammarCompiler:
    """Compiles grammars for one tokenizer."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._source = tokenizer
        self._size = max(vocabulary, len(tokenizer))
        self._end_tokens = list(end_tokens)
        self._tokenizer: LLTokenizer | None = None
        self._compiled: dict[Grammar, LLMatcher] = {}
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> LLMatcher:
        """Compiles a grammar, or returns the cached result, of which a row has to use a copy.

        Raises:
            BadRequest: the grammar is invalid, not supported or too complex; or the model has no end token or a
                tokenizer that is not supported.
        """
        with self._lock:
            known = self._compiled.get(grammar)
            if known is None:
                known = self._new(grammar)
                if len(self._compiled) >= MAX_CACHED:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[grammar] = known
            return known

    def _new(self, grammar: Grammar) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = self._new_tokenizer()
        try:
            source = _llguidance_source(grammar)
        except ValueError as error:
            raise BadRequest(f"{grammar.field}: {error}", param=grammar.field) from error
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            problem = " ".join(matcher.get_error().split())
            raise BadRequest(f"{grammar.field} is not supported: {problem[:500]}", param=grammar.field)
        return matcher

    def _new_tokenizer(self) -> LLTokenizer:
        if not self._end_tokens:
            raise BadRequest("structured outputs need a model with an end token")
        try:
            return from_tokenizer(self._source, n_vocab=self._size, eos_token=self._end_tokens)
        except ValueError as error:
            raise BadRequest(f"structured outputs are not available with this model's tokenizer: {error}") from error


def _llguidance_source(grammar: Grammar) -> str:
    if grammar.kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(grammar.source, overrides=_JSON_OPTIONS)
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.source)
    if grammar.kind == "choice":
        return LLMatcher.grammar_from_lark(
            "start: " + " | ".join(json.dumps(one) for one in json.loads(grammar.source))
        )
    return LLMatcher.grammar_from_lark(grammar.source)


@final
class GrammarState:
    """Position of one row in its grammar."""

    def __init__(self, compiled: LLMatcher) -> None:
        self._matcher = compiled.deep_copy()

    def allowed(self, size: int) -> torch.Tensor:
        """Computes which of the first `size` tokens may follow, `[size]`.

        The end tokens of the model are among them where the text is complete.

        Raises:
            BadRequest: the computation exceeds the limits.
        """
        words = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._check()
        bits = ((words[:, None] >> _BITS) & 1).flatten().bool()
        result = torch.zeros(size, dtype=torch.bool)
        count = min(size, len(bits))
        result[:count] = bits[:count]
        return result

    def accept(self, token: int) -> None:
        """Advances by one token.

        Raises:
            BadRequest: the token does not follow the grammar, or the computation exceeds the limits.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = " ".join(self._matcher.get_error().split())
            raise BadRequest(f"the grammar of this request cannot be followed any further: {problem[:500]}")
