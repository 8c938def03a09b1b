"""Validates generation options by type and range before any of them reaches a tensor.

Called by `plan` for the options of a request and for the model's own generation config. Every option that this
server honors has one check here; the message names the option and the accepted values. Ranges come from
transformers' logits processors (`transformers.generation.logits_process`) and from what float32 can represent.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kaito_presets.errors import BadRequest
from kaito_presets.json_values import abbreviate, is_list, is_object

Check = Callable[[object, int], str | None]
"""Takes a value and the size of the vocabulary (0: unknown); returns what the value must be, or None if it is
acceptable."""

SMALLEST_TEMPERATURE: Final = 1e-20
"""Logits are divided by the temperature in float32, whose largest value is 3e38: this leaves room for logits up to
1e18."""
LONGEST_NGRAM: Final = 64
"""Finding repeated n-grams takes time and memory in proportion to n times the length of the text."""
MOST_BIASES: Final = 1024
"""Words or sequences with a bias: each costs a comparison per generated token."""
LONGEST_WORD: Final = 256
"""Tokens of one of them."""
WHOLE_LIMIT: Final = 2**31 - 1


def _number(low: float, high: float, *, above: bool = False, below: bool = False) -> Check:
    """A finite number in [low, high]; `above` and `below` exclude the bounds."""
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


def _whole(low: int, high: int) -> Check:
    def check(value: object, _: int) -> str | None:
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if right else f"must be a whole number from {low} to {high}"

    return check


def _temperature(value: object, _: int) -> str | None:
    right = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (value == 0 or SMALLEST_TEMPERATURE <= value <= 100)
    )
    return None if right else f"must be a number: 0 (greedy) or from {SMALLEST_TEMPERATURE:g} to 100"


def _boolean(value: object, _: int) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _early_stopping(value: object, _: int) -> str | None:
    return None if isinstance(value, bool) or value == "never" else 'must be true, false or "never"'


def _is_token(value: object, vocabulary: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (vocabulary or WHOLE_LIMIT)


def _ids(vocabulary: int) -> str:
    return f"token ids from 0 to {vocabulary - 1}" if vocabulary else "token ids"


def _token(value: object, vocabulary: int) -> str | None:
    return None if _is_token(value, vocabulary) else f"must be one of the {_ids(vocabulary)}"


def _tokens(value: object, vocabulary: int) -> str | None:
    most = vocabulary or WHOLE_LIMIT
    right = is_list(value) and len(value) <= most and all(_is_token(item, vocabulary) for item in value)
    return None if right else f"must be a list of {_ids(vocabulary)}, at most as many as there are"


def _token_or_tokens(value: object, vocabulary: int) -> str | None:
    right = _is_token(value, vocabulary) or _tokens(value, vocabulary) is None
    return None if right else f"must be a token id or a list of {_ids(vocabulary)}"


def _words(value: object, vocabulary: int) -> str | None:
    right = is_list(value) and len(value) <= MOST_BIASES and all(_is_word(word, vocabulary) for word in value)
    return None if right else f"must be a list of at most {MOST_BIASES} lists of 1 to {LONGEST_WORD} {_ids(vocabulary)}"


def _is_word(value: object, vocabulary: int) -> bool:
    return is_list(value) and 0 < len(value) <= LONGEST_WORD and all(_is_token(item, vocabulary) for item in value)


def _sequence_bias(value: object, vocabulary: int) -> str | None:
    right = (
        is_list(value)
        and 0 < len(value) <= MOST_BIASES
        and all(
            is_list(pair) and len(pair) == 2 and _is_word(pair[0], vocabulary) and _BIAS(pair[1], 0) is None
            for pair in value
        )
    )
    return None if right else (
        f"must be a list of at most {MOST_BIASES} pairs: a list of 1 to {LONGEST_WORD} {_ids(vocabulary)}, and a bias "
        f"from -{LARGEST_BIAS:g} to {LARGEST_BIAS:g}"
    )  # fmt: skip


LARGEST_BIAS: Final = 1e6
_BIAS: Final = _number(-LARGEST_BIAS, LARGEST_BIAS)


def _logit_bias(value: object, vocabulary: int) -> str | None:
    right = (
        is_object(value)
        and len(value) <= MOST_BIASES
        and all(_is_token(_as_token(key), vocabulary) and _LOGIT_BIAS(bias, 0) is None for key, bias in value.items())
    )
    return None if right else f"must map at most {MOST_BIASES} {_ids(vocabulary)} to numbers from -100 to 100"


_LOGIT_BIAS: Final = _number(-100, 100)


def _as_token(key: object) -> int:
    """A token id that came as a JSON key; -1 if it is not a decimal number of reasonable length."""
    text = str(key)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1


def _decay(value: object, _: int) -> str | None:
    right = (
        is_list(value)
        and len(value) == 2
        and _whole(0, WHOLE_LIMIT)(value[0], 0) is None
        and _number(0, 10, above=True)(value[1], 0) is None
    )
    return None if right else "must be a list of a whole number (first token) and a factor above 0 to 10"


CHECKS: Final[Mapping[str, Check]] = {
    # How a token is chosen.
    "do_sample": _boolean,
    "temperature": _temperature,
    "top_k": _whole(0, WHOLE_LIMIT),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_h": _number(0, 1, above=True),
    "typical_p": _number(0, 1, above=True),
    "epsilon_cutoff": _number(0, 1, below=True),
    "eta_cutoff": _number(0, 1, below=True),
    # What changes the logits.
    "repetition_penalty": _number(1e-6, 1e6),
    "encoder_repetition_penalty": _number(1e-6, 1e6),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "no_repeat_ngram_size": _whole(0, LONGEST_NGRAM),
    "encoder_no_repeat_ngram_size": _whole(0, LONGEST_NGRAM),
    "bad_words_ids": _words,
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
    # Where the text ends.
    "eos_token_id": _token_or_tokens,
    "stop_token_ids": _tokens,
    "min_length": _whole(0, WHOLE_LIMIT),
    "min_new_tokens": _whole(0, WHOLE_LIMIT),
    "max_length": _whole(1, WHOLE_LIMIT),
    "max_new_tokens": _whole(1, WHOLE_LIMIT),
    # Several sequences.
    "num_beams": _whole(1, 64),
    "num_return_sequences": _whole(1, 64),
    "early_stopping": _early_stopping,
    "length_penalty": _number(-100, 100),
    # Special tokens; they change nothing in a decoder that is given token ids.
    "pad_token_id": _token,
    "bos_token_id": _token,
    "decoder_start_token_id": _token,
}
"""Every option that a request may set."""

NUMBERS: Final = frozenset(
    {
        "temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
        "encoder_repetition_penalty", "frequency_penalty", "presence_penalty", "guidance_scale", "length_penalty",
    }
)  # fmt: skip
"""Options that are real numbers; some of transformers' processors refuse a 2 where they accept a 2.0."""

TOKEN_LISTS: Final = frozenset({"eos_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"})
"""Options of a model's own file of which single ids outside the vocabulary are dropped."""


def checked_option(name: str, value: Any, vocabulary: int) -> Any:
    """One option of a request as transformers takes it.

    Raises:
        BadRequest: names the option and the accepted values.
    """
    wanted = CHECKS[name](value, vocabulary)
    if wanted is not None:
        raise BadRequest(f"{name} {wanted}, not {abbreviate(value)}", param=name)
    return float(value) if name in NUMBERS else value


def valid_own_value(name: str, value: Any, vocabulary: int) -> tuple[Any, str | None]:
    """What of a value in the model's own generation config can be used, and why the rest cannot.

    A model file is not a request: a wrong value in it must not make every request fail, so it is left out and reported.
    """
    check = CHECKS.get(name)
    if check is None or value is None:
        return value, None
    wanted = check(value, vocabulary)
    if wanted is None:
        return float(value) if name in NUMBERS else value, None
    if name in TOKEN_LISTS and is_list(value):
        kept = [token for token in value if _is_token(token, vocabulary)]
        return kept or None, f"{name} {wanted}; other values are left out"
    return None, f"{name} {wanted}, not {abbreviate(value)}; it is ignored"
