"""Engine settings of a user's `inference_config.yaml` that change how much memory a model needs.

`EngineSettings` is the typed form of these keys of the file's `vllm` section; the configuration schema that the program
in the pod uses defines it. The preflight checks read it from the file, `planning.plan_inference` sizes with it, and
`commands` writes the same values into the command line, so that plan and engine agree. The transformers server does not
read the section, so its plans ignore the settings.
"""

import re
from typing import Final

from kaito_config import EngineSettings

from kaito.models.errors import InvalidEngineOption

__all__ = [
    "CONFIG_FIELD",
    "DEFAULT_ENGINE",
    "EngineSettings",
    "cache_scale",
    "check_engine",
    "option_field",
    "sets_parallelism",
]

CONFIG_FIELD: Final = "inference.config"

DEFAULT_ENGINE: Final = EngineSettings()
"""Settings of a file that sets none of the keys."""

_COUNTS: Final = (
    "max_model_len",
    "max_num_seqs",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
)
_NUMBER_FORMAT: Final = re.compile(r"[a-z0-9][a-z0-9_]*")


def option_field(name: str) -> str:
    """Returns the path of an engine option in messages: `inference.config[vllm.max-model-len]`."""
    return f"{CONFIG_FIELD}[vllm.{name}]"


def check_engine(engine: EngineSettings) -> None:
    """Checks the range of each value.

    Raises:
        InvalidEngineOption: a value is outside its range.
    """
    for name in _COUNTS:
        value: int | None = getattr(engine, name)
        if value is not None and value < 1:
            message = f"is {value}: use a whole number of at least 1, or remove it"
            raise InvalidEngineOption(option_field(name.replace("_", "-")), message)
    share = engine.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        message = f"is {share}: use a share of the GPU's memory above 0 and at most 1, for example 0.9"
        raise InvalidEngineOption(option_field("gpu-memory-utilization"), message)
    if engine.kv_cache_dtype is not None and not _NUMBER_FORMAT.fullmatch(engine.kv_cache_dtype):
        message = f"is {engine.kv_cache_dtype!r}: use a number format that vLLM supports, for example auto or fp8"
        raise InvalidEngineOption(option_field("kv-cache-dtype"), message)


def sets_parallelism(engine: EngineSettings) -> bool:
    """Whether the user set one of the three parallel sizes."""
    sizes = (engine.tensor_parallel_size, engine.pipeline_parallel_size, engine.data_parallel_size)
    return any(size is not None for size in sizes)


def cache_scale(dtype: str | None) -> float:
    """Returns the size of a number of the key-value cache in vLLM's format `dtype`, relative to 16 bits."""
    if not dtype or dtype == "auto":
        return 1.0
    return 0.5 if dtype.startswith(("fp8", "int8")) else 2.0 if dtype == "float32" else 1.0
