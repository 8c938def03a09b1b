"""Validates generation options by type and range before they are used in tensor operations.

`plan` calls it for the options of a request and for the model's generation config. Every supported option has one
check, and its message contains the accepted values. The ranges are those of transformers' logits processors
(`transformers.generation.logits_process`) and of float32. A value outside them would raise in the middle of a step, or,
on a GPU, make the process unusable.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kaito_presets.errors import BadRequest
from kaito_presets.json_values import abbreviate, is_list, is_object

Check = Callable[[object, int], str | None]
"""Checks a value, given the size of the vocabulary (0 if unknown); returns the accepted values, or None if it is
valid."""

MIN_TEMPERATURE: Final = 1e-20
"""Logits are divided by the temperature in float32, whose largest value is 3e38: logits up to 1e18 do not overflow."""
MAX_NGRAM_TOKENS: Final = 64
"""Time and memory of finding repeated n-grams are proportional to n times the length of the text."""
MAX_BIASES: Final = 1024
"""Most words or sequences with a bias: each costs a comparison per generated token."""
MAX_WORD_TOKENS: Final = 256
"""Most tokens of one word or sequence."""
MAX_INTEGER: Final = 2**31 - 1


def _number(low: float, high: float, *, above: bool = False, below: bool = False) -> Check:
    """Builds a check for finite numbers in [low, high]; `above` and `below` exclude the bounds."""
    bounds = f"{'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:g}"

    def check(value: object, _: int) -> str | None:
        right = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and (low < value if above else low <= value)
            and (value < high if below else value <= high)
        )
        return None if right else f"must be a number {bounds}"

    return check


def _integer(low: int, high: int) -> Check:
    def check(value: object, _: int) -> str | None:
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if right else f"must be an integer from {low} to {high}"

    return check


def _temperature(value: object, _: int) -> str | None:
    right = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (value == 0 or MIN_TEMPERATURE <= value <= 100)
    )
    return None if right else f"must be a number: 0 (greedy) or from {MIN_TEMPERATURE:g} to 100"


def _boolean(value: object, _: int) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _early_stopping(value: object, _: int) -> str | None:
    return None if isinstance(value, bool) or value == "never" else 'must be true, false or "never"'


def _is_token(value: object, vocabulary: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (vocabulary or MAX_INTEGER)


def _ids(vocabulary: int) -> str:
    return f"token ids from 0 to {vocabulary - 1}" if vocabulary else "token ids"


def _token(value: object, vocabulary: int) -> str | None:
    return None if _is_token(value, vocabulary) else f"must be one of the {_ids(vocabulary)}"


def _tokens(value: object, vocabulary: int) -> str | None:
    most = vocabulary or MAX_INTEGER
    right = is_list(value) and len(value) <= most and all(_is_token(item, vocabulary) for item in value)
    return None if right else f"must be a list of {_ids(vocabulary)}, at most as many as there are"


def _token_or_tokens(value: object, vocabulary: int) -> str | None:
    right = _is_token(value, vocabulary) or _tokens(value, vocabulary) is None
    return None if right else f"must be a token id or a list of {_ids(vocabulary)}"


def _token_lists(value: object, vocabulary: int) -> str | None:
    right = is_list(value) and len(value) <= MAX_BIASES and all(_is_word(word, vocabulary) for word in value)
    return (
        None if right else f"must be a list of at most {MAX_BIASES} lists of 1 to {MAX_WORD_TOKENS} {_ids(vocabulary)}"
    )


def _is_word(value: object, vocabulary: int) -> bool:
    return is_list(value) and 0 < len(value) <= MAX_WORD_TOKENS and all(_is_token(item, vocabulary) for item in value)


def _sequence_bias(value: object, vocabulary: int) -> str | None:
    right = (
        is_list(value)
        and 0 < len(value) <= MAX_BIASES
        and all(
            is_list(pair) and len(pair) == 2 and _is_word(pair[0], vocabulary) and _BIAS(pair[1], 0) is None
            for pair in value
        )
    )
    return None if right else (
        f"must be a list of at most {MAX_BIASES} pairs: a list of 1 to {MAX_WORD_TOKENS} {_ids(vocabulary)}, and "
        f"a bias from -{MAX_ABS_BIAS:g} to {MAX_ABS_BIAS:g}"
    )  # fmt: skip


MAX_ABS_BIAS: Final = 1e6
_BIAS: Final = _number(-MAX_ABS_BIAS, MAX_ABS_BIAS)


def _logit_bias(value: object, vocabulary: int) -> str | None:
    right = (
        is_object(value)
        and len(value) <= MAX_BIASES
        and all(_is_token(_as_token(key), vocabulary) and _LOGIT_BIAS(bias, 0) is None for key, bias in value.items())
    )
    ids = f"token ids of the vocabulary of {vocabulary}" if vocabulary else "token ids"
    return None if right else f"must map at most {MAX_BIASES} {ids} to numbers from -100 to 100"


_LOGIT_BIAS: Final = _number(-100, 100)


def _as_token(key: object) -> int:
    """Parses a token id that is the key of a JSON object; returns -1 if it is not a decimal number of 10 digits or
    less."""
    text = str(key)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1


def _decay(value: object, _: int) -> str | None:
    right = (
        is_list(value)
        and len(value) == 2
        and _integer(0, MAX_INTEGER)(value[0], 0) is None
        and _number(0, 10, above=True)(value[1], 0) is None
    )
    return None if right else "must be a list of an integer (first token) and a factor above 0 to 10"


CHECKS: Final[Mapping[str, Check]] = {
    # Sampling.
    "do_sample": _boolean,
    "temperature": _temperature,
    "top_k": _integer(0, MAX_INTEGER),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_h": _number(0, 1, above=True),
    "typical_p": _number(0, 1, above=True),
    "epsilon_cutoff": _number(0, 1, below=True),
    "eta_cutoff": _number(0, 1, below=True),
    # Changes of the logits.
    "repetition_penalty": _number(1e-6, 1e6),
    "encoder_repetition_penalty": _number(1e-6, 1e6),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "no_repeat_ngram_size": _integer(0, MAX_NGRAM_TOKENS),
    "encoder_no_repeat_ngram_size": _integer(0, MAX_NGRAM_TOKENS),
    "bad_words_ids": _token_lists,
    "sequence_bias": _sequence_bias,
    "logit_bias": _logit_bias,
    "suppress_tokens": _tokens,
    "begin_suppress_tokens": _tokens,
    "forced_bos_token_id": _token,
    "forced_eos_token_id": _token_or_tokens,
    "exponential_decay_length_penalty": _decay,
    "remove_invalid_values": _boolean,
    "renormalize_logits": _boolean,
    "guidance_scale": _number(0, 100),
    # End of the text.
    "eos_token_id": _token_or_tokens,
    "stop_token_ids": _tokens,
    "min_length": _integer(0, MAX_INTEGER),
    "min_new_tokens": _integer(0, MAX_INTEGER),
    "max_length": _integer(1, MAX_INTEGER),
    "max_new_tokens": _integer(1, MAX_INTEGER),
    # Several sequences.
    "num_beams": _integer(1, 64),
    "num_return_sequences": _integer(1, 64),
    "early_stopping": _early_stopping,
    "length_penalty": _number(-100, 100),
    # Special tokens; they have no effect on a decoder whose input is token ids.
    "pad_token_id": _token,
    "bos_token_id": _token,
    "decoder_start_token_id": _token,
}
"""The check of each option that a request may set."""

NUMBERS: Final = frozenset(
    {
        "temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
        "encoder_repetition_penalty", "frequency_penalty", "presence_penalty", "guidance_scale", "length_penalty",
    }
)  # fmt: skip
"""Options that are converted to float, because some of transformers' processors reject 2 and accept 2.0."""

TOKEN_LISTS: Final = frozenset({"eos_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"})
"""Options of a model's generation config from which ids outside the vocabulary are dropped one by one."""


def checked_option(name: str, value: Any, vocabulary: int) -> Any:
    """Validates one option of a request and converts it to the type that transformers accepts.

    Raises:
        BadRequest: the value is not accepted.
    """
    problem = CHECKS[name](value, vocabulary)
    if problem is not None:
        raise BadRequest(f"{name} {problem}, not {abbreviate(value)}", param=name)
    return float(value) if name in NUMBERS else value


def usable_value(name: str, value: Any, vocabulary: int) -> tuple[Any, str | None]:
    """Returns the usable part of a value of the model's generation config, and the reason for which a part was
    dropped."""
    check = CHECKS.get(name)
    if check is None or value is None:
        return value, None
    problem = check(value, vocabulary)
    if problem is None:
        return float(value) if name in NUMBERS else value, None
    if name in TOKEN_LISTS and is_list(value):
        known = [token for token in value if _is_token(token, vocabulary)]
        return known or None, f"{name} {problem}; other values are ignored"
    return None, f"{name} {problem}, not {abbreviate(value)}; it is ignored"
