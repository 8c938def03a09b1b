"""Builds the `Preset` of a model outside the catalog from its facts."""

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final

from kaito.api.json_values import json_object
from kaito.models.facts.derive import ModelFacts
from kaito.models.facts.reference import ModelReference
from kaito.models.preset import (
    DISK_HEADROOM_GIB,
    WINDOW_BATCH,
    Architecture,
    Flags,
    Preset,
    Transformers,
    Tuning,
    Vllm,
)
from kaito.runtime.meta import Quantity

_GIB: Final = 2**30

_MISTRAL_FLAGS: Final[Flags] = {"config-format": "mistral", "load-format": "mistral", "tokenizer-mode": "mistral"}

_TOKENIZER_MODES: Final[Mapping[str, str]] = {
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV4ForCausalLM": "deepseek_v4",
}
"""Modes for models without a chat template, whose conversations vLLM formats itself."""


def preset_of_facts(facts: ModelFacts, reference: ModelReference, catalog: Preset | None = None) -> Preset:
    """Returns the preset.

    Args:
        facts: of the model at one revision.
        reference: the name in the Workspace.
        catalog: the catalog's preset of the same repository, if another revision of it is named; its settings of the
            servers are used.
    """
    settings: dict[str, Any] = {
        "vllm": Vllm(flags=_flags(facts, reference), host_cache=_keeps_host_cache(facts)),
        "transformers": Transformers() if facts.in_transformers else None,
        "tuning": _tuning(facts),
    }
    if catalog is not None:
        settings = {"vllm": catalog.vllm, "transformers": catalog.transformers, "tuning": catalog.tuning}
    return Preset(
        name=reference.short_name,
        repository=facts.model if "/" in facts.model else reference.model,
        revision=facts.revision or reference.revision,
        family=facts.model_type or facts.architecture,
        license=facts.license or "unknown",
        gated=facts.gated,
        weights=Quantity(Decimal(facts.weights_bytes)),
        parameters=facts.parameters / 1e9,
        quantization=facts.quantization,
        architecture=_architecture(facts),
        kv_bytes_per_token=facts.kv_bytes_per_token,
        context=facts.context,
        is_in_catalog=False,
        float_type="float16" if facts.dtype == "float16" else "",
        load_ratio=0.5 if facts.dtype == "float32" and not facts.quantization else 1.0,
        **settings,
    )


def _architecture(facts: ModelFacts) -> Architecture:
    """Returns the dimensions; a window that has no effect on the memory is left out."""
    windowed = facts.window_layers if facts.window + WINDOW_BATCH < facts.context else 0
    full = facts.full_layers + facts.window_layers - windowed
    differs = full != facts.layers or bool(windowed)
    return Architecture.model_validate(
        {
            "class": facts.architecture,
            "layers": facts.layers,
            "heads": facts.heads,
            "kv_heads": facts.kv_heads,
            "head_dim": facts.head_dim,
            "attention": facts.attention,
            "kv_lora_rank": facts.kv_lora_rank,
            "qk_rope_head_dim": facts.qk_rope_head_dim,
            "full_layers": full if differs else 0,
            "window": facts.window if windowed else 0,
            "window_layers": windowed,
            "window_layer_bytes": facts.window_layer_bytes if windowed else 0,
            "state_layers": facts.state_layers,
            "state_bytes_per_layer": facts.state_bytes_per_layer,
        }
    )


def _keeps_host_cache(facts: ModelFacts) -> bool:
    """Whether vLLM may keep a part of the cache in host memory: not with layers of several kinds."""
    return not (facts.state_layers or facts.window_layers or facts.window_layer_bytes)


def _tuning(facts: ModelFacts) -> Tuning | None:
    """Returns the resources for tuning with LoRA; None if the transformers server cannot load the model."""
    if not facts.in_transformers or facts.multimodal or facts.remote_code:
        return None
    gib = -(-facts.weights_bytes // _GIB)
    return Tuning(memory=Quantity.gib(2 * gib + 6), disk=Quantity.gib(gib + DISK_HEADROOM_GIB))


def _flags(facts: ModelFacts, reference: ModelReference) -> Flags:
    flags: Flags = dict(_MISTRAL_FLAGS) if facts.mistral_format else {}
    flags["trust-remote-code"] = facts.remote_code
    if mode := _TOKENIZER_MODES.get(facts.architecture):
        flags["tokenizer-mode"] = mode
    tools = _parser("tool_call", reference.short_name, facts.architecture)
    if tools:
        flags |= {"enable-auto-tool-choice": True, "tool-call-parser": tools}
    reasoning = _parser("reasoning", reference.short_name, facts.architecture)
    if reasoning:
        flags["reasoning-parser"] = reasoning
    return flags


@cache
def _parsers() -> Mapping[str, Any]:
    text = resources.files("kaito.models").joinpath("data", "parsers.json").read_text(encoding="utf-8")
    return json_object(json.loads(text))


def _parser(kind: str, name: str, architecture: str) -> str:
    """Returns the parser of vLLM by the longest matching prefix of the name, else by the architecture."""
    table = json_object(_parsers().get(kind))
    prefixes: dict[str, str] = json_object(table.get("prefixes"))
    matching = sorted((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
    if matching:
        return prefixes[matching[-1]]
    return str(json_object(table.get("architectures")).get(architecture, ""))
