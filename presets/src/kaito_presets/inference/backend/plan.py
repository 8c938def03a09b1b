"""Resolves the generation options of a request against the model's generation config.

`model` calls `make_plan` once per request. Options have their meaning in transformers: its defaults, its generation
modes, and the logits processors that `GenerationMixin._get_logits_processor` builds from a config. A request runs
outside the batch only if an option changes the text in a way that the batch cannot reproduce. Bookkeeping keys, unknown
keys of a model's file, and options of memory layout and speed never have this effect.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportPrivateUsage=false

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, final

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.generation import logits_process
from transformers.generation.configuration_utils import GenerationMode

from kaito_presets.errors import BadRequest
from kaito_presets.inference.backend.option_checks import CHECKS, checked_option, usable_value
from kaito_presets.inference.language_model import Option

log = logging.getLogger(__name__)

EXTENSIONS: Final = ("stop_token_ids", "frequency_penalty", "presence_penalty", "logit_bias")
"""Options of OpenAI's API and vLLM without a counterpart in transformers."""

NO_EFFECT: Final[Mapping[str, object]] = {
    # Further results of `generate`.
    "output_attentions": None, "output_hidden_states": None, "output_scores": None, "output_logits": None,
    "return_dict_in_generate": None,
    # Memory layout and speed. The batch has its own cache.
    "use_cache": True, "cache_implementation": None, "cache_config": None, "max_cache_len": None,
    "compile_config": None, "disable_compile": None, "continuous_batching_config": None, "prefill_chunk_size": None,
    "low_memory": None,
    # Speculative decoding: the same tokens (greedy) or the same distribution (sampling), faster.
    "prompt_lookup_num_tokens": None, "max_matching_ngram_size": None, "num_assistant_tokens": None,
    "num_assistant_tokens_schedule": None, "assistant_confidence_threshold": None, "assistant_early_exit": None,
    "assistant_lookbehind": None, "target_lookbehind": None, "assistant_ensemble_weight": None, "is_assistant": None,
    "use_mtp": None, "speculation_type": None,
}  # fmt: skip
"""Options that do not change the text, each with the value that `generate` receives instead of the requested one."""

MOVED_TO_THE_HUB: Final = (
    "penalty_alpha", "dola_layers", "diversity_penalty", "num_beam_groups", "constraints", "force_words_ids",
)  # fmt: skip
"""Options whose implementation transformers 5 downloads as Python code; this server does not support them."""

UNBATCHED_ONLY: Final = ("max_time", "token_healing", "watermarking_config")
"""Options of a model's generation config that only `generate` implements; a request must not set them."""

_STATELESS: Final = (
    logits_process.TemperatureLogitsWarper,
    logits_process.TopHLogitsWarper,
    logits_process.TopKLogitsWarper,
    logits_process.TopPLogitsWarper,
    logits_process.MinPLogitsWarper,
    logits_process.TypicalLogitsWarper,
    logits_process.EpsilonLogitsWarper,
    logits_process.EtaLogitsWarper,
)
"""Processors that depend on the scores only, so that rows with equal options share one call."""

_MINIMUM_LENGTH: Final = (
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
)
"""Processors that the sampler replaces by one operation for all rows."""

