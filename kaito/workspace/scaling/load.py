"""Reads the load of a model server from its Prometheus metrics, those of vLLM or of the transformers server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from kaito.workspace.server_metrics import RUNNING, WAITING, first_of, read_sums

_CACHE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_QUEUE_SUM: Final = "vllm:request_queue_time_seconds_sum"
_QUEUE_COUNT: Final = "vllm:request_queue_time_seconds_count"

_READ: Final = frozenset({*RUNNING, *WAITING, *_CACHE, _QUEUE_SUM, _QUEUE_COUNT})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """The load of one server at one time."""

    running: float
    """Requests that run."""
    waiting: float = 0.0
    """Requests that wait."""
    cache_usage: float | None = None
    """Used share of the key-value cache, 0 to 1; None if the server does not report it."""
    queue_seconds_total: float | None = None
    """Time that all requests since the start of the server have waited; None if the server does not report it."""
    queued_total: float = 0.0
    """Number of these requests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The load of all copies together at one time."""

    at: datetime
    copies: int
    """Ready copies."""
    reported: int
    """Copies whose load is known."""
    requests: float
    """Requests that run or wait in the copies that reported."""
    queue_seconds: float | None = None
    """Mean time that requests waited since the last observation; None if unknown."""
    cache_usage: float | None = None
    """Mean used share of the key-value caches; None if unknown."""

    @property
    def is_complete(self) -> bool:
        """Whether every ready copy has reported."""
        return self.copies > 0 and self.reported == self.copies


def parse_load(body: bytes | None) -> ServerLoad | None:
    """Returns the load in the metrics of a server; None if they are missing or lack the number of requests."""
    if body is None:
        return None
    found = read_sums(body, _READ)
    running = first_of(found, RUNNING) if found is not None else None
    if found is None or running is None:
        return None
    return ServerLoad(
        running=running,
        waiting=first_of(found, WAITING) or 0.0,
        cache_usage=first_of(found, _CACHE),
        queue_seconds_total=found.get(_QUEUE_SUM),
        queued_total=found.get(_QUEUE_COUNT, 0.0),
    )


def observe(at: datetime, copies: int, now: Mapping[str, ServerLoad], before: Mapping[str, ServerLoad]) -> Observation:
    """Returns the load of all copies together.

    Args:
        at: the current time.
        copies: the number of ready copies.
        now: the load of the copies that reported, by UID of the pod.
        before: their load at the last observation.
    """
    usages = [load.cache_usage for load in now.values() if load.cache_usage is not None]
    return Observation(
        at=at,
        copies=copies,
        reported=len(now),
        requests=sum(load.running + load.waiting for load in now.values()),
        queue_seconds=_queue_seconds(now, before),
        cache_usage=sum(usages) / len(usages) if usages else None,
    )


def _queue_seconds(now: Mapping[str, ServerLoad], before: Mapping[str, ServerLoad]) -> float | None:
    """Returns the mean time in the queue of the requests that began since the last observation.

    0 without such a request; None if no server reports it. A server that restarted counts from zero again.
    """
    seconds = requests = 0.0
    is_known = False
    for uid, load in now.items():
        if load.queue_seconds_total is None:
            continue
        is_known = True
        last = before.get(uid)
        if last is None or last.queue_seconds_total is None or load.queued_total < last.queued_total:
            continue
        seconds += load.queue_seconds_total - last.queue_seconds_total
        requests += load.queued_total - last.queued_total
    if not is_known:
        return None
    return max(seconds, 0.0) / requests if requests else 0.0
