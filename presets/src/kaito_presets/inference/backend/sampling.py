"""Samples tokens from logits with the logits processors of transformers.

Used by `model`. Rows with equal options are sampled in one operation. Rows whose options depend on their own tokens
(penalties, forbidden words) or that have a seed are sampled one by one, because processors and random generator keep
state per row. Guarantees that a row whose options exclude every token, or whose processors raise, fails with its own
error and does not affect other rows.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import torch
from llguidance import LLMatcher
from transformers import LogitsProcessor, LogitsProcessorList

from kaito_presets.errors import BadRequest, GenerationFailed, RequestError
from kaito_presets.inference.backend.grammar import GrammarState
from kaito_presets.inference.backend.plan import (
    TransformersPlan,
    build_processors,
    make_plan,
    stateless,
    without_minimum_length,
)
from kaito_presets.inference.language_model import Row, TokenLogprob

__all__ = ["Choice", "RequireToken", "Sampler", "TransformersPlan", "make_plan", "token_logprobs"]

MIN_LOGPROB: Final = -9999.0
"""Reported for a probability of 0, because JSON cannot represent infinity. vLLM uses the same number."""
MAX_CACHED_WARPERS: Final = 1000
"""Options whose processors are cached. Clients may send an unlimited number of different temperatures."""


@final
@dataclass(slots=True)
class Choice:
    """The sampled tokens of some rows."""

    tokens: torch.Tensor
    """`[rows]`, on the device; token 0 for a row that failed."""
    logprobs: list[TokenLogprob | None]
    errors: dict[int, RequestError] = field(default_factory=dict[int, RequestError])
    """Errors by index of the row."""


@final
class _RowState:
    """State of one row between steps: random generator, processors, and the tokens for the processors."""

    def __init__(self, row: Row, plan: TransformersPlan, device: torch.device) -> None:
        self.generator: torch.Generator | None = None
        if row.seed is not None and not plan.greedy:
            self.generator = torch.Generator(device=device)
            self.generator.manual_seed(row.seed)
        self.processors = LogitsProcessorList()
        self._tokens = torch.empty(0)
        self._known = len(row.prompt)
        if plan.needs_history:
            prompt = torch.tensor([list(row.prompt)], device=device)
            self._tokens = torch.cat([prompt, prompt.new_zeros((1, row.max_new_tokens))], dim=1)
            self.processors = without_minimum_length(build_processors(plan.config, prompt, row.max_new_tokens))

    def history(self, row: Row) -> torch.Tensor:
        """Returns prompt and output tokens, `[1, tokens]`.

        The tensor has the full length from the start; new tokens are written into it. Concatenation would copy the
        whole history in every step.
        """
        total = len(row.prompt) + len(row.output_tokens)
        if total > self._known:
            new = row.output_tokens[self._known - len(row.prompt) :]
            self._tokens[0, self._known : total] = torch.tensor(new, device=self._tokens.device)
            self._known = total
        return self._tokens[:, :total]


@final
class Sampler:
    """Samples the next tokens of the rows of a batch."""

    def __init__(self) -> None:
        self._warpers: dict[str, LogitsProcessorList] = {}
        self._states: dict[int, _RowState] = {}
        self._grammars: dict[int, GrammarState] = {}

    @torch.inference_mode()
    def choose(self, rows: Sequence[Row], logits: torch.Tensor) -> Choice:
        """Samples the next token of every row, and computes the requested log probabilities."""
        plans = [_transformers_plan(row) for row in rows]
        # vLLM reports log probabilities of the model's distribution, before any option changes it. They are computed
        # first, because the processors change the logits in place.
        reported = _log_probabilities(logits, [i for i, row in enumerate(rows) if row.grammar is None], rows)
        _forbid_early_ends(rows, plans, logits)
        errors: dict[int, RequestError] = {}
        self._apply_grammars(rows, logits, errors)
        # Those of a grammar are the probabilities among the tokens that it allows, as in vLLM.
        reported |= _log_probabilities(logits, [i for i, row in enumerate(rows) if row.grammar is not None], rows)
        if all(plan.greedy and not plan.needs_history for plan in plans):
            tokens = logits.argmax(dim=-1)
        else:
            tokens = self._choose_by_group(rows, plans, logits, errors)
        self._advance_grammars(rows, tokens, errors)
        logprobs: list[TokenLogprob | None] = [None] * len(rows)
        for index, values in reported.items():
            logprobs[index] = token_logprobs(values, int(tokens[index]), rows[index].logprobs or 0)
        return Choice(tokens, logprobs, errors)

    def forget(self, rows: Sequence[Row]) -> None:
        """Drops the state of rows that ended."""
        for row in rows:
            self._states.pop(id(row), None)
            self._grammars.pop(id(row), None)

    def _apply_grammars(self, rows: Sequence[Row], logits: torch.Tensor, errors: dict[int, RequestError]) -> None:
        """Excludes the tokens that the grammars of the rows do not allow."""
        masks: dict[int, torch.Tensor] = {}
        for index, row in enumerate(rows):
            if row.grammar is None:
                continue
            state = self._grammars.get(id(row))
            if state is None:
                state = self._grammars[id(row)] = GrammarState(cast("LLMatcher", row.grammar))
            try:
                masks[index] = state.allowed(logits.shape[1])
            except BadRequest as error:
                errors[index] = error
        if not masks:
            return
        indexes = list(masks)
        excluded = ~torch.stack(list(masks.values())).to(logits.device)
        values = logits[indexes].masked_fill(excluded, -torch.inf)
        logits[indexes] = values
        for index, best in zip(indexes, values.max(dim=-1).values.tolist(), strict=True):
            if best == -torch.inf:
                errors[index] = BadRequest("the grammar of this request allows no token that its options allow")

    def _advance_grammars(self, rows: Sequence[Row], tokens: torch.Tensor, errors: dict[int, RequestError]) -> None:
        for index, row in enumerate(rows):
            state = self._grammars.get(id(row)) if row.grammar is not None else None
            if state is None or index in errors:
                continue
            token = int(tokens[index])
            if token in row.plan.end_tokens:
                continue
            try:
                state.accept(token)
            except BadRequest as error:
                errors[index] = error

    def _choose_by_group(
        self,
        rows: Sequence[Row],
        plans: Sequence[TransformersPlan],
        logits: torch.Tensor,
        errors: dict[int, RequestError],
    ) -> torch.Tensor:
        chosen = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
        groups: dict[str, list[int]] = {}
        for index, (row, plan) in enumerate(zip(rows, plans, strict=True)):
            # A row with processors or a generator of its own is a group of one.
            separate = plan.needs_history or (row.seed is not None and not plan.greedy)
            groups.setdefault(f"{index}!" if separate else plan.key, []).append(index)
        for members in groups.values():
            row, plan = rows[members[0]], plans[members[0]]
            scores = (logits if len(members) == len(rows) else logits[members]).float()
            try:
                tokens = self._choose_alike(row, plan, scores)
            except RequestError as error:
                errors.update((index, error) for index in members)
            except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                failure = BadRequest(f"the sampling options cannot be applied: {type(error).__name__}: {error}")
                errors.update((index, failure) for index in members)
            else:
                chosen[members] = tokens
        for index in (chosen < 0).nonzero().flatten().tolist():
            # A grammar that allows no token has recorded its error; its row has no finite logits either.
            broken = GenerationFailed("the logits of the model contain NaN or infinity; no token can be sampled")
            errors.setdefault(index, broken)
            chosen[index] = 0
        return chosen

    def _choose_alike(self, row: Row, plan: TransformersPlan, scores: torch.Tensor) -> torch.Tensor:
        """Samples rows with equal options; returns -1 for a row whose scores are not a distribution."""
        state = self._state(row, plan, scores.device)
        if plan.needs_history:
            scores = _processed(row, plan, state, scores)
        elif not plan.greedy:
            no_history: Any = torch.empty((len(scores), 0), dtype=torch.long, device=scores.device)
            scores = self._warper(plan, scores.device)(no_history, cast("Any", scores))
        if plan.greedy:
            return scores.argmax(dim=-1)
        probabilities = torch.softmax(scores, dim=-1)
        # If one row is not a distribution, `multinomial` raises for the whole group; on a GPU, the assertion failure
        # makes the process unusable. Such rows are sampled from a uniform distribution instead, and marked with -1.
        broken = ~torch.isfinite(probabilities.sum(dim=-1))
        probabilities = torch.where(broken[:, None], torch.ones_like(probabilities), probabilities)
        tokens = torch.multinomial(probabilities, 1, generator=state.generator if state else None).squeeze(1)
        return torch.where(broken, torch.full_like(tokens, -1), tokens)

    def _state(self, row: Row, plan: TransformersPlan, device: torch.device) -> _RowState | None:
        if not plan.needs_history and (row.seed is None or plan.greedy):
            return None
        state = self._states.get(id(row))
        if state is None:
            state = self._states[id(row)] = _RowState(row, plan, device)
        return state

    def _warper(self, plan: TransformersPlan, device: torch.device) -> LogitsProcessorList:
        known = self._warpers.get(plan.key)
        if known is None:
            if len(self._warpers) >= MAX_CACHED_WARPERS:
                self._warpers.clear()
            trial = build_processors(plan.config, torch.zeros((1, 1), dtype=torch.long, device=device), 1)
            known = self._warpers[plan.key] = stateless(trial)
        return known


def _log_probabilities(logits: torch.Tensor, indexes: Sequence[int], rows: Sequence[Row]) -> dict[int, torch.Tensor]:
    """Returns the log probabilities of those rows that report them, by index."""
    return {
        index: torch.log_softmax(logits[index].float(), dim=-1) for index in indexes if rows[index].logprobs is not None
    }


def token_logprobs(values: torch.Tensor, token: int, count: int) -> TokenLogprob:
    """Selects `token` and the `count` most probable tokens from log probabilities, `[vocabulary]`."""
    values = torch.nan_to_num(values, nan=MIN_LOGPROB, neginf=MIN_LOGPROB)
    top: tuple[tuple[int, float], ...] = ()
    if count:
        best, tokens = values.topk(min(count, len(values)))
        top = tuple(zip(tokens.tolist(), best.tolist(), strict=True))
    rank = int((values > values[token]).sum()) + 1
    return TokenLogprob(token, float(values[token]), top, rank)


def _transformers_plan(row: Row) -> TransformersPlan:
    return cast("TransformersPlan", row.plan)  # created by make_plan; opaque to the scheduler


def _forbid_early_ends(rows: Sequence[Row], plans: Sequence[TransformersPlan], logits: torch.Tensor) -> None:
    """Excludes the end tokens of rows below their minimum length, in one operation for rows with equal end tokens.

    transformers' processors for this would make each of these rows a group of one.
    """
    forbidden: dict[frozenset[int], list[int]] = {}
    for index, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        output_tokens = len(row.output_tokens)
        if output_tokens < plan.min_new_tokens or output_tokens + len(row.prompt) < plan.min_length:
            forbidden.setdefault(plan.end_tokens, []).append(index)
    for ends, indexes in forbidden.items():
        if ends:
            logits[torch.tensor(indexes)[:, None], torch.tensor(list(ends))] = -torch.inf


def _processed(row: Row, plan: TransformersPlan, state: _RowState | None, scores: torch.Tensor) -> torch.Tensor:
    """Applies all options of one row to its scores, `[1, vocabulary]`.

    Raises:
        BadRequest: the options exclude every token.
    """
    if state is None:
        return scores
    history: Any = state.history(row)
    _adjust(row, plan, scores)
    values: torch.Tensor = state.processors(history, cast("Any", scores))
    # Infinite bonuses (`sequence_bias`) become the largest number, so that softmax works; NaN excludes a token.
    values = torch.nan_to_num(values, nan=-torch.inf, posinf=torch.finfo(values.dtype).max, neginf=-torch.inf)
    _require_token(values)
    return values


def _require_token(scores: torch.Tensor) -> None:
    if not torch.isfinite(scores.max(dim=-1).values).all():
        raise BadRequest(
            "suppress_tokens, begin_suppress_tokens, bad_words_ids, sequence_bias or the end tokens of this request "
            "exclude every token"
        )


@final
class RequireToken(LogitsProcessor):
    """Raises if the options of a row outside the batch exclude every token.

    `generate` would sample from a distribution of zeros, which is an assertion failure on a GPU.
    """

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ARG002
        """Returns the scores unchanged."""
        _require_token(scores)
        return scores


def _adjust(row: Row, plan: TransformersPlan, scores: torch.Tensor) -> None:
    """Applies `logit_bias` and OpenAI's penalties in place.

    API reference: `logits[j] -= count[j] * frequency_penalty + (count[j] > 0) * presence_penalty`, where `count` covers
    the generated tokens and not the prompt.
    """
    if plan.logit_bias:
        tokens = torch.tensor(list(plan.logit_bias), device=scores.device)
        scores[0, tokens] += torch.tensor(list(plan.logit_bias.values()), device=scores.device)
    if row.output_tokens and (plan.frequency_penalty or plan.presence_penalty):
        tokens, counts = torch.tensor(row.output_tokens, device=scores.device).unique(return_counts=True)
        scores[0, tokens] -= counts * plan.frequency_penalty + plan.presence_penalty
