"""Resolves the options of one request against the model's own generation config.

`make_plan` is called once per request by `model`. What an option means comes from transformers: its defaults, its
generation modes, and the logits processors that `GenerationMixin._get_logits_processor` builds from a config. An
option switches batching off only if it changes generation in a way that the batch cannot reproduce; bookkeeping keys,
unknown keys, and options of memory layout and speed never do.
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
from kaito_presets.inference.backend.option_checks import CHECKS, checked_option, valid_own_value
from kaito_presets.inference.language_model import Option

log = logging.getLogger(__name__)

EXTENSIONS: Final = ("stop_token_ids", "frequency_penalty", "presence_penalty", "logit_bias")
"""Options of OpenAI's API and vLLM that transformers does not have."""

NO_EFFECT: Final[Mapping[str, object]] = {
    # What `generate` returns besides the tokens.
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
"""Options that do not change the text, and the value that `generate` gets for them."""

MOVED_TO_THE_HUB: Final = (
    "penalty_alpha", "dola_layers", "diversity_penalty", "num_beam_groups", "constraints", "force_words_ids",
)  # fmt: skip
"""Options whose implementation transformers 5 downloads as Python code; they are not available here."""

ALONE_ONLY: Final = ("max_time", "token_healing", "watermarking_config")
"""Options of a model's own file that only `generate` implements; a request may not set them."""

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
"""Processors that look at nothing but the scores: rows with equal values share one call."""

_MINIMUM_LENGTH: Final = (
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
)
"""Done by the sampler for all rows at once."""

_WARPER_OPTIONS: Final = (
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip


class _AnyDecoder(GenerationMixin):
    """What `_get_logits_processor` needs of a model."""

    config: Any = SimpleNamespace(is_encoder_decoder=False)


_DECODER: Final[Any] = _AnyDecoder()


@final
@dataclass(frozen=True, slots=True)
class TransformersPlan:
    """Resolved options of one request; implements the scheduler's `SamplingPlan`."""

    config: GenerationConfig
    key: str
    """Rows with equal keys are sampled in one operation."""
    end_tokens: frozenset[int]
    alone_because: tuple[str, ...]
    """Options that the batch cannot reproduce; empty: the row shares the batch."""
    length: int | None
    shortest: int
    """New tokens before an end token is allowed."""
    shortest_with_prompt: int
    """The same, counting the prompt."""
    needs_history: bool
    """Whether the choice depends on the row's own tokens or position."""
    greedy: bool
    sequences: int = 1
    """Rows to make of the request, if it shares the batch."""
    width: int = 1
    """Sequences that the row computes side by side."""
    stop_strings: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether the row runs outside the batch."""
        return bool(self.alone_because)


def own_config(config: GenerationConfig | None, *, end: object, pad: object, vocabulary: int) -> GenerationConfig:
    """The model's own generation config as far as it can be used, completed from the tokenizer.

    Values that no request could have are left out with a warning, because they would fail every request.
    """
    result = copy.deepcopy(config) if config is not None else GenerationConfig()
    for name in CHECKS:
        value, problem = valid_own_value(name, getattr(result, name, None), vocabulary)
        if problem:
            log.warning("the model's generation config: %s", problem)
        if hasattr(result, name):
            setattr(result, name, value)
    # Also where the file names only ids that the model does not have: without an end token every answer runs to its
    # bound.
    if result.eos_token_id in (None, []):
        result.eos_token_id = valid_own_value("eos_token_id", end, vocabulary)[0]
    if result.pad_token_id is None:
        result.pad_token_id = valid_own_value("pad_token_id", pad, vocabulary)[0]
    absent = [name for name in MOVED_TO_THE_HUB if getattr(result, name, None) not in (None, 0, 1)]
    if absent:
        log.warning("the model's generation config: %s need code from the hub and are ignored", ", ".join(absent))
    # The request decides how many answers there are.
    result.num_return_sequences = None
    try:
        make_plan(result, {}, {}, vocabulary)
    except BadRequest as error:
        log.warning("the model's generation config cannot be used, only its basic options are: %s", error)
        basic = {name: getattr(result, name) for name in _BASIC}
        return GenerationConfig(**basic)
    return result


_BASIC: Final = ("eos_token_id", "pad_token_id", "bos_token_id", "do_sample", "temperature", "top_k", "top_p")


def make_plan(
    base: GenerationConfig, options: Mapping[str, Option], defaults: Mapping[str, Option], vocabulary: int = 0
) -> TransformersPlan:
    """Resolve `defaults` < the model's generation config < `options`.

    Raises:
        BadRequest: unknown, refused or impossible option.
    """
    config = copy.copy(base)  # its values are replaced, never changed
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
    """Options of a request that ask for something, validated."""
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
            raise BadRequest(f"generate_kwargs.{name[:80]}: not an option of this server", param=name[:80])
    return chosen


_SWITCHES: Final = frozenset({"low_memory", "token_healing", *NO_EFFECT}) - {"use_cache"}
"""Options that ask for nothing at False."""


def _plan_of(config: GenerationConfig, extensions: Mapping[str, Any]) -> TransformersPlan:
    beams = config.num_beams or 1
    sequences = config.num_return_sequences or 1
    if sequences > 1 and not config.do_sample and beams < sequences:
        raise BadRequest(
            "num_return_sequences above 1 needs do_sample or as many num_beams", param="num_return_sequences"
        )
    own_end = config.eos_token_id
    end = [*(own_end if isinstance(own_end, list) else [] if own_end is None else [own_end])]
    end += extensions["stop_token_ids"] or []
    config.eos_token_id = end or None
    processors = _trial(config)
    reasons = _reasons(config, processors)
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
        alone_because=reasons,
        length=config.max_new_tokens,
        shortest=config.min_new_tokens or 0,
        shortest_with_prompt=config.min_length or 0,
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


def _trial(config: GenerationConfig) -> LogitsProcessorList:
    """The processors of a config, built as for a prompt of one token: proves that they can be built."""
    try:
        # Named as the request's own, the modes do not make validation warn about options that they leave unused.
        config.validate(strict=False, user_set_attributes={"do_sample", "num_beams"})
        return build_processors(config, torch.zeros((1, 1), dtype=torch.long), max_new_tokens=1)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise BadRequest(f"generate_kwargs: {error}") from error


def build_processors(config: GenerationConfig, prompt: torch.Tensor, max_new_tokens: int) -> LogitsProcessorList:
    """What transformers itself does to the scores for this config and prompt (`[1, tokens]`), in its order."""
    length = prompt.shape[1]
    prepared = copy.copy(config)
    prepared.max_length = length + max_new_tokens
    prepared.watermarking_config = None  # rows with one run alone
    end = config.eos_token_id
    prepared._eos_token_tensor = None if end is None else torch.tensor(end, device=prompt.device)
    processors: LogitsProcessorList = _DECODER._get_logits_processor(
        prepared,
        input_ids_seq_length=length,
        encoder_input_ids=prompt,
        device=prompt.device,
    )
    return processors


def _reasons(config: GenerationConfig, processors: LogitsProcessorList) -> tuple[str, ...]:
    """Options that only `generate` can carry out."""
    found = [name for name in ALONE_ONLY if getattr(config, name, None)]
    if config.get_generation_mode() not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        found.append("num_beams")
    if any(isinstance(item, logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor) for item in processors):
        found.append("guidance_scale")
    return tuple(found)


def without_minimum_length(processors: LogitsProcessorList) -> LogitsProcessorList:
    """All but those that the sampler applies to the whole batch."""
    return LogitsProcessorList([item for item in processors if not isinstance(item, _MINIMUM_LENGTH)])


def stateless(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Those that look at nothing but the scores."""
    return LogitsProcessorList([item for item in processors if isinstance(item, _STATELESS)])
