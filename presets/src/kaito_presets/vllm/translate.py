"""Translates `/chat` requests to OpenAI requests, and the responses back.

Used by `proxy`, which does the I/O: it sends the requests and counts prompt tokens with the engine.
Every key of `generate_kwargs` is translated or refused; none is ignored.
"""

from collections.abc import Mapping
from typing import Any, Final

from kaito_presets.errors import BadRequest, GenerationFailed
from kaito_presets.serving.chat import DEFAULT_NEW_TOKENS, DEFAULT_TOP_K, ChatRequest, ChatResponse

RENAMED: Final = {
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
"""Options of transformers without a counterpart in vLLM, each with its neutral value."""
HANDLED_APART: Final = frozenset({"do_sample", "eos_token_id", "pad_token_id"})
"""Options that `sampling_fields` translates by a rule of their own, or that have no effect (`pad_token_id`)."""

# The replacements of transformers' clean_up_tokenization.
_SPACES: Final = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def sampling_fields(options: Mapping[str, Any], *, max_new_tokens: int | None) -> dict[str, Any]:
    """Translates `generate_kwargs` to OpenAI fields, with vLLM's extensions.

    Args:
        options: the options of the request without the length options.
        max_new_tokens: most new tokens of the answer; None for the default.

    Raises:
        BadRequest: an option has no counterpart in vLLM.
    """
    fields: dict[str, Any] = {"max_tokens": max_new_tokens or DEFAULT_NEW_TOKENS, "top_k": DEFAULT_TOP_K}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in RENAMED:
            fields[RENAMED[name]] = value
        elif name in NEUTRAL:
            if value != NEUTRAL[name]:
                raise BadRequest(f"generate_kwargs.{name}={value!r} has no counterpart in the vLLM runtime", param=name)
        elif name not in HANDLED_APART:
            raise BadRequest(f"generate_kwargs.{name} is not an option of this server", param=name)
    if given.get("do_sample") is False:
        fields["temperature"] = 0
        fields.pop("top_k")
    if "eos_token_id" in given:
        ends = given["eos_token_id"]
        fields["stop_token_ids"] = ends if isinstance(ends, list) else [ends]
    return fields


def chat_response(request: ChatRequest, document: Mapping[str, Any], *, head: str) -> ChatResponse:
    """Translates the engine's response; `head` is the text in front of each answer to a prompt.

    Raises:
        GenerationFailed: the response does not have the shape of OpenAI's API.
    """
    try:
        choices = document["choices"]
        contents = [choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices]
        texts = [str(content or "") for content in contents]
    except (KeyError, TypeError) as error:
        raise GenerationFailed("the engine's response has no choices") from error
    if not texts:
        raise GenerationFailed("the engine's response has no choices")
    if request.clean_up_tokenization_spaces:
        texts = [clean_up_spaces(text) for text in texts]
    if request.messages:
        return ChatResponse(Result=texts[0])
    return ChatResponse.of_prompt(texts, head=head)


def clean_up_spaces(text: str) -> str:
    """Removes the spaces that transformers' `clean_up_tokenization` removes."""
    for spaced, clean in _SPACES:
        text = text.replace(spaced, clean)
    return text
