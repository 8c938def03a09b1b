"""Types and rules of request fields that several request models share.

Used by `openai_schema`. A field that a model does not declare belongs to one of three groups:

* `NEUTRAL_VALUES`: known fields. Those that cannot change the text are accepted. The others are accepted at their
  neutral values (null, an empty value, a documented default) and rejected by name otherwise, because the client would
  receive another text than it requested.
* Unknown fields are accepted and ignored, as in vLLM, so that a client or proxy with a field of its own can be used.
  `ignored_fields` returns their names, for the header `X-Kaito-Ignored-Fields` of the response and for a metric.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from kaito_presets.json_values import abbreviate, is_list, is_object


def field_error(field: str, message: str) -> PydanticCustomError:
    """Builds the error of a field that a validator of the whole body rejects; the response names it in `param`."""
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic reports a ValueError
    return value


Integer = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_not_a_boolean)]
"""pydantic's own `int` and `float` accept true as 1."""

# A list in a body may contain a million items. Validation stops at the first wrong item (`fail_fast`): an error for
# each would take seconds of the event loop and megabytes of the response.
StopTokens = Annotated[list[Integer], Field(max_length=1024, fail_fast=True)]
Strings = Annotated[list[str], Field(fail_fast=True)]

MAX_BIASES: Final = 1024
"""Most tokens with a bias in one request."""


def _few_biases(value: object) -> object:
    if is_object(value) and len(value) > MAX_BIASES:
        raise ValueError(f"at most {MAX_BIASES} tokens can have a bias, not {len(value)}")
    return value


Biases = Annotated[dict[str, Number], BeforeValidator(_few_biases)]

PROMPT_SHAPES: Final = "must be text, a list of texts, a list of token ids, or a list of such lists"


def parse_prompts(value: object) -> list[str | list[int]]:
    """Parses the prompts of a request: texts and lists of token ids.

    Raises:
        ValueError: the value has another shape.

    pydantic would try a union of the four shapes one after the other and report the errors of each.
    """
    if isinstance(value, str):
        return [value]
    if not is_list(value):
        raise ValueError(f"{PROMPT_SHAPES}, not {abbreviate(value)}")
    if value and _number_of(value[0]) is not None:
        return [_token_ids(value, "")]
    return [item if isinstance(item, str) else _token_ids(item, f"[{index}]") for index, item in enumerate(value)]


def _token_ids(value: object, where: str) -> list[int]:
    if not is_list(value):
        raise ValueError(f"{PROMPT_SHAPES}; prompt{where} is {abbreviate(value)}")
    result: list[int] = []
    for index, item in enumerate(value):
        token = _number_of(item)
        if token is None:
            raise ValueError(f"{PROMPT_SHAPES}; prompt{where}[{index}] is {abbreviate(item)}")
        result.append(token)
    return result


