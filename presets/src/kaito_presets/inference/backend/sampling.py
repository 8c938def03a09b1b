"""From logits to tokens: transformers' own warpers, applied to all rows of a batch that have the same
options at once.

Used by `model`. A plan is made once per request from the model's generation config and the request's
options; options that cannot share a batch (beam search, assistants, anything stateful) are marked and go
through `model.generate` instead, so that every option of `generate_kwargs` means exactly what transformers
says it means.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import Option, Row, TokenLogprob

BATCHED_OPTIONS: Final = frozenset(
    {
        "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
        "no_repeat_ngram_size", "min_length", "min_new_tokens", "max_length", "max_new_tokens", "eos_token_id",
        "pad_token_id", "bos_token_id", "use_cache", "transformers_version",
    }
)  # fmt: skip
"""Options that rows of one batch may have side by side; everything else sends the row to `model.generate`."""

NEUTRAL: Final[Mapping[str, object]] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
}
"""Settings that change nothing, so that a client that spells a default out still shares the batch."""

REFUSED_OPTIONS: Final = frozenset(
    {
        "return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits",
        "cache_config", "cache_implementation", "compile_config", "disable_compile", "use_cache", "assistant_model",
        "generation_kwargs", "transformers_version", "prompt_lookup_num_tokens", "num_assistant_tokens",
        "stop_strings", "max_time", "watermarking_config", "continuous_batching_config",
    }
)  # fmt: skip
"""Objects, files and switches of the library itself: not a client's business."""


@final
@dataclass(frozen=True, slots=True)
class TransformersPlan:
    """Resolved options of one request; implements the scheduler's `SamplingPlan`."""

    config: GenerationConfig
    key: str
    """Equal keys sample alike."""
    end_tokens: frozenset[int]
    alone: bool
    length: int | None
    shortest: int
    """New tokens before an end token is allowed."""
    shortest_with_prompt: int
    """The same, counting the prompt."""
    needs_history: bool
    greedy: bool


def make_plan(
    base: GenerationConfig, options: Mapping[str, Option], defaults: Mapping[str, Option]
) -> TransformersPlan:
    """Resolve `defaults` < the model's generation config < `options`.

    Raises:
        BadRequest: unknown, refused or impossible option.
    """
    config = copy.deepcopy(base)
    stated = config.to_diff_dict()
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name in chosen:
        if (
            name.startswith("_")
            or not hasattr(config, name)
            or callable(getattr(config, name))
            or name in REFUSED_OPTIONS
        ):
            raise BadRequest(f"generate_kwargs.{name}: not an option of this server", param=name)
    _check_ranges(chosen)
    chosen = {name: value for name, value in defaults.items() if name not in stated} | chosen
    if chosen.get("temperature") == 0:
        chosen |= {"do_sample": False, "temperature": None}
    if chosen.get("eos_token_id") == []:
        chosen["eos_token_id"] = None
    for name, value in chosen.items():
        setattr(config, name, value)
    beams = config.num_beams or 1
    if (config.num_return_sequences or 1) > 1 and not config.do_sample and beams < config.num_return_sequences:
        raise BadRequest("generate_kwargs.num_return_sequences above 1 needs do_sample or as many num_beams")
    different = {name for name, value in config.to_diff_dict().items() if NEUTRAL.get(name, object()) != value}
    alone = bool(different - BATCHED_OPTIONS)
    if alone:
        _check_with_library(config)
    end = config.eos_token_id
    return TransformersPlan(
        config=config,
        key=json.dumps(_sampling_values(config)),
        end_tokens=frozenset(end if isinstance(end, list) else [] if end is None else [end]),
        alone=alone,
        length=config.max_new_tokens,
        shortest=config.min_new_tokens or 0,
        shortest_with_prompt=config.min_length or 0,
        needs_history=(config.repetition_penalty or 1.0) != 1.0 or bool(config.no_repeat_ngram_size),
        greedy=not config.do_sample,
    )


_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 100), "top_k": (0, 2**31), "top_p": (0, 1), "min_p": (0, 1), "typical_p": (0, 1),
    "repetition_penalty": (1e-6, 1e6), "num_beams": (1, 64), "num_return_sequences": (1, 64),
    "min_length": (0, 2**31), "min_new_tokens": (0, 2**31), "no_repeat_ngram_size": (0, 2**31),
}  # fmt: skip
_WHOLE: Final = frozenset(
    {"top_k", "num_beams", "num_return_sequences", "min_length", "min_new_tokens", "no_repeat_ngram_size"}
)


