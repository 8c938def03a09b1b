"""Compares an entry of the catalog with the facts of its files."""

from collections.abc import Iterator

from kaito.models.facts.derive import ModelFacts
from kaito.models.facts.presets import preset_of_facts
from kaito.models.facts.reference import ModelReference
from kaito.models.preset import Preset
from kaito.models.sizing import gib

WEIGHTS_TOLERANCE = 0.005
"""The catalog has sizes with two decimals of a GiB."""

PARAMETERS_TOLERANCE = 0.06
"""Cards round the number of parameters; that of quantized weights is not compared."""


def differences(preset: Preset, facts: ModelFacts) -> Iterator[str]:
    """Returns what differs, one text for each figure: name, the catalog's value, and that of the files."""
    found = preset_of_facts(facts, ModelReference(preset.repository))
    known, shape = preset.architecture, found.architecture
    if abs(int(found.weights) - int(preset.weights)) > WEIGHTS_TOLERANCE * int(preset.weights):
        yield f"weights: {gib(int(preset.weights))} in the catalog, {gib(int(found.weights))} in the files"
    if not preset.quantization and abs(found.parameters - preset.parameters) > PARAMETERS_TOLERANCE * preset.parameters:
        yield f"parameters: {preset.parameters:g} billion in the catalog, {found.parameters:.3g} in the files"
    for name in ("quantization", "context", "kv_bytes_per_token"):
        if getattr(preset, name) != getattr(found, name):
            yield f"{name}: {getattr(preset, name)!r} in the catalog, {getattr(found, name)!r} in the files"
    if known is None or shape is None:
        return
    for name in ("layers", "heads", "kv_heads", "head_dim", "attention", "state_layers", "state_bytes_per_layer"):
        if getattr(known, name) != getattr(shape, name):
            yield f"{name}: {getattr(known, name)!r} in the catalog, {getattr(shape, name)!r} in the files"
    for tokens in (4096, preset.context):
        if preset.cache_bytes(tokens) != found.cache_bytes(tokens):
            yield (
                f"cache of {tokens} tokens: {gib(preset.cache_bytes(tokens))} in the catalog, "
                f"{gib(found.cache_bytes(tokens))} in the files"
            )
