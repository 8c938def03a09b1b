"""What the catalog knows of one model: the typed form of an entry of `data/presets.yaml`."""

from datetime import timedelta
from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaito.runtime.meta import Quantity

Attention = Literal["MHA", "GQA", "MQA", "MLA"]
RuntimeName = Literal["transformers", "vllm"]
Flags = dict[str, str | bool]
"""Flags of a server without their dashes; True is a flag without a value."""

DISK_HEADROOM_GIB: Final = 80
"""Disk beside the weights: operating system, container images, logs (upstream Kaito v0.12: weights + 80 GiB)."""

WINDOW_BATCH: Final = 8192
"""Tokens that vLLM reserves beside the window of a layer with a sliding window: those of one step, the default of
`max_num_batched_tokens` in its server on large GPUs (`SlidingWindowSpec.max_memory_usage_bytes`)."""

_READINESS_BASE: Final = timedelta(minutes=15)
_READINESS_PER_GIB: Final = timedelta(seconds=18)
_READINESS_RANGE: Final = (timedelta(minutes=30), timedelta(minutes=180))
"""Upstream Kaito v0.12: 15 min + 18 s a GiB, at least 30 min, at most 3 h."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(_Entry):
    """Dimensions that memory and parallelism follow from."""

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
    """Layers whose cache grows with the whole context; 0 when all do."""

    window: int = 0
    """Tokens that the other layers cache (sliding window); 0 when they cache nothing for each token."""

    state_layers: int = 0
    """Hybrid models only: layers with a recurrent state instead of a cache (Mamba-2, gated delta net)."""

    state_bytes_per_layer: int = 0
    """Hybrid models only: bytes of that state for one request and one layer, convolution window included."""


class Transformers(_Entry):
    """How the transformers server runs the model."""

    flags: Flags = Field(default_factory=dict[str, str | bool])


class Vllm(_Entry):
    """How vLLM runs the model."""

    flags: Flags = Field(default_factory=dict[str, str | bool])
    host_cache: bool = True
    """Whether part of the key-value cache may live in host memory."""

    deep_gemm: bool = False
    """Whether it needs DeepGEMM kernels, compiled at start."""

    cuda_toolkit: bool = False
    """Whether compiling at start needs the CUDA toolkit in the container."""


class Tuning(_Entry):
    """What fine-tuning the model takes."""

    memory: Quantity
    """GPU memory that is comfortable for LoRA at 16 bits; QLoRA does with less."""

    disk: Quantity


class Requirement(_Entry):
    """GPU memory found by trying, instead of by the estimate (presets of upstream Kaito v0.3)."""

    gpus: int = 1
    memory: Quantity
    memory_per_gpu: Quantity = Field(default_factory=lambda: Quantity(0))
    """0 when layers may be spread over whatever GPUs there are."""


class Preset(_Entry):
    """One model of the catalog."""

    name: str
    """Short name, lower case; what users write."""

    repository: str
    """Hugging Face id, `org/model`."""

    revision: str = ""
    """Commit of the repository; empty is the newest."""

    family: str
    license: str
    gated: bool = False
    """Whether Hugging Face wants a token for it."""

    status: Literal["supported", "deprecated", "removed"] = "supported"
    """`deprecated` and `removed` presets are known by name only, to say so."""

    aliases: tuple[str, ...] = ()
    """Other names, lower case."""

    weights: Quantity = Field(default_factory=lambda: Quantity(0))
    """Size of the weights' files that a server loads: second copies in other formats or folders do not count."""

    parameters: float = 0.0
    """Number of parameters in units of 10^9, all experts included; what the size of the weights is checked against."""

    quantization: str = ""
    """Method the weights are quantised with; empty for 16 bits."""

    architecture: Architecture | None = None
    kv_bytes_per_token: int = 0
    """Key-value cache of one token if all layers cached it, in bytes; `cache_bytes` knows which do."""

    context: int = 0
    """Most tokens the model was trained for."""

    image_tag: str = ""
    """Tag of the image that holds the weights (`kaito-<name>`); empty when they are downloaded at start."""

    vllm: Vllm | None = None
    transformers: Transformers | None = None
    tuning: Tuning | None = None
    requirement: Requirement | None = None

    @property
    def supported(self) -> bool:
        """Whether it can be run."""
        return self.status == "supported"

    @property
    def weights_bytes(self) -> int:
        """Size of the weights' files in bytes."""
        return int(self.weights)

    @property
    def state_bytes(self) -> int:
        """Recurrent state of one request over all layers in bytes; 0 for a model without recurrent layers."""
        shape = self.architecture
        return shape.state_layers * shape.state_bytes_per_layer if shape else 0

    def cache_bytes(self, context: int) -> float:
        """Key-value cache of one request with that many tokens over all layers, in bytes at 16 bits a number."""
        shape = self.architecture
        if shape is None or not shape.full_layers:
            return float(context * self.kv_bytes_per_token)
        kept = min(context, shape.window + WINDOW_BATCH) if shape.window else 0
        others = (shape.layers - shape.full_layers) * kept
        return self.kv_bytes_per_token / shape.layers * (shape.full_layers * context + others)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, lower case."""
        return (self.name, self.repository.lower(), *self.aliases)

    @property
    def disk(self) -> Quantity:
        """Disk of a node that runs it: the weights in whole GiB and headroom."""
        return Quantity.gib(int(self.weights.value / Decimal(2**30)) + DISK_HEADROOM_GIB)

    @property
    def readiness_timeout(self) -> timedelta:
        """How long the server may take to load the model."""
        gib = float(self.weights.value / Decimal(2**30))
        least, most = _READINESS_RANGE
        return min(max(_READINESS_BASE + gib * _READINESS_PER_GIB, least), most)

    @property
    def dtype(self) -> str:
        """Number format of the weights; `auto` lets the server read a quantised model's configuration."""
        return "auto" if self.quantization else "bfloat16"

    def image(self, registry: str) -> str:
        """The image that holds the weights; empty when they are downloaded at start."""
        return f"{registry}/kaito-{self.name}:{self.image_tag}" if self.image_tag else ""