def _check_ranges(options: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        value = options.get(name)
        if value is None:
            continue
        right_type = isinstance(value, int if name in _WHOLE else (int, float)) and not isinstance(value, bool)
        if not right_type or not low <= value <= high:
            kind = "a whole number" if name in _WHOLE else "a number"
            raise BadRequest(
                f"generate_kwargs.{name} must be {kind} from {low:g} to {high:g}, not {value!r}", param=name
            )
    if "do_sample" in options and not isinstance(options["do_sample"], bool):
        raise BadRequest(
            f"generate_kwargs.do_sample must be true or false, not {options['do_sample']!r}", param="do_sample"
        )
    end = options.get("eos_token_id", [])
    if not isinstance(end, int) and not (isinstance(end, list) and all(isinstance(token, int) for token in end)):
        raise BadRequest("generate_kwargs.eos_token_id must be a token id or a list of them", param="eos_token_id")


def _check_with_library(config: GenerationConfig) -> None:
    try:
        config.validate(strict=False)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise BadRequest(f"generate_kwargs: {error}") from error


def _sampling_values(config: GenerationConfig) -> list[object]:
    if not config.do_sample:
        return [False]
    return [True, config.temperature, config.top_k, config.top_p, config.min_p, config.typical_p]


@final
class Sampler:
    """Chooses tokens for rows of a batch."""

    def __init__(self) -> None:
        self._warpers: dict[str, LogitsProcessorList] = {}
        self._generators: dict[int, torch.Generator] = {}

    @torch.inference_mode()
    def choose(self, rows: Sequence[Row], logits: torch.Tensor) -> tuple[torch.Tensor, list[TokenLogprob | None]]:
        """The next token of every row (`[rows]`, on the device) and the log probabilities that were asked
        for."""
        plans = [_plan(row) for row in rows]
        _forbid_early_ends(rows, plans, logits)
        if all(plan.greedy and not plan.needs_history for plan in plans):
            chosen = logits.argmax(dim=-1)
        else:
            chosen = self._choose_by_group(rows, plans, logits)
        return chosen, _logprobs(rows, logits, chosen)

    def forget(self, rows: Sequence[Row]) -> None:
        """Drop what is kept for rows that ended."""
        for row in rows:
            self._generators.pop(id(row), None)

    def _choose_by_group(
        self, rows: Sequence[Row], plans: Sequence[TransformersPlan], logits: torch.Tensor
    ) -> torch.Tensor:
        chosen = torch.empty(len(rows), dtype=torch.long, device=logits.device)
        groups: dict[str, list[int]] = {}
        for index, (row, plan) in enumerate(zip(rows, plans, strict=True)):
            # Rows with a history or a seed of their own are groups of one.
            own = plan.needs_history or (row.seed is not None and not plan.greedy)
            groups.setdefault(f"{index}!" if own else plan.key, []).append(index)
        for members in groups.values():
            whole = len(members) == len(rows)
            scores = (logits if whole else logits[members]).float()
            row, plan = rows[members[0]], plans[members[0]]
            if plan.needs_history:
                scores = _with_history(row, plan, scores)
            if plan.greedy:
                tokens = scores.argmax(dim=-1)
            else:
                no_history = torch.empty((len(members), 0), dtype=torch.long, device=logits.device)
                scores = self._warper(plan)(no_history, scores)  # type: ignore[arg-type]  # transformers annotates LongTensor
                probabilities = torch.softmax(scores, dim=-1)
                tokens = torch.multinomial(probabilities, 1, generator=self._generator(row, logits.device)).squeeze(1)
            if whole:
                return tokens
            chosen[members] = tokens
        return chosen

    def _generator(self, row: Row, device: torch.device) -> torch.Generator | None:
        if row.seed is None:
            return None
        generator = self._generators.get(id(row))
        if generator is None:
            generator = self._generators[id(row)] = torch.Generator(device=device)
            generator.manual_seed(row.seed)
        return generator

    def _warper(self, plan: TransformersPlan) -> LogitsProcessorList:
        known = self._warpers.get(plan.key)
        if known is None:
            if len(self._warpers) > 1000:  # clients may send any number of different temperatures
                self._warpers.clear()
            known = self._warpers[plan.key] = _warpers(plan.config)
        return known


def _plan(row: Row) -> TransformersPlan:
    return cast("TransformersPlan", row.plan)  # made by make_plan, handed back by the scheduler


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    """In transformers' order (`GenerationMixin._get_logits_processor`)."""
    warpers = LogitsProcessorList()
    if config.temperature is not None and config.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p is not None and config.top_p < 1.0:
        warpers.append(TopPLogitsWarper(config.top_p))
    if config.min_p is not None:
        warpers.append(MinPLogitsWarper(config.min_p))
    if config.typical_p is not None and config.typical_p < 1.0:
        warpers.append(TypicalLogitsWarper(config.typical_p))
    return warpers


def _forbid_early_ends(rows: Sequence[Row], plans: Sequence[TransformersPlan], logits: torch.Tensor) -> None:
    """No end token before the shortest length; rows with the same end tokens in one operation."""
    forbidden: dict[frozenset[int], list[int]] = {}
    for index, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        produced = len(row.produced)
        if produced < plan.shortest or produced + len(row.prompt) < plan.shortest_with_prompt:
            forbidden.setdefault(plan.end_tokens, []).append(index)
    for ends, indexes in forbidden.items():
        if ends:
            logits[torch.tensor(indexes)[:, None], torch.tensor(list(ends))] = -torch.inf


def _with_history(row: Row, plan: TransformersPlan, scores: torch.Tensor) -> torch.Tensor:
    config = plan.config
    history: Any = torch.tensor([[*row.prompt, *row.produced]], device=scores.device)
    values: Any = scores
    if (config.repetition_penalty or 1.0) != 1.0:
        values = RepetitionPenaltyLogitsProcessor(penalty=config.repetition_penalty)(history, values)
    if config.no_repeat_ngram_size:
        values = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)(history, values)
    result: torch.Tensor = values
    return result


def _logprobs(rows: Sequence[Row], logits: torch.Tensor, chosen: torch.Tensor) -> list[TokenLogprob | None]:
    """Of the model's own distribution, before temperature and cuts, as OpenAI reports them."""
    found: list[TokenLogprob | None] = [None] * len(rows)
    for index, row in enumerate(rows):
        if row.logprobs is None:
            continue
        values = torch.log_softmax(logits[index].float(), dim=-1)
        token = int(chosen[index])
        top: tuple[tuple[int, float], ...] = ()
        if row.logprobs:
            best, tokens = values.topk(row.logprobs)
            top = tuple(zip(tokens.tolist(), best.tolist(), strict=True))
        found[index] = TokenLogprob(token, float(values[token]), top)
    return found