def _number_of(value: object) -> int | None:
    """Returns an integer, or None for another value; in JSON, 1.0 is an integer too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


MAX_LENGTH: Final = 2**31 - 1
SEED_LIMIT: Final = 2**63
"""Seeds are signed 64-bit numbers, as in vLLM and torch."""

ANY: Final = object()
"""Marks a field that is accepted at every value, because it cannot change the text."""

NEUTRAL_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    # OpenAI: billing, storage, caching, speed, and options of models that this server does not have.
    "user": (ANY,), "metadata": (ANY,), "store": (ANY,), "service_tier": (ANY,), "safety_identifier": (ANY,),
    "prompt_cache_key": (ANY,), "prompt_cache_retention": (ANY,), "prediction": (ANY,), "verbosity": (ANY,),
    "include_obfuscation": (ANY,), "moderation": (ANY,),
    # OpenAI: features.
    "modalities": (["text"],), "audio": (), "web_search_options": (), "functions": (),
    "function_call": ("none", "auto"), "suffix": (),
    # vLLM.
    "priority": (ANY,), "cache_salt": (ANY,), "request_id": (ANY,), "kv_transfer_params": (ANY,), "vllm_xargs": (),
    "early_stopping": (False,), "spaces_between_special_tokens": (True,), "detokenize": (True,),
    "include_reasoning": (True,), "documents": (), "chat_template": (), "mm_processor_kwargs": (),
    "logits_processors": (), "bad_words": (), "allowed_token_ids": (), "thinking_token_budget": (),
    "structural_tag": (), "guided_decoding_backend": (ANY,), "guided_whitespace_pattern": (),
    "prompt_embeds": (), "output_kind": (ANY,),
    "best_of": (1,), "repetition_detection": (),
    # Other servers and their clients (llama.cpp, text-generation-webui, Ollama, KoboldCpp).
    "add_bos_token": (True,), "ban_eos_token": (False,), "cache_prompt": (ANY,), "keep_alive": (ANY,),
    "repeat_penalty": (1,), "rep_pen": (1,), "tfs": (1,), "tfs_z": (1,), "top_a": (0,), "mirostat": (0,),
    "mirostat_mode": (0,), "penalty_alpha": (0,), "num_beams": (1,), "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "guidance_scale": (1,),
    "dry_multiplier": (0,), "xtc_probability": (0,), "smoothing_factor": (0,), "dynamic_temperature": (False,),
    "dynatemp_range": (0,), "min_length": (0,), "temperature_last": (False,), "options": (), "raw": (False,),
    "system": (), "template": (), "images": (), "format": (), "grammar": (), "json_schema": (), "samplers": (),
    "n_predict": (), "num_predict": (), "max_new_tokens": (), "max_length": (), "do_sample": (), "typical": (1,),
    "stop_sequences": (), "stopping_strings": (), "negative_prompt": (), "ignore_eos_token": (False,),
}  # fmt: skip
"""Known fields that the models do not declare, each with the values that are accepted besides null and empty ones."""

UNSUPPORTED_FIELDS: Final[Mapping[str, str]] = {
    "functions": "functions are not supported; use tools",
    "function_call": "function_call is not supported; use tool_choice",
    "repeat_penalty": "repeat_penalty is not supported; use repetition_penalty",
    "rep_pen": "rep_pen is not supported; use repetition_penalty",
    "n_predict": "n_predict is not supported; use max_tokens",
    "num_predict": "num_predict is not supported; use max_tokens",
    "max_new_tokens": "max_new_tokens is not supported here; use max_tokens",
    "format": "format is not supported; use response_format",
    "json_schema": "json_schema is not supported here; use response_format or structured_outputs.json",
    "grammar": "grammar is not supported here; use structured_outputs.grammar",
    "stop_sequences": "stop_sequences is not supported; use stop",
    "options": "options is not supported; use the fields of OpenAI's API, such as temperature",
    "chat_template": "chat_template cannot be set by a request; set the flag --chat_template of the server",
    "do_sample": "do_sample is not supported here; use temperature, 0 of which is greedy",
}
"""Messages for unsupported fields that clients use often."""


def is_empty(value: object) -> bool:
    """Returns whether a value requests nothing: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _is_neutral(name: str, value: object) -> bool:
    if is_empty(value):
        return True
    return any(
        accepted is ANY or (accepted == value and isinstance(accepted, bool) == isinstance(value, bool))
        for accepted in NEUTRAL_VALUES[name]
    )


def reject_text_changing_fields(body: BaseModel) -> None:
    """Rejects known fields of `model_extra` at values that would change the text."""
    for name, value in (body.model_extra or {}).items():
        if name in NEUTRAL_VALUES and not _is_neutral(name, value):
            accepted = [repr(one) for one in NEUTRAL_VALUES[name]]
            unsupported = f"{name} is not supported by this server (accepted: {', '.join(['null', *accepted])})"
            raise field_error(name, UNSUPPORTED_FIELDS.get(name, unsupported))


def ignored_fields(body: BaseModel, prefix: str = "") -> Iterable[str]:
    """Yields the names of the unknown fields of `model_extra` that request something and are ignored."""
    for name, value in (body.model_extra or {}).items():
        if name not in NEUTRAL_VALUES and not is_empty(value):
            yield prefix + name
