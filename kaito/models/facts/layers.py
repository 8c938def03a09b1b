"""Kinds of layers: with a cache of the whole context, with a window, with a recurrent state, or with neither."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

from kaito.api.json_values import json_list, json_object
from kaito.models.facts.attention import INDEX_BYTES_PER_TOKEN
from kaito.models.facts.documents import ConfigDocument, Fields
from kaito.models.facts.errors import NotAModel, UnsupportedArchitecture


class Kind(StrEnum):
    """What a layer keeps of the context."""

    FULL = "full"
    WINDOW = "window"
    STATE = "state"
    BOTH = "both"
    """A cache of the whole context and a recurrent state."""
    NONE = "none"


_NAMES: Final[Mapping[str, Kind]] = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "indexed_attention": Kind.FULL,
    "chunked_attention": Kind.FULL,  # vLLM caches the whole context (it switches its hybrid cache off)
    "sliding_attention": Kind.WINDOW,
    "sliding_window": Kind.WINDOW,
    "local_attention": Kind.WINDOW,
    "linear_attention": Kind.STATE,
    "mamba": Kind.STATE,
    "mamba2": Kind.STATE,
    "conv": Kind.STATE,
    "recurrent": Kind.STATE,
    "kda": Kind.STATE,
    "hybrid": Kind.BOTH,
    "mlp": Kind.NONE,
    "moe": Kind.NONE,
}

_PATTERN: Final[Mapping[str, Kind]] = {"M": Kind.STATE, "*": Kind.FULL, "-": Kind.NONE, "E": Kind.NONE}
"""Letters of `hybrid_override_pattern` (Nemotron H)."""

_COMPRESSION: Final[Mapping[str, int]] = {
    "sliding_attention": 0,
    "compressed_sparse_attention": 4,
    "heavily_compressed_attention": 128,
}
"""Tokens per cached vector of DeepSeek V4 by kind of layer; 0 for a window only."""

_WINDOW_PERIODS: Final[Mapping[str, int]] = {
    "gemma2": 2,
    "gemma3_text": 6,
    "gemma3": 6,
    "gemma3n_text": 5,
    "gpt_oss": 2,
    "cohere2": 4,
    "olmo3": 4,
    "exaone4": 4,
}
"""Model types whose every n-th layer caches the whole context, if config.json does not list the kinds."""

_STATE_PERIODS: Final = frozenset({"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"})
"""Model types whose every fourth layer has attention, if config.json does not say otherwise."""


@final
@dataclass(frozen=True, slots=True)
class LayerShape:
    """Layers of a model by what they keep of the context."""

    layers: int
    full: int
    """Layers that cache the whole context."""
    windowed: int
    window: int
    """Tokens that the others cache."""
    recurrent: int
    state_bytes: int
    """Bytes of recurrent state per request and recurrent layer, as vLLM allocates it."""
    growth: float | None = None
    """DeepSeek V4: bytes of cache per token over all layers."""


def layer_shape(document: ConfigDocument) -> LayerShape:
    """Returns the kinds of the layers.

    Raises:
        NotAModel: config.json contradicts itself.
        UnsupportedArchitecture: the size of a recurrent state is not known.
    """
    fields = document.text
    if document.model_type == "deepseek_v4":
        return _compressed(fields)
    kinds = _without_shared(_kinds(document), fields.integer("num_kv_shared_layers"))
    counts = Counter(kinds)
    window = _window(fields) if counts[Kind.WINDOW] else 0
    recurrent = counts[Kind.STATE] + counts[Kind.BOTH]
    state = _state_bytes(document) if recurrent else 0
    return LayerShape(len(kinds), counts[Kind.FULL] + counts[Kind.BOTH], counts[Kind.WINDOW], window, recurrent, state)


def _without_shared(kinds: Sequence[Kind], shared: int) -> Sequence[Kind]:
    """Removes the cache of the last layers that use the cache of earlier ones (Gemma 3n, Gemma 4)."""
    return kinds if not shared else [*kinds[: max(1, len(kinds) - shared)], *[Kind.NONE] * min(shared, len(kinds) - 1)]


def _kinds(document: ConfigDocument) -> Sequence[Kind]:
    fields, kind = document.text, document.model_type
    pattern = fields.text("hybrid_override_pattern")
    if pattern:
        return [_PATTERN.get(letter, Kind.NONE) for letter in pattern]
    listed = [str(each) for each in (*fields.items("layers_block_type"), *fields.items("layer_types"))]
    if listed and fields.items("layers_block_type") and not fields.has("num_hidden_layers"):
        return [_named(each) for each in listed]
    layers = fields.required("num_hidden_layers")
    if kind in {"mamba", "mamba2", "falcon_mamba"}:
        return [Kind.STATE] * layers
    if len(listed) >= layers:
        return [_window_or_full(_named(each), fields) for each in listed[:layers]]
    return _computed(document, layers)


def _named(name: str) -> Kind:
    if name not in _NAMES:
        raise UnsupportedArchitecture(
            f"has layers of the kind {name}, whose memory is not known: use inference.template"
        )
    return _NAMES[name]


def _computed(document: ConfigDocument, layers: int) -> Sequence[Kind]:
    """Returns the kinds for a configuration that has a rule instead of a list."""
    fields, kind = document.text, document.model_type
    if kind == "falcon_h1":
        return [Kind.BOTH] * layers
    linear = json_object(fields.raw("linear_attn_config"))
    if linear:  # Kimi Linear: layers are numbered from 1
        full = {each for each in json_list(linear.get("full_attn_layers")) if isinstance(each, int)}
        return [Kind.FULL if number in full else Kind.STATE for number in range(1, layers + 1)]
    listed = [each for each in fields.items("full_attn_idxs") if isinstance(each, int)]
    if listed:  # LFM2
        return [Kind.FULL if number in listed else Kind.STATE for number in range(layers)]
    period = fields.integer("attn_layer_period")
    if period:  # Jamba
        offset = fields.integer("attn_layer_offset")
        return [Kind.FULL if number % period == offset else Kind.STATE for number in range(layers)]
    interval = fields.integer("full_attention_interval") or (4 if kind in _STATE_PERIODS else 0)
    if interval:
        return [Kind.FULL if (number + 1) % interval == 0 else Kind.STATE for number in range(layers)]
    if fields.items("block_configs"):
        return _blocks(fields, layers)
    return _windows(fields, kind, layers)


def _blocks(fields: Fields, layers: int) -> Sequence[Kind]:
    """Returns the kinds of a pruned model (Nemotron NAS): blocks without attention cache nothing."""
    found: list[Kind] = []
    for block in fields.items("block_configs")[:layers]:
        attention = json_object(json_object(block).get("attention"))
        absent = attention.get("no_op") is True or attention.get("replace_with_linear") is True
        found.append(Kind.NONE if absent else Kind.FULL)
    return found


def _windows(fields: Fields, kind: str, layers: int) -> Sequence[Kind]:
    """Returns the kinds of a model whose layers have full attention or a window."""
    pattern = json_list(fields.raw("sliding_window"))
    if pattern:  # Mistral's own format
        return [Kind.FULL if pattern[number % len(pattern)] is None else Kind.WINDOW for number in range(layers)]
    if not _window(fields):
        return [Kind.FULL] * layers
    letters = fields.text("sliding_window_pattern")
    if letters:  # EXAONE 4: LLLG
        return [Kind.FULL if letters[number % len(letters)] == "G" else Kind.WINDOW for number in range(layers)]
    period = fields.integer("sliding_window_pattern", "_sliding_window_pattern") or _WINDOW_PERIODS.get(kind, 0)
    if period:
        return [Kind.FULL if (number + 1) % period == 0 else Kind.WINDOW for number in range(layers)]
    first = fields.integer("max_window_layers") if fields.has("max_window_layers") else 0
    return [Kind.FULL if number < first else Kind.WINDOW for number in range(layers)]


def _window_or_full(kind: Kind, fields: Fields) -> Kind:
    return Kind.FULL if kind == Kind.WINDOW and not _window(fields) else kind


def _window(fields: Fields) -> int:
    """Returns the tokens of the window; 0 if the model does not use one."""
    listed = json_list(fields.raw("sliding_window"))
    if listed:
        return max((each for each in listed if isinstance(each, int)), default=0)
    if fields.raw("use_sliding_window") is False:
        return 0
    return fields.integer("sliding_window")


def _compressed(fields: Fields) -> LayerShape:
    """Returns the layers of DeepSeek V4: each has a window, and most a compressed cache of the whole context."""
    layers = fields.required("num_hidden_layers")
    rates = [each for each in fields.items("compress_ratios") if isinstance(each, int)][:layers]
    if not rates:
        kinds = [str(each) for each in fields.items("layer_types")][:layers]
        kinds = kinds or ["heavily_compressed_attention"] * 2 + [
            "compressed_sparse_attention" if number % 2 else "heavily_compressed_attention"
            for number in range(layers - 2)
        ]
        rates = [_COMPRESSION.get(kind, 1) for kind in kinds]
    width = 2.0 * (fields.integer("head_dim") or 512)
    growth = sum(width / rate + (INDEX_BYTES_PER_TOKEN / rate if rate == 4 else 0) for rate in rates if rate)
    full = sum(1 for rate in rates if rate)
    return LayerShape(layers, full, layers, fields.integer("sliding_window", default=128), 0, 0, growth)


# ── recurrent state ──────────────────────────────────────────────────────────────────────────────────────────────────


def _state_bytes(document: ConfigDocument) -> int:
    """Returns the bytes of recurrent state per request and layer, by the shapes of vLLM's `mamba_utils`.

    Raises:
        UnsupportedArchitecture: the model's layers are not known.
    """
    fields, kind = document.text, document.model_type
    shapes: Mapping[str, Callable[[Fields], int]] = {
        "nemotron_h": _mamba2_of_nemotron,
        "falcon_h1": _mamba2,
        "granitemoehybrid": _mamba2,
        "bamba": _mamba2,
        "zamba2": _mamba2_of_zamba,
        "mamba2": _mamba2_alone,
        "jamba": _mamba1,
        "mamba": _mamba1,
        "falcon_mamba": _mamba1,
        "lfm2": _short_convolution,
        "lfm2_moe": _short_convolution,
        "kimi_linear": _delta_attention,
    }
    if kind in shapes:
        return shapes[kind](fields)
    if fields.integer("linear_num_value_heads"):
        return _gated_delta_net(fields)
    raise UnsupportedArchitecture(
        f"has recurrent layers of the type {kind or document.architecture}, whose state is not known: use "
        "inference.template"
    )


def _state_width(fields: Fields, default: int) -> int:
    """Returns the bytes of a number of the state: vLLM's `mamba_ssm_cache_dtype`, else the model's format."""
    text = fields.text("mamba_ssm_cache_dtype") or fields.text("mamba_ssm_dtype")
    return 4 if text == "float32" else 2 if text in {"float16", "bfloat16"} else default


def _mamba2_bytes(
    fields: Fields, *, inner: int, groups: int, heads: int, head_dim: int, state: int, kernel: int
) -> int:
    if not (inner and heads and head_dim and state and kernel):
        raise NotAModel("has Mamba layers whose dimensions config.json does not contain")
    width = _state_width(fields, 4 if "mamba_num_heads" in fields.values else 2)
    return (inner + 2 * groups * state) * (kernel - 1) * 2 + heads * head_dim * state * width


def _mamba2_of_nemotron(fields: Fields) -> int:
    heads, head_dim = fields.integer("mamba_num_heads"), fields.integer("mamba_head_dim")
    return _mamba2_bytes(
        fields,
        inner=heads * head_dim,
        groups=fields.integer("n_groups"),
        heads=heads,
        head_dim=head_dim,
        state=fields.integer("ssm_state_size"),
        kernel=fields.integer("conv_kernel"),
    )


def _mamba2(fields: Fields) -> int:
    inner = fields.integer("mamba_d_ssm") or _expanded(fields)
    return _mamba2_of(fields, inner, heads="mamba_n_heads", groups="mamba_n_groups", head_dim="mamba_d_head")


def _mamba2_of_zamba(fields: Fields) -> int:
    return _mamba2_of(
        fields, _expanded(fields), heads="n_mamba_heads", groups="mamba_ngroups", head_dim="mamba_headdim"
    )


def _expanded(fields: Fields) -> int:
    return int(fields.number("mamba_expand", 2) * fields.integer("hidden_size"))


def _mamba2_of(fields: Fields, inner: int, *, heads: str, groups: str, head_dim: str) -> int:
    """Returns the state of a Mamba-2 layer whose configuration has these names for its dimensions."""
    count = fields.integer(heads)
    return _mamba2_bytes(
        fields,
        inner=inner,
        groups=fields.integer(groups, default=1),
        heads=count,
        head_dim=_head_dim(fields.raw(head_dim), inner, count),
        state=fields.integer("mamba_d_state"),
        kernel=fields.integer("mamba_d_conv", default=4),
    )


def _mamba2_alone(fields: Fields) -> int:
    return _mamba2_bytes(
        fields,
        inner=int(fields.number("expand", 2) * fields.integer("hidden_size")),
        groups=fields.integer("n_groups", default=1),
        heads=fields.integer("num_heads"),
        head_dim=fields.integer("head_dim"),
        state=fields.integer("state_size"),
        kernel=fields.integer("conv_kernel", default=4),
    )


def _head_dim(given: Any, inner: int, heads: int) -> int:
    return given if isinstance(given, int) and given > 0 else inner // heads if heads else 0


def _mamba1(fields: Fields) -> int:
    expanded = int(fields.number("mamba_expand", fields.number("expand", 2)) * fields.integer("hidden_size"))
    inner = fields.integer("intermediate_size") if fields.has("state_size") else 0
    inner = inner or expanded
    state = fields.integer("mamba_d_state", "state_size", default=16)
    kernel = fields.integer("mamba_d_conv", "conv_kernel", default=4)
    return inner * (kernel - 1) * 2 + inner * state * _state_width(fields, 2)


def _short_convolution(fields: Fields) -> int:
    return fields.integer("hidden_size") * (fields.integer("conv_L_cache", default=3) - 1) * 2


def _gated_delta_net(fields: Fields) -> int:
    keys = fields.integer("linear_num_key_heads") * fields.integer("linear_key_head_dim")
    values = fields.integer("linear_num_value_heads") * fields.integer("linear_value_head_dim")
    kernel = fields.integer("linear_conv_kernel_dim", default=4)
    state = values * fields.integer("linear_key_head_dim") * _state_width(fields, 2)
    return (2 * keys + values) * (kernel - 1) * 2 + state


def _delta_attention(fields: Fields) -> int:
    """Returns the state of Kimi delta attention, whose recurrent part has 32 bits per number."""
    linear = Fields(json_object(fields.raw("linear_attn_config")))
    heads, dimension = linear.required("num_heads"), linear.required("head_dim")
    kernel = linear.integer("short_conv_kernel_size", default=4)
    return 3 * heads * dimension * (kernel - 1) * 2 + heads * dimension * dimension * 4


def growth_per_token(shape: LayerShape, layer_bytes: float) -> int:
    """Returns the bytes of cache per token if every layer cached the whole context."""
    if shape.growth is not None:
        return math.ceil(shape.growth * shape.layers / max(1, shape.full))
    return round(layer_bytes * shape.layers)
