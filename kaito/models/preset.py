"""A model that can be served: an entry of `data/presets.yaml`, or a model outside the catalog with its facts."""

from datetime import timedelta
from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaito.models.measured import MeasuredMemory
from kaito.runtime.meta import Quantity

Attention = Literal["MHA", "GQA", "MQA", "MLA"]
RuntimeName = Literal["transformers", "vllm"]
Flags = dict[str, str | bool]
"""Flags of a server without their dashes; True is a flag without a value."""

UPSTREAM_REGISTRY: Final = "mcr.microsoft.com/aks/kaito"
"""Registry of the artifacts with weights that upstream Kaito publishes."""

DISK_HEADROOM_GIB: Final = 80
"""Disk for operating system, container images and logs, in addition to the weights, as in upstream Kaito v0.12."""

WINDOW_BATCH: Final = 8192
"""Tokens that vLLM reserves in addition to the window of a sliding-window layer: those of one step, the default of
`max_num_batched_tokens` on large GPUs (`SlidingWindowSpec.max_memory_usage_bytes`)."""

_READINESS_BASE: Final = timedelta(minutes=15)
_READINESS_PER_GIB: Final = timedelta(seconds=18)
_READINESS_RANGE: Final = (timedelta(minutes=30), timedelta(minutes=180))
"""As in upstream Kaito v0.12: 15 min and 18 s per GiB, at least 30 min, at most 3 h."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Architecture(_Entry):
    """Dimensions that determine memory and parallelism."""

    name: str = Field(alias="class")
    """Name of the model class in transformers."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    attention: Attention
    kv_lora_rank: int = 0
    """MLA only: rank of the compressed key-value cache."""

    qk_rope_head_dim: int = 0
    """MLA only: positional part of the key."""

    full_layers: int = 0
    """Number of layers whose cache grows with the context; 0 for all of them."""

    window: int = 0
    """Tokens that the other layers cache (sliding window); 0 if they have no cache per token."""

    window_layers: int = 0
    """Number of layers with a window; 0 for all layers that are not full ones."""

    window_layer_bytes: int = 0
    """Bytes of cache per token of one layer with a window; 0 if equal to those of a full layer."""

    state_layers: int = 0
    """Hybrid models only: number of layers with a recurrent state instead of a cache (Mamba-2, gated delta net)."""

    state_bytes_per_layer: int = 0
    """Hybrid models only: bytes of that state per request and layer, including the convolution window."""


class Transformers(_Entry):
    """Settings of the transformers server."""

    flags: Flags = Field(default_factory=dict[str, str | bool])


class Vllm(_Entry):
    """Settings of vLLM."""

    flags: Flags = Field(default_factory=dict[str, str | bool])
    host_cache: bool = True
    """Whether part of the key-value cache may be in host memory."""

    deep_gemm: bool = False
    """Whether it needs DeepGEMM kernels, which are compiled at start."""

    cuda_toolkit: bool = False
    """Whether compiling at start needs the CUDA toolkit in the container."""


class Tuning(_Entry):
    """Resources for fine-tuning the model."""

    memory: Quantity
    """Recommended GPU memory for LoRA at 16 bits; QLoRA needs less."""

    disk: Quantity


class Requirement(_Entry):
    """Measured GPU memory, used instead of the estimate (presets of upstream Kaito v0.3)."""

    gpus: int = 1
    memory: Quantity
    memory_per_gpu: Quantity = Field(default_factory=lambda: Quantity(0))
    """0 if the layers can be divided over any number of GPUs."""


