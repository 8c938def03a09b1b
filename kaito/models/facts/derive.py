"""Computes the facts of a model from its config.json and the list of its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from pydantic import BaseModel, ConfigDict, Field

from kaito.models.facts.architectures import check_architecture, check_code, check_quantization, is_in_transformers
from kaito.models.facts.attention import attention_shape
from kaito.models.facts.context import context_length
from kaito.models.facts.documents import ConfigDocument, read_document
from kaito.models.facts.errors import NotAModel
from kaito.models.facts.layers import growth_per_token, layer_shape
from kaito.models.facts.mistral import to_config
from kaito.models.facts.quantization import parameter_count, precision
from kaito.models.facts.weight_files import WeightFiles
from kaito.models.preset import Attention

LARGEST_WEIGHTS: Final = 2**53


@final
class Experts(BaseModel):
    """Shape of a mixture of experts."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    routed: int = Field(ge=1)
    """Experts of a layer among which the router chooses."""
    active: int = Field(default=0, ge=0)
    """Experts that compute a token."""
    shared: int = Field(default=0, ge=0)
    """Experts that compute every token."""
    intermediate_size: int = Field(default=0, ge=0)


@final
class ModelFacts(BaseModel):
    """What planning needs to know about a model.

    The form in which the controller keeps facts in a ConfigMap, and in which a user gives them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: str = Field(min_length=1, max_length=256)
    """Hugging Face ID, or the name of an artifact or a directory."""
    revision: str = Field(default="", max_length=128)
    """Commit that the facts are from; empty if unknown."""
    architecture: str = Field(min_length=1, max_length=128)
    model_type: str = Field(default="", max_length=128)
    dtype: str = Field(default="", max_length=32)
    """Number format of computations; empty if the files name none."""
    quantization: str = Field(default="", max_length=64)
    """Quantization method or scheme; empty for none."""
    weights_bytes: int = Field(gt=0, le=LARGEST_WEIGHTS)
    """Bytes of the files that the engine loads."""
    weights_files: int = Field(default=1, ge=1)
    parameters: int = Field(gt=0, le=LARGEST_WEIGHTS)
    """Number of parameters, all experts included."""
    hidden_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    attention: Attention
    kv_lora_rank: int = Field(default=0, ge=0)
    qk_rope_head_dim: int = Field(default=0, ge=0)
    full_layers: int = Field(ge=0)
    """Layers that cache the whole context."""
    window_layers: int = Field(default=0, ge=0)
    """Layers that cache a window."""
    window: int = Field(default=0, ge=0)
    """Tokens of the window."""
    window_layer_bytes: int = Field(default=0, ge=0)
    """Bytes of cache per token of one layer with a window; 0 if equal to that of the others."""
    state_layers: int = Field(default=0, ge=0)
    """Layers with a recurrent state."""
    state_bytes_per_layer: int = Field(default=0, ge=0)
    kv_bytes_per_token: int = Field(ge=0)
    """Bytes of cache per token, as if every layer cached the whole context, at 16 bits per number."""
    context: int = Field(ge=1)
    """Maximum context length in tokens."""
    default_context: int = Field(default=0, ge=0)
    """Context length that the engine uses without a setting, if it is smaller."""
    experts: Experts | None = None
    license: str = Field(default="", max_length=128)
    gated: bool = False
    """Whether the download needs a token with access to the model."""
    remote_code: bool = False
    """Whether the engine runs code of the repository."""
    mistral_format: bool = False
    """Whether the repository has only Mistral's own format."""
    in_transformers: bool = False
    """Whether the transformers server can load the model."""
    multimodal: bool = False
    """Whether the model has further encoders, for example for images."""

    @property
    def growing_bytes_per_token(self) -> float:
        """Bytes of cache that each further token of a request needs beyond the windows."""
        return self.kv_bytes_per_token / self.layers * self.full_layers


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is read from a repository, an artifact or a directory."""

    model: str
    config: Mapping[str, Any]
    """config.json, or params.json of Mistral's own format."""
    weights: WeightFiles
    revision: str = ""
    tensors: Mapping[str, int] = field(default_factory=dict[str, int])
    """Numbers in the weights by format; empty if unknown."""
    quantization: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """hf_quant_config.json; empty if there is none."""
    license: str = ""
    gated: bool = False


def derive_facts(source: Source, *, trust_remote_code: bool = False) -> ModelFacts:
    """Returns the facts.

    Args:
        source: what was read.
        trust_remote_code: whether code of the repository may run in the pod.

    Raises:
        FactsError: the engine cannot serve the model, or the files are not a model.
    """
    is_mistral = source.weights.is_mistral_format
    config = to_config(source.config) if is_mistral else source.config
    document = read_document(config)
    architecture = check_architecture(document)
    remote_code = check_code(document, allowed=trust_remote_code)
    found = precision(document, source.tensors, source.quantization)
    check_quantization(found.method)
    shape, attention, context = layer_shape(document), attention_shape(document), context_length(document)
    parameters = parameter_count(source.tensors, source.weights.size, found)
    if parameters < 1:
        raise NotAModel("has weights without parameters")
    growth = growth_per_token(shape, attention.layer_bytes)
    window_bytes = round(attention.window_bytes) if shape.windowed else 0
    return ModelFacts(
        model=source.model,
        revision=source.revision,
        architecture=architecture,
        model_type=document.root_type,
        dtype=found.dtype,
        quantization=found.scheme,
        weights_bytes=source.weights.size,
        weights_files=len(source.weights.names),
        parameters=parameters,
        hidden_size=document.text.required("hidden_size"),
        layers=shape.layers,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        head_dim=attention.head_dim,
        attention=attention.kind,
        kv_lora_rank=attention.kv_lora_rank,
        qk_rope_head_dim=attention.qk_rope_head_dim,
        full_layers=shape.full,
        window_layers=shape.windowed,
        window=shape.window,
        window_layer_bytes=window_bytes if window_bytes != round(growth / shape.layers) else 0,
        state_layers=shape.recurrent,
        state_bytes_per_layer=shape.state_bytes,
        kv_bytes_per_token=growth,
        context=context.longest,
        default_context=context.default if context.default < context.longest else 0,
        experts=_experts(document),
        license=source.license,
        gated=source.gated,
        remote_code=remote_code,
        mistral_format=is_mistral,
        in_transformers=is_in_transformers(architecture) and not (remote_code or found.method or is_mistral),
        multimodal=document.text.values is not config,
    )


def _experts(document: ConfigDocument) -> Experts | None:
    fields = document.text
    listed = fields.raw("n_routed_experts") or fields.raw("num_experts") or fields.raw("num_local_experts")
    if isinstance(listed, list):  # ERNIE's own code has one number for each modality
        return None
    routed = fields.integer("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
    if routed < 2:
        return None
    return Experts(
        routed=routed,
        active=fields.integer("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k_experts", "moe_k"),
        shared=fields.integer("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
        intermediate_size=fields.integer("moe_intermediate_size", "intermediate_size"),
    )
