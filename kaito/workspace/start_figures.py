"""Measurements that the servers report when they are ready, beside what was planned."""

from collections.abc import Iterator, Sequence
from typing import Final, final

from pydantic import BaseModel, ConfigDict, Field

from kaito.api.workspace import PerformanceMetric, PerformanceStatus
from kaito.models.memory import gpu_memory
from kaito.models.planning import InferencePlan
from kaito.workspace.plan import Plan

KV_CACHE: Final = "kvCacheTokens"
CONCURRENCY: Final = "maxConcurrency"
WEIGHTS: Final = "weights"
LOAD_TIME: Final = "loadTime"
PLANNED: Final = "planned"
"""Entry of `config` with the planned value of a measurement."""

_LARGEST: Final = 2**62
_GIB: Final = 2**30


@final
class StartFigures(BaseModel):
    """Field `figures` of the document that a ready server returns; 0 for what is unknown."""

    model_config = ConfigDict(frozen=True, strict=True)

    load_seconds: float = Field(alias="loadSeconds", ge=0, le=1e7)
    weights_bytes: int = Field(default=0, alias="weightsBytes", ge=0, le=_LARGEST)
    cache_tokens: int = Field(default=0, alias="cacheTokens", ge=0, le=_LARGEST)
    context_tokens: int = Field(default=0, alias="contextTokens", ge=0, le=_LARGEST)


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


def planned_cache_tokens(plan: Plan, *, adapters: int) -> int:
    """Returns the tokens that fit into the memory that the plan leaves for the key-value cache of a copy; 0 if unknown.

    vLLM uses all free memory for the cache. Layers with a window need less, so that the true number may be higher.
    """
    if not isinstance(plan.model, InferencePlan):
        return 0
    memory = gpu_memory(plan.model, adapters=adapters)
    if memory.cache <= 0 or plan.model.runtime != "vllm":
        return 0
    return max(0, round((memory.cache + memory.free) / memory.cache * memory.context))


def cache_tokens(status: PerformanceStatus | None) -> Iterator[tuple[str, int]]:
    """Returns the tokens of the key-value cache in a status, as `measured` and as `planned`, if they are known."""
    found = status.metrics.get(KV_CACHE) if status is not None else None
    if found is None:
        return
    for source, text in (("measured", found.value), ("planned", found.config.get(PLANNED, ""))):
        if text.isascii() and text.isdecimal() and len(text) < 20:
            yield source, int(text)


def performance(figures: Sequence[StartFigures], *, planned_tokens: int = 0) -> PerformanceStatus | None:
    """Returns what the status reports: of several pods the smallest cache, and the longest time to load.

    Args:
        figures: of each ready pod that reports some.
        planned_tokens: tokens of the key-value cache according to the plan; 0 if unknown.
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
            config={PLANNED: str(planned_tokens)} if planned_tokens else {},
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
