"""Attention heads, and bytes of key-value cache per token and layer, at 16 bits per number."""

from dataclasses import dataclass
from typing import Final, final

from kaito.api.json_values import json_list, json_object
from kaito.models.facts.documents import ConfigDocument, Fields
from kaito.models.facts.errors import NotAModel
from kaito.models.preset import Attention

_MLA_TYPES: Final = frozenset(
    {
        "AXK1",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm_moe_dsa",
        "glm4_moe_lite",
        "kimi_k2",
        "kimi_linear",
        "longcat_flash",
        "pangu_ultra_moe",
        "bailing_hybrid",
        "mistral4",
    }
)
"""Model types whose latent attention vLLM uses (`is_deepseek_mla`). Others have a `kv_lora_rank` and expand the
latent vector into keys and values."""

INDEX_BYTES_PER_TOKEN: Final = 132
"""Cache of the indexer of DeepSeek sparse attention: a key of 128 numbers at 8 bits and one scale of 32 bits."""


@final
@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Dimensions of the attention."""

    kind: Attention
    heads: int
    kv_heads: int
    head_dim: int
    layer_bytes: float
    """Bytes of cache per token and layer that caches the whole context."""
    window_bytes: float
    """The same of a layer with a window."""
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0


def attention_shape(document: ConfigDocument) -> AttentionShape:
    """Returns the dimensions.

    Raises:
        NotAModel: a dimension is missing or not valid.
    """
    fields = document.text
    hidden = fields.required("hidden_size")
    if _has_no_attention(document):
        return AttentionShape("MQA", 1, 1, hidden, 0.0, 0.0)
    heads = fields.required("num_attention_heads")
    head_dim = fields.integer("head_dim") or hidden // heads
    if document.model_type == "deepseek_v4":
        return _compressed(fields, heads, head_dim)
    if _is_latent(document):
        rank, rope = fields.required("kv_lora_rank"), fields.integer("qk_rope_head_dim")
        width = 2.0 * (rank + rope) + _index_bytes(fields)
        if not fields.has("head_dim"):
            head_dim = hidden // heads
        return AttentionShape("MLA", heads, heads, head_dim, width, width, rank, rope)
    if fields.integer("kv_lora_rank"):  # expanded: keys and values of every head are cached
        head_dim = fields.integer("qk_nope_head_dim") + fields.integer("qk_rope_head_dim") or head_dim
    kv_heads = _kv_heads(document, heads)
    if kv_heads > heads:
        raise NotAModel(f"has {kv_heads} key-value heads and only {heads} attention heads in config.json")
    window_bytes = 2.0 * kv_heads * head_dim * 2
    return AttentionShape(
        _kind(heads, kv_heads), heads, kv_heads, head_dim, _full_bytes(fields, kv_heads, head_dim), window_bytes
    )


def _kind(heads: int, kv_heads: int) -> Attention:
    if kv_heads == heads and heads > 1:
        return "MHA"
    return "MQA" if kv_heads == 1 else "GQA"


def _full_bytes(fields: Fields, kv_heads: int, head_dim: int) -> float:
    """Returns the bytes of a layer without a window, which in Gemma 4 has fewer and larger heads."""
    dimension = fields.integer("global_head_dim") or head_dim
    heads = fields.integer("num_global_key_value_heads") or kv_heads
    return 2.0 * heads * dimension * 2


def _index_bytes(fields: Fields) -> float:
    """Returns the bytes of the indexer's cache per layer, on average: some layers may use the indexer of others."""
    if not fields.integer("index_head_dim"):
        return 0.0
    kinds = fields.items("indexer_types")
    share = sum(1 for kind in kinds if kind == "full") / len(kinds) if kinds else 1.0
    return INDEX_BYTES_PER_TOKEN * share


def _is_latent(document: ConfigDocument) -> bool:
    if not document.text.integer("kv_lora_rank"):
        return False
    return document.model_type in _MLA_TYPES or document.architecture == "MistralLarge3ForCausalLM"


def _compressed(fields: Fields, heads: int, head_dim: int) -> AttentionShape:
    """Returns the dimensions of DeepSeek V4: one vector for key and value, compressed by a rate of each layer.

    Every layer also has a window of vectors that are not compressed. `layers` reads the rates.
    """
    width = 2.0 * head_dim
    return AttentionShape("MQA", heads, 1, head_dim, width, width, 0, fields.integer("qk_rope_head_dim"))


def _kv_heads(document: ConfigDocument, heads: int) -> int:
    """Returns the number of key-value heads, by the rules of vLLM's converters."""
    fields = document.text
    if document.model_type in {"falcon", "RefinedWeb", "RefinedWebModel"}:
        if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
            return 1
        return fields.integer("num_key_value_heads", "n_head_kv") or heads
    if document.model_type == "gpt_bigcode" and fields.flag("multi_query"):
        return 1
    inner = json_object(fields.raw("attn_config"))
    if inner:  # MPT, DBRX
        return Fields(inner).integer("kv_n_heads") or heads
    per_block = _kv_heads_of_blocks(fields, heads)
    return per_block or fields.integer("num_key_value_heads") or heads


def _kv_heads_of_blocks(fields: Fields, heads: int) -> int:
    """Returns the key-value heads of the first block with attention of a pruned model (Nemotron NAS); else 0."""
    for block in json_list(fields.raw("block_configs")):
        attention = Fields(json_object(json_object(block).get("attention")))
        group = attention.integer("n_heads_in_group")
        if group:
            return max(1, heads // group)
    return 0


def _has_no_attention(document: ConfigDocument) -> bool:
    return document.model_type in {"mamba", "mamba2", "falcon_mamba"}