class Preset(_Entry):
    """One model: of the catalog, or built from its facts (`kaito.models.facts`)."""

    name: str
    """Short name in lower case."""

    repository: str
    """Hugging Face id, `org/model`."""

    revision: str = ""
    """Commit of the repository; empty for the latest."""

    family: str
    license: str
    gated: bool = False
    """Whether the download requires a Hugging Face token."""

    status: Literal["supported", "deprecated", "removed"] = "supported"
    """`deprecated` and `removed` presets cannot be run; they are listed for the error message."""

    aliases: tuple[str, ...] = ()
    """Other names, in lower case."""

    weights: Quantity = Field(default_factory=lambda: Quantity(0))
    """Size of the weight files that a server loads, without copies in other formats or folders."""

    parameters: float = 0.0
    """Number of parameters in units of 10^9, including all experts. The size of the weights is checked against it."""

    quantization: str = ""
    """Quantization method of the weights; empty for 16 bits."""

    architecture: Architecture | None = None
    kv_bytes_per_token: int = 0
    """Bytes of key-value cache per token if all layers cached the whole context; see `cache_bytes`."""

    context: int = 0
    """Maximum context length in tokens."""

    image_tag: str = ""
    """Tag of the artifact with the weights (`kaito-<name>`) that upstream Kaito publishes; empty for none."""

    vllm: Vllm | None = None
    transformers: Transformers | None = None
    tuning: Tuning | None = None
    requirement: Requirement | None = None

    is_in_catalog: bool = True
    """False for a model whose facts were read from its files."""

    float_type: str = ""
    """Number format of the weights if it is not bfloat16; for a model without quantization."""

    load_ratio: float = 1.0
    """Size of the loaded weights relative to their files: 0.5 if files with 32 bits are loaded at 16 bits."""

    measured: tuple[MeasuredMemory, ...] = Field(default=(), exclude=True)
    """What servers of this model measured; not part of the catalog."""

    @property
    def supported(self) -> bool:
        """Whether the preset can be run."""
        return self.status == "supported"

    @property
    def weights_bytes(self) -> int:
        """Size of the loaded weights in bytes."""
        return int(int(self.weights) * self.load_ratio)

    @property
    def state_bytes(self) -> int:
        """Bytes of recurrent state per request over all layers; 0 for a model without recurrent layers."""
        shape = self.architecture
        return shape.state_layers * shape.state_bytes_per_layer if shape else 0

    def cache_bytes(self, context: int) -> float:
        """Returns the bytes of key-value cache of one request over all layers, at 16 bits per number."""
        shape = self.architecture
        if shape is None or not (shape.full_layers or shape.window_layers):
            return float(context * self.kv_bytes_per_token)
        full_bytes = self.kv_bytes_per_token / shape.layers
        cached_tokens = min(context, shape.window + WINDOW_BATCH) if shape.window else 0
        windows = (shape.window_layers or shape.layers - shape.full_layers) * cached_tokens
        return full_bytes * shape.full_layers * context + (shape.window_layer_bytes or full_bytes) * windows

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the preset, in lower case."""
        return (self.name, self.repository.lower(), *self.aliases)

    @property
    def disk(self) -> Quantity:
        """Disk size of a node with one copy."""
        return self.disk_of(1)

    def disk_of(self, copies: int) -> Quantity:
        """Returns the disk size of a node: the weights of each copy on it, together in whole GiB, and headroom."""
        return Quantity.gib(int(copies * self.weights.value / Decimal(2**30)) + DISK_HEADROOM_GIB)

    @property
    def readiness_timeout(self) -> timedelta:
        """Time limit for loading the model."""
        gib = float(self.weights.value / Decimal(2**30))
        least, most = _READINESS_RANGE
        return min(max(_READINESS_BASE + gib * _READINESS_PER_GIB, least), most)

    @property
    def dtype(self) -> str:
        """Number format of the weights; with `auto` the server reads it from a quantized model's configuration."""
        return "auto" if self.quantization else self.float_type or "bfloat16"

    @property
    def upstream_artifact(self) -> str:
        """Reference of the OCI artifact with the weights that upstream Kaito publishes; empty for none."""
        return f"{UPSTREAM_REGISTRY}/kaito-{self.name}:{self.image_tag}" if self.image_tag else ""

    def artifact(self, registry: str) -> str:
        """Returns the reference of the OCI artifact with the weights in a registry of the user's.

        Outside the catalog it contains the organization, because several may have a model of that name.
        """
        name = self.name if self.is_in_catalog else self.repository.lower()
        return f"{registry}/{name}:{self.image_tag or 'latest'}"
