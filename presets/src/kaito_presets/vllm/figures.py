"""Reads the measurements of a start from the output of vLLM, which reports them only there.

The lines are those of vLLM 0.25 to 0.32 (`vllm/v1/worker/gpu_model_runner.py`, `vllm/v1/worker/gpu_worker.py`,
`vllm/v1/core/kv_cache_utils.py`). Later versions write the size of the cache and the concurrency in one line. With
other lines the figures stay at 0: unknown.
"""

import re
import time
from typing import Final, final

from kaito_presets.serving.progress import StartFigures

_WEIGHTS: Final = re.compile(r"Model loading took ([0-9.]+) ?GiB")
_CACHE: Final = re.compile(r"KV cache size: ([0-9][0-9,]*) tokens")
_CONTEXT: Final = re.compile(r"Maximum concurrency for ([0-9][0-9,]*) tokens per request")
_CACHE_MEMORY: Final = re.compile(r"Available KV cache memory: ([0-9.]+) ?GiB")
_GIB: Final = 2**30


@final
class EngineFigures:
    """The measurements of one run of the engine, which begins when this object is made."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._weights_gib = 0.0
        self._cache_tokens = 0
        self._context_tokens = 0
        self._cache_gib: float | None = None

    def read(self, line: str) -> None:
        """Reads a line of the output: each GPU reports its part of the weights, the engine the whole cache.

        Some versions report the memory of the cache for each GPU, others for one; the smallest counts.
        """
        if found := _WEIGHTS.search(line):
            self._weights_gib += _number(found[1])
        if found := _CACHE.search(line):
            self._cache_tokens = round(_number(found[1]))
        if found := _CONTEXT.search(line):
            self._context_tokens = round(_number(found[1]))
        if found := _CACHE_MEMORY.search(line):
            size = _number(found[1])
            self._cache_gib = size if self._cache_gib is None else min(size, self._cache_gib)

    def complete(self) -> StartFigures:
        """Returns the measurements; called when the engine is ready."""
        return StartFigures(
            load_seconds=time.monotonic() - self._started,
            weights_bytes=round(self._weights_gib * _GIB),
            cache_tokens=self._cache_tokens,
            context_tokens=self._context_tokens,
            cache_bytes=round((self._cache_gib or 0.0) * _GIB),
        )


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0.0
