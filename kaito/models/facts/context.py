"""Maximum context length by the rules of vLLM (`_get_and_verify_max_len`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from kaito.api.json_values import json_object
from kaito.models.facts.documents import ConfigDocument, Fields

_LENGTHS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Fields with the maximum length; the smallest one counts."""

DEFAULT: Final = 2048
"""vLLM's length for a configuration without any of them."""

_ALREADY_SCALED: Final = frozenset({"su", "longrope", "llama3"})
"""Methods after whose scaling `max_position_embeddings` is given."""


@final
@dataclass(frozen=True, slots=True)
class ContextLength:
    """Context lengths in tokens."""

    longest: int
    """The largest value of `--max-model-len`."""
    default: int
    """The length without that flag: of models with LongRoPE, the one before scaling."""


def context_length(document: ConfigDocument) -> ContextLength:
    """Returns the context lengths.

    Raises:
        NotAModel: a length is not a positive number.
    """
    fields = document.text
    given = [fields.integer(name) for name in _LENGTHS if fields.raw(name) is not None]
    length = float(min((each for each in given if each), default=DEFAULT))
    if fields.integer("model_max_length"):  # Cohere
        length = float(fields.integer("model_max_length"))
    scalings = list(_scalings(fields))
    if "gemma3" not in document.root_type and "gemma3" not in document.model_type:
        factor = 1.0
        for kind, scaling in scalings:
            if kind in _ALREADY_SCALED:
                continue
            factor = scaling.number("factor", factor)
            if kind == "yarn":
                length = float(scaling.integer("original_max_position_embeddings") or length)
        length *= factor or 1.0
    longest = max(1, int(length))
    original = _original(fields, scalings)
    if original and any(kind in {"longrope", "su"} for kind, _ in scalings):
        return ContextLength(longest, min(original, longest))
    return ContextLength(longest, longest)


def _scalings(fields: Fields) -> list[tuple[str, Fields]]:
    """Returns the scaling of positions by method: one, or one for each kind of layers."""
    given = json_object(fields.raw("rope_parameters")) or json_object(fields.raw("rope_scaling"))
    if not given:
        return []
    nested = [json_object(value) for value in given.values()]
    is_nested = (
        bool(nested) and all(nested) and all("attention" in name or name in {"main", "compress"} for name in given)
    )
    return [(_kind(each), Fields(each)) for each in (nested if is_nested else [given])]


def _kind(scaling: Mapping[str, Any]) -> str:
    kind = scaling.get("rope_type") or scaling.get("type")
    return kind if isinstance(kind, str) else "default"


def _original(fields: Fields, scalings: list[tuple[str, Fields]]) -> int:
    return fields.integer("original_max_position_embeddings") or max(
        (scaling.integer("original_max_position_embeddings") for _, scaling in scalings), default=0
    )
