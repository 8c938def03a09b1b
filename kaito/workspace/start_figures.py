"""Measurements that the servers report when they are ready, beside what was planned."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from pydantic import BaseModel, ConfigDict, Field

from kaito.api.workspace import PerformanceMetric, PerformanceStatus
from kaito.models.memory import gpu_memory
from kaito.models.planning import InferencePlan
from kaito.workspace.plan import Plan

KV_CACHE: Final = "kvCacheTokens"
CONCURRENCY: Final = "maxConcurrency"
WEIGHTS: Final = "weights"
PEAK_MEMORY: Final = "peakMemory"
LOAD_TIME: Final = "loadTime"
PLANNED: Final = "planned"
"""Entry of `config` with the planned value of a measurement."""

_LARGEST: Final = 2**62
_GIB: Final = 2**30
_NUMBER: Final = re.compile(r"[0-9]{1,19}(\.[0-9]{1,6})?", re.ASCII)


@final
class StartFigures(BaseModel):
    """Field `figures` of the document that a ready server returns; 0 for what is unknown."""

    model_config = ConfigDict(frozen=True, strict=True)

    load_seconds: float = Field(alias="loadSeconds", ge=0, le=1e7)
    weights_bytes: int = Field(default=0, alias="weightsBytes", ge=0, le=_LARGEST)
    cache_tokens: int = Field(default=0, alias="cacheTokens", ge=0, le=_LARGEST)
    context_tokens: int = Field(default=0, alias="contextTokens", ge=0, le=_LARGEST)
    cache_bytes: int = Field(default=0, alias="cacheBytes", ge=0, le=_LARGEST)
    peak_bytes: int = Field(default=0, alias="peakBytes", ge=0, le=_LARGEST)


@final
class _ReadyDocument(BaseModel):
    figures: StartFigures


def parse_figures(body: bytes | None) -> StartFigures | None:
    """Returns the figures in a response; None if it is missing, malformed, or has none."""
    if body is None:
        return None
    try:
        return _ReadyDocument.model_validate_json(body).figures
    except ValueError:
        return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFigures:
    """What the plan contains for the measurements; 0 for what is unknown."""

    cache_tokens: int = 0
    """Tokens that fit into the memory that the plan leaves for the key-value cache of a copy.

    vLLM uses all free memory for the cache. Layers with a window need less, so that the true number may be higher."""
    peak_bytes: float = 0.0
    """Memory of a GPU beside the key-value cache."""
    usable_bytes: float = 0.0
    """Memory of a GPU that the engine may use; 0 for other engines than vLLM."""


UNPLANNED: Final = PlannedFigures()


def planned_figures(plan: Plan | None, *, adapters: int) -> PlannedFigures:
    """Returns what the plan contains for the measurements."""
    if plan is None or not isinstance(plan.model, InferencePlan):
        return UNPLANNED
    memory = gpu_memory(plan.model, adapters=adapters)
    peak = memory.needed - memory.cache
    if plan.model.runtime != "vllm":
        return PlannedFigures(peak_bytes=peak)
    tokens = round((memory.cache + memory.free) / memory.cache * memory.context) if memory.cache > 0 else 0
    return PlannedFigures(cache_tokens=max(0, tokens), peak_bytes=peak, usable_bytes=memory.usable)


def cache_tokens(status: PerformanceStatus | None) -> Iterator[tuple[str, int]]:
    """Returns the tokens of the key-value cache in a status, as `measured` and as `planned`, if they are known."""
    for source, value in _values(status, KV_CACHE):
        yield source, int(value)


def peak_bytes(status: PerformanceStatus | None) -> Iterator[tuple[str, int]]:
    """Returns the memory of a GPU beside the key-value cache in a status, as `measured` and as `planned`."""
    for source, value in _values(status, PEAK_MEMORY):
        yield source, round(value * _GIB)


def _values(status: PerformanceStatus | None, name: str) -> Iterator[tuple[str, float]]:
    found = status.metrics.get(name) if status is not None else None
    if found is None:
        return
    for source, text in (("measured", found.value), ("planned", found.config.get(PLANNED, ""))):
        if _NUMBER.fullmatch(text):
            yield source, float(text)


def measured_peak(figures: Sequence[StartFigures], usable: float) -> float:
    """Returns the bytes beside the key-value cache on the GPU that used most; 0 if they are unknown.

    vLLM reports what it left for the cache; the rest of what it may use is its peak.

    Args:
        figures: of at least one pod.
        usable: bytes of a GPU that the engine may use; 0 for other engines than vLLM.
    """
    left = min((each.cache_bytes for each in figures if each.cache_bytes), default=0)
    return max(usable - left, 0.0) if left and usable else max(each.peak_bytes for each in figures)


def performance(figures: Sequence[StartFigures], planned: PlannedFigures = UNPLANNED) -> PerformanceStatus | None:
    """Returns what the status reports: of several pods the smallest cache, and the longest time to load.

    Args:
        figures: of each ready pod that reports some.
        planned: what the plan contains for the measurements.
    """
    if not figures:
        return None
    cache = min((each.cache_tokens for each in figures if each.cache_tokens), default=0)
    context = max(each.context_tokens for each in figures)
    weights = max(each.weights_bytes for each in figures)
    seconds = max(each.load_seconds for each in figures)
    found = {
        LOAD_TIME: PerformanceMetric(
            description="Time in which the server loaded the model, in the slowest pod.",
            value=f"{seconds:.1f}",
            unit="seconds",
        )
    }
    if cache:
        found[KV_CACHE] = PerformanceMetric(
            description="Tokens of all requests of a copy together that fit into its key-value cache.",
            value=str(cache),
            unit="tokens",
            config={PLANNED: str(planned.cache_tokens)} if planned.cache_tokens else {},
        )
    peak = measured_peak(figures, planned.usable_bytes)
    if peak:
        found[PEAK_MEMORY] = PerformanceMetric(
            description="Most memory that was used on a GPU at the start, without the key-value cache.",
            value=f"{peak / _GIB:.2f}",
            unit="GiB",
            config={PLANNED: f"{planned.peak_bytes / _GIB:.2f}"} if planned.peak_bytes else {},
        )
    if cache and context:
        found[CONCURRENCY] = PerformanceMetric(
            description="Requests of the longest context that a copy computes at the same time.",
            value=f"{cache / context:.2f}",
            unit="requests",
            config={"contextTokens": str(context)},
        )
    if weights:
        found[WEIGHTS] = PerformanceMetric(
            description="Memory of the weights on a node.", value=f"{weights / _GIB:.2f}", unit="GiB"
        )
    return PerformanceStatus(metrics=found)