_WARPER_OPTIONS: Final = (
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip


class _AnyDecoder(GenerationMixin):
    """Provides the attributes of a model that `_get_logits_processor` reads."""

    config: Any = SimpleNamespace(is_encoder_decoder=False)


_DECODER: Final[Any] = _AnyDecoder()


@final
@dataclass(frozen=True, slots=True)
class TransformersPlan:
    """Resolved options of one request; implements `language_model.SamplingPlan`."""

    config: GenerationConfig
    key: str
    """Rows with equal keys are sampled in one operation."""
    end_tokens: frozenset[int]
    unbatched_reasons: tuple[str, ...]
    """Options that the batch cannot reproduce; empty if the row is batched."""
    length: int | None
    """`max_new_tokens`."""
    min_new_tokens: int
    """New tokens before which end tokens are excluded."""
    min_length: int
    """Tokens of prompt and completion before which end tokens are excluded."""
    needs_history: bool
    """Whether sampling depends on the tokens or the position of the row."""
    greedy: bool
    sequences: int = 1
    """Rows of the request if it is batched, else 1."""
    width: int = 1
    """Sequences that the row computes at the same time."""
    stop_strings: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    @property
    def is_unbatched(self) -> bool:
        """Whether the row runs outside the batch."""
        return bool(self.unbatched_reasons)


def usable_config(config: GenerationConfig | None, *, end: object, pad: object, vocabulary: int) -> GenerationConfig:
    """Returns the usable part of the model's generation config, completed with tokens of the tokenizer.

    Values that would be rejected in a request are dropped with a warning, because they would fail every request.
    """
    result = copy.deepcopy(config) if config is not None else GenerationConfig()
    for name in CHECKS:
        value, problem = usable_value(name, getattr(result, name, None), vocabulary)
        if problem:
            log.warning("the model's generation config: %s", problem)
        if hasattr(result, name):
            setattr(result, name, value)
    # This includes files whose ids are all outside the vocabulary: without an end token, every completion would have
    # the maximum length.
    if result.eos_token_id in (None, []):
        result.eos_token_id = usable_value("eos_token_id", end, vocabulary)[0]
    if result.pad_token_id is None:
        result.pad_token_id = usable_value("pad_token_id", pad, vocabulary)[0]
    absent = [name for name in MOVED_TO_THE_HUB if getattr(result, name, None) not in (None, 0, 1)]
    if absent:
        log.warning("the model's generation config: %s need code from the hub; ignored", ", ".join(absent))
    # The request determines the number of completions.
    result.num_return_sequences = None
    try:
        make_plan(result, {}, {}, vocabulary)
    except BadRequest as error:
        log.warning("the model's generation config cannot be used; using its basic options only: %s", error)
        basic = {name: getattr(result, name) for name in _BASIC}
        return GenerationConfig(**basic)
    return result


_BASIC: Final = ("eos_token_id", "pad_token_id", "bos_token_id", "do_sample", "temperature", "top_k", "top_p")


def make_plan(
    base: GenerationConfig, options: Mapping[str, Option], defaults: Mapping[str, Option], vocabulary: int = 0
) -> TransformersPlan:
    """Resolves options; precedence: `defaults` < generation config of the model < `options`.

    Raises:
        BadRequest: an option is unknown, not supported, or has a wrong value.
    """
    config = copy.copy(base)  # a shallow copy, because values are replaced and never mutated
    stated = {name for name, value in vars(config).items() if value is not None}
    chosen = _checked(options, vocabulary)
    chosen = {name: value for name, value in defaults.items() if name not in stated} | chosen
    extensions = {name: chosen.pop(name, None) for name in EXTENSIONS}
    for name, value in chosen.items():
        setattr(config, name, value)
    if config.temperature == 0:
        config.do_sample, config.temperature = False, None
    for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"):
        if getattr(config, name) == []:
            setattr(config, name, None)
    for name, value in NO_EFFECT.items():
        setattr(config, name, value)
    for name in MOVED_TO_THE_HUB:
        setattr(config, name, None)
    return _plan_of(config, extensions)


def _checked(options: Mapping[str, Option], vocabulary: int) -> dict[str, Any]:
    """Validates the options of a request; drops those with a neutral value."""
    chosen: dict[str, Any] = {}
    neutral = GenerationConfig._get_default_generation_params()
    for name, value in options.items():
        if value is None:
            continue
        if name in CHECKS:
            chosen[name] = checked_option(name, value, vocabulary)
        elif (name in neutral and value == neutral[name]) or (name in _SWITCHES and value is False):
            continue
        else:
            raise BadRequest(f"generate_kwargs.{name[:80]} is not an option of this server", param=name[:80])
    return chosen


_SWITCHES: Final = frozenset({"low_memory", "token_healing", *NO_EFFECT}) - {"use_cache"}
"""Options that are neutral at False."""


def _plan_of(config: GenerationConfig, extensions: Mapping[str, Any]) -> TransformersPlan:
    beams = config.num_beams or 1
    sequences = config.num_return_sequences or 1
    if sequences > 1 and not config.do_sample and beams < sequences:
        raise BadRequest(
            "num_return_sequences above 1 needs do_sample or as many num_beams", param="num_return_sequences"
        )
    configured = config.eos_token_id
    end = [*(configured if isinstance(configured, list) else [] if configured is None else [configured])]
    end += extensions["stop_token_ids"] or []
    config.eos_token_id = end or None
    processors = _build_trial_processors(config)
    reasons = _unbatched_reasons(config, processors)
    bias = {int(token): float(value) for token, value in (extensions["logit_bias"] or {}).items() if value}
    frequency, presence = extensions["frequency_penalty"] or 0.0, extensions["presence_penalty"] or 0.0
    if reasons and (bias or frequency or presence):
        raise BadRequest(f"frequency_penalty, presence_penalty and logit_bias cannot be combined with {reasons[0]}")
    stops = config.stop_strings
    config.stop_strings = None
    guided = config.guidance_scale not in (None, 1)
    return TransformersPlan(
        config=config,
        key=json.dumps([getattr(config, name) for name in _WARPER_OPTIONS] if config.do_sample else None),
        end_tokens=frozenset(end),
        unbatched_reasons=reasons,
        length=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens or 0,
        min_length=config.min_length or 0,
        needs_history=bool(bias or frequency or presence)
        or any(not isinstance(processor, (*_STATELESS, *_MINIMUM_LENGTH)) for processor in processors),
        greedy=not config.do_sample,
        sequences=1 if reasons else sequences,
        width=max(beams, sequences) * (2 if guided else 1) if reasons else 1,
        stop_strings=() if not stops else (stops,) if isinstance(stops, str) else tuple(stops),
        logit_bias=bias,
        frequency_penalty=frequency,
        presence_penalty=presence,
    )


def _build_trial_processors(config: GenerationConfig) -> LogitsProcessorList:
    """Builds the processors for a prompt of one token, so that options that cannot be built are rejected early."""
    try:
        # Marked as set by the user, the modes do not cause warnings about options that they do not use.
        config.validate(strict=False, user_set_attributes={"do_sample", "num_beams"})
        return build_processors(config, torch.zeros((1, 1), dtype=torch.long), max_new_tokens=1)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise BadRequest(f"generate_kwargs: {error}") from error


def build_processors(config: GenerationConfig, prompt: torch.Tensor, max_new_tokens: int) -> LogitsProcessorList:
    """Builds the processors that `generate` would apply for this config and prompt (`[1, tokens]`), in its order."""
    length = prompt.shape[1]
    prepared = copy.copy(config)
    prepared.max_length = length + max_new_tokens
    prepared.watermarking_config = None  # rows with a watermark run outside the batch
    end = config.eos_token_id
    prepared._eos_token_tensor = None if end is None else torch.tensor(end, device=prompt.device)
    processors: LogitsProcessorList = _DECODER._get_logits_processor(
        prepared,
        input_ids_seq_length=length,
        encoder_input_ids=prompt,
        device=prompt.device,
    )
    return processors


def _unbatched_reasons(config: GenerationConfig, processors: LogitsProcessorList) -> tuple[str, ...]:
    """Returns the options that only `generate` implements."""
    found = [name for name in UNBATCHED_ONLY if getattr(config, name, None)]
    if config.get_generation_mode() not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        found.append("num_beams")
    if any(isinstance(item, logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor) for item in processors):
        found.append("guidance_scale")
    return tuple(found)


def without_minimum_length(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Removes the processors that the sampler replaces by an operation for all rows."""
    return LogitsProcessorList([item for item in processors if not isinstance(item, _MINIMUM_LENGTH)])


def stateless(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Selects the processors that depend on the scores only."""
    return LogitsProcessorList([item for item in processors if isinstance(item, _STATELESS)])
