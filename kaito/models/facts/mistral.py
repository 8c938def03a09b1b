"""Translates `params.json`, the configuration of Mistral's own format, as vLLM does (`adapt_config_dict`)."""

from collections.abc import Mapping
from typing import Any, Final

from kaito.api.json_values import json_object

_NAMES: Final[Mapping[str, str]] = {
    "dim": "hidden_size",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
}
_EXPERTS: Final[Mapping[str, str]] = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "expert_hidden_dim": "moe_intermediate_size",
    "num_shared_experts": "n_shared_experts",
    "first_k_dense_replace": "first_k_dense_replace",
}
_DEFAULT_CONTEXT: Final = 128_000


def to_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration in the format of config.json."""
    text: dict[str, Any] = {_NAMES.get(name, name): value for name, value in params.items()}
    text.setdefault("max_position_embeddings", text.get("max_seq_len") or _DEFAULT_CONTEXT)
    experts = json_object(text.pop("moe", None))
    text |= {_EXPERTS[name]: value for name, value in experts.items() if name in _EXPERTS}
    is_latent = bool(text.get("qk_nope_head_dim"))
    if is_latent or (experts and experts.get("num_shared_experts")):
        text |= {"model_type": "deepseek_v3", "architectures": ["MistralLarge3ForCausalLM"]}
    elif experts:
        text |= {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
    else:
        text |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    yarn = json_object(text.pop("yarn", None))
    if yarn:
        text["rope_parameters"] = {"rope_type": "yarn", **yarn}
    text.setdefault("sliding_window", None)
    quantization = json_object(text.pop("quantization", None))
    if quantization:
        method = str(quantization.get("quant_method", "")).lower().replace("_", "-")
        is_fp8 = quantization.get("qformat_weight") == "fp8_e4m3"
        text["quantization_config"] = {"quant_method": "fp8"} if is_fp8 else {**quantization, "quant_method": method}
    vision = json_object(text.get("multimodal")).get("vision_encoder_args") or text.get("vision_encoder")
    if not vision:
        return text
    architecture = "PixtralForConditionalGeneration"
    return {"architectures": [architecture], "model_type": "pixtral", "text_config": text}
