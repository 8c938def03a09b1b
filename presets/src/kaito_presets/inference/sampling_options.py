"""Converts the sampling fields of OpenAI's requests to options of the model.

Used by `chat_completions` and `text_completions`. The names of the options are those of transformers' generation
config, and of OpenAI's API where transformers has no counterpart.
"""

from collections.abc import Mapping
from typing import Final

from kaito_presets.inference.language_model import Option
from kaito_presets.inference.openai_schema import SamplingRequest

DEFAULT_OPTIONS: Final[Mapping[str, Option]] = {"do_sample": True, "top_k": 0}
"""OpenAI's API samples from the whole distribution. The model's generation config takes precedence, as in vLLM."""

_SAME_NAME: Final = ("typical_p", "frequency_penalty", "presence_penalty", "logit_bias", "stop_token_ids")


def sampling_options(body: SamplingRequest) -> dict[str, Option]:
    """Converts the sampling fields of a request."""
    options: dict[str, Option] = {}
    if body.temperature is not None:
        options |= {"do_sample": body.temperature != 0, "temperature": body.temperature}
    if body.top_p is not None:
        options["top_p"] = body.top_p
    if body.top_k is not None:
        options["top_k"] = max(0, body.top_k)
    if body.min_p is not None:
        options["min_p"] = body.min_p
    if body.repetition_penalty is not None:
        options["repetition_penalty"] = body.repetition_penalty
    if body.min_tokens:
        options["min_new_tokens"] = body.min_tokens
    if body.ignore_eos:
        options["eos_token_id"] = []
    for name in _SAME_NAME:
        if value := getattr(body, name):
            options[name] = value
    if body.use_beam_search:
        beams = body.n or 1
        options |= {"do_sample": False, "num_beams": max(2, beams), "num_return_sequences": beams}
        options["length_penalty"] = 1.0 if body.length_penalty is None else body.length_penalty
    return options


def row_count(body: SamplingRequest) -> int:
    """Returns the number of rows per prompt; all beams belong to one row."""
    return 1 if body.use_beam_search else body.n or 1
