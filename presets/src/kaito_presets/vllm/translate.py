"""Translates `/chat` into OpenAI requests and the answers back.

Used by `proxy`. Pure: the few questions that only the engine can answer (how many tokens is this prompt?)
are asked by the caller. Every key of `generate_kwargs` is translated or refused; none is dropped.
"""

from collections.abc import Mapping
from typing import Any, Final

from kaito_presets.errors import BadRequest, GenerationFailed
from kaito_presets.inference.chat import DEFAULT_NEW_TOKENS, ChatRequest

RENAMED: Final = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "length_penalty": "length_penalty",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logit_bias": "logit_bias",
    "stop_token_ids": "stop_token_ids",
}
NEUTRAL: Final[Mapping[str, object]] = {
    "num_beams": 1,
    "early_stopping": False,
    "typical_p": 1,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "use_cache": True,
}
"""transformers options without a counterpart in vLLM, at the value that changes nothing."""
TRANSLATED_ELSEWHERE: Final = frozenset({"do_sample", "max_length", "eos_token_id", "pad_token_id"})
DEFAULT_TOP_K: Final = 10
"""Upstream's default of `/chat`."""

# What transformers' clean_up_tokenization removes.
_SPACES: Final = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def needs_token_count(request: ChatRequest) -> bool:
    """Whether the prompt's length in tokens must be known before it can be translated."""
    options = request.generate_kwargs or {}
    return request.handle_long_generation == "hole" or ("max_length" in options and "max_new_tokens" not in options)


def sampling(request: ChatRequest, prompt_tokens: int | None) -> dict[str, Any]:
    """OpenAI fields (with vLLM's extensions) for the request's options.

    Raises:
        BadRequest: an option without a counterpart.
    """
    options: dict[str, Any] = {
        name: value for name, value in (request.generate_kwargs or {}).items() if value is not None
    }
    fields: dict[str, Any] = {"max_tokens": DEFAULT_NEW_TOKENS, "top_k": DEFAULT_TOP_K}
    for name, value in options.items():
        if name in RENAMED:
            fields[RENAMED[name]] = value
        elif name in NEUTRAL:
            if value != NEUTRAL[name]:
                raise BadRequest(f"generate_kwargs.{name}={value!r} has no counterpart in the vLLM runtime", param=name)
        elif name not in TRANSLATED_ELSEWHERE:
            raise BadRequest(f"generate_kwargs.{name}: not an option of this server", param=name)
    if options.get("do_sample") is False:
        fields["temperature"] = 0
        fields.pop("top_k")
    if "max_length" in options and "max_new_tokens" not in options and prompt_tokens is not None:
        fields["max_tokens"] = _room(options["max_length"], prompt_tokens)
    if "eos_token_id" in options:
        ends = options["eos_token_id"]
        fields["stop_token_ids"] = ends if isinstance(ends, list) else [ends]
    return fields


def _room(max_length: object, prompt_tokens: int) -> int:
    if not isinstance(max_length, int) or isinstance(max_length, bool) or max_length < 1:
        raise BadRequest(f"generate_kwargs.max_length must be a positive whole number, not {max_length!r}")
    if max_length <= prompt_tokens:
        raise BadRequest(
            f"generate_kwargs.max_length is {max_length} and counts the prompt, which has {prompt_tokens} tokens; "
            "use max_new_tokens to bound the answer alone"
        )
    return max_length - prompt_tokens


def result_text(request: ChatRequest, document: Mapping[str, Any], head: str) -> str:
    """The text of an OpenAI answer in `/chat`'s terms.

    Raises:
        GenerationFailed: the engine's answer is not what OpenAI's API says it is.
    """
    try:
        choices = document["choices"]
        texts = [choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices]
    except (KeyError, TypeError) as error:
        raise GenerationFailed("the engine's answer has no choices") from error
    if request.clean_up_tokenization_spaces:
        texts = [clean_up_spaces(text or "") for text in texts]
    if request.prompt and not request.messages:
        return "".join(head + (text or "") for text in texts)
    return str(texts[0] or "")


def clean_up_spaces(text: str) -> str:
    """The same as transformers' clean_up_tokenization."""
    for spaced, clean in _SPACES:
        text = text.replace(spaced, clean)
    return text
