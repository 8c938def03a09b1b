"""Settings of the vLLM engine in a user's `inference_config.yaml` that change how much memory a model takes.

`EngineOptions` is the typed form of these keys of the file's `vllm` section. The preflight checks fill it,
`planning.plan_inference` sizes with it, `commands` writes the same values into the command line, so that plan and
engine agree. The transformers server does not read the section, so a plan for it ignores the options.
"""

import re
from dataclasses import dataclass
from typing import Final, final

from kaito.models.errors import InvalidEngineOption

CONFIG_FIELD: Final = "inference.config"

_COUNTS: Final = (
    "max_model_len",
    "max_num_seqs",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
)
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_]*")


def option_field(name: str) -> str:
    """Path of an engine option in error messages: `inference.config[vllm.max-model-len]`."""
    return f"{CONFIG_FIELD}[vllm.{name}]"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Engine options that the user set; None is the default of the plan or of the engine.

    Raises:
        InvalidEngineOption: a value is outside its range.
    """

    max_model_len: int | None = None
    """Tokens of prompt and answer together that one request may have. None: what fits in memory."""

    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that the engine may use: above 0, at most 1."""

    tensor_parallel_size: int | None = None
    """GPUs that share each layer."""

    pipeline_parallel_size: int | None = None
    """Groups of GPUs that each hold a part of the layers."""

    data_parallel_size: int | None = None
    """Copies of the model on one node."""

    max_num_seqs: int | None = None
    """Requests that are computed at the same time at most."""

    kv_cache_dtype: str | None = None
    """Number format of the key-value cache, for example `fp8`; None or `auto` is the model's own."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            self._require_positive(name)
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            message = f"is {share}: use a share of the GPU's memory above 0 and at most 1, for example 0.9"
            raise InvalidEngineOption(option_field("gpu-memory-utilization"), message)
        if self.kv_cache_dtype is not None and not _WORD.fullmatch(self.kv_cache_dtype):
            message = f"is {self.kv_cache_dtype!r}: use a number format that vLLM knows, for example auto or fp8"
            raise InvalidEngineOption(option_field("kv-cache-dtype"), message)

    def _require_positive(self, name: str) -> None:
        value: int | None = getattr(self, name)
        if value is not None and value < 1:
            message = f"is {value}: use a whole number of at least 1, or remove it"
            raise InvalidEngineOption(option_field(name.replace("_", "-")), message)

    @property
    def parallel(self) -> bool:
        """Whether the user set one of the three parallel sizes."""
        sizes = (self.tensor_parallel_size, self.pipeline_parallel_size, self.data_parallel_size)
        return any(size is not None for size in sizes)


def cache_scale(dtype: str | None) -> float:
    """Size of a number of the key-value cache in vLLM's format `dtype`, relative to 16 bits."""
    if not dtype or dtype == "auto":
        return 1.0
    return 0.5 if dtype.startswith(("fp8", "int8")) else 2.0 if dtype == "float32" else 1.0


NO_OPTIONS: Final = EngineOptions()
"""Nothing set."""
