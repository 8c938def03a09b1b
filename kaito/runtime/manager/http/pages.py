"""The manager's HTTP endpoints: health probes on one port, metrics and debugging on another.

| port    | path                      | content                                                  |
|---------|---------------------------|----------------------------------------------------------|
| health  | `/healthz`, `/readyz`     | all checks; `/<name>`, `?verbose`, `?exclude=<name>`     |
| metrics | `/metrics`                | Prometheus text                                          |
| either  | paths of the program      | see `Manager.serve`                                      |
| metrics | `/debug/tasks`            | every asyncio task and where it waits                    |
| metrics | `/debug/queues`           | every key in every queue, with its causes                |
| metrics | `/debug/failures`         | keys that fail: since when, attempts, last error         |
| metrics | `/debug/cache`            | informers: objects, bytes, watch state, last error       |
| metrics | `/debug/memory`           | top allocations; `?seconds=30` for those of the next 30 s|

The last five need the setting `debug_endpoints`: they contain names of objects and lines of source code.
"""

import asyncio
import linecache
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, final

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kaito.runtime.cache import Cache
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import FailureRow
from kaito.runtime.health import Checks
from kaito.runtime.http_server import Handler, HttpRequest, HttpResponse, Page, Pages
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import QueueRow, WorkQueue

TOP_ALLOCATIONS = 40

MAX_TRACE_SECONDS = 300.0
"""Maximum duration of a trace of allocations, which slows the process down."""

TRACE_FRAMES = 5
"""Frames recorded for each allocation."""


def health_pages(*groups: Checks) -> Pages:
    """The pages of the probes."""
    pages: dict[str, Page] = {}
    for checks in groups:
        pages[f"/{checks.path}"] = Page(_all_checks(checks))
        pages[f"/{checks.path}/"] = Page(_one_check(checks))
    return pages


def _all_checks(checks: Checks) -> Handler:
    async def handle(request: HttpRequest) -> HttpResponse:
        report = checks.report(verbose="verbose" in request.query, exclude=request.query.get("exclude", []))
        return HttpResponse.of_text(report.text, report.status)

    return handle


def _one_check(checks: Checks) -> Handler:
    async def handle(request: HttpRequest) -> HttpResponse:
        report = checks.report_one(request.path.rpartition("/")[2])
        if report is None:
            return HttpResponse.of_text("404 page not found\n", 404)
        return HttpResponse.of_text(report.text, report.status)

    return handle


def metrics_pages(metrics: Metrics, *, debug: "Debugging | None") -> Pages:
    """The pages of the metrics port, with the debugging endpoints if they are given."""

    async def exposition(_: HttpRequest) -> HttpResponse:
        return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)

    pages = {"/metrics": Page(exposition)}
    if debug is not None:
        pages |= {
            "/debug/tasks": Page(debug.tasks),
            "/debug/queues": Page(debug.queues),
            "/debug/failures": Page(debug.failures),
            "/debug/cache": Page(debug.cache),
            "/debug/memory": Page(debug.memory),
        }
    return pages


@final
class Debugging:
    """The debugging endpoints.

    Args:
        queues: the controllers' queues.
        caches: by name of their cluster.
        failures: the failing keys by controller.
    """

    def __init__(
        self,
        queues: Callable[[], Iterable[WorkQueue[Any]]],
        caches: Callable[[], Mapping[str, Cache]],
        failures: Callable[[], Mapping[str, Sequence[FailureRow]]],
    ) -> None:
        self._failures = failures
        self._queues = queues
        self._caches = caches
        self._tracing = False

    async def tasks(self, _: HttpRequest) -> HttpResponse:
        """Lists every task and its stack."""
        return HttpResponse.of_text(describe_tasks())

    async def queues(self, _: HttpRequest) -> HttpResponse:
        """Dumps every queue."""
        return _json({queue.name: [_row(row) for row in queue.dump()] for queue in self._queues()})

    async def failures(self, _: HttpRequest) -> HttpResponse:
        """Lists the keys that fail."""
        return _json({name: [asdict(row) for row in rows] for name, rows in self._failures().items()})

    async def cache(self, _: HttpRequest) -> HttpResponse:
        """Lists the informers."""
        return _json(
            [
                asdict(row) | ({"cluster": cluster} if cluster else {})
                for cluster, cache in self._caches().items()
                for row in cache.health()
            ]
        )

    async def memory(self, request: HttpRequest) -> HttpResponse:
        """Lists allocations: all since tracing began, or those of the next seconds."""
        text = request.parameter("seconds")
        if not text:
            return HttpResponse.of_text(describe_memory())
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= MAX_TRACE_SECONDS:
            message = f"seconds={text}: must be a number up to {MAX_TRACE_SECONDS:g}\n"
            return HttpResponse.of_text(message, 400)
        if self._tracing:
            return HttpResponse.of_text("another trace is running; try again later\n", 409)
        self._tracing = True
        try:
            return HttpResponse.of_text(await describe_growth(seconds))
        finally:
            self._tracing = False


def _row(row: QueueRow) -> dict[str, Any]:
    now = monotonic()
    causes = [f"{cause}, {now - cause.at:.1f} s ago" for cause in row.causes]
    return asdict(row) | {"causes": causes, "seconds": round(row.seconds, 3)}


def _json(value: object) -> HttpResponse:
    return HttpResponse(msgspec.json.format(msgspec.json.encode(value)), content_type="application/json")


def describe_tasks() -> str:
    """Every task of the running loop with its stack, innermost frame last."""
    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        lines.append(f"{task.get_name()}")
        for frame in reversed(task.get_stack()):
            code = frame.f_code
            source = linecache.getline(code.co_filename, frame.f_lineno).strip()
            lines.append(f"    {code.co_filename}:{frame.f_lineno} {code.co_qualname}: {source}")
    return "\n".join(lines) + "\n"


def describe_memory() -> str:
    """The largest allocations by line, or how to enable tracing."""
    if not tracemalloc.is_tracing():
        return "tracemalloc is off: add ?seconds=30, or start the process with PYTHONTRACEMALLOC=5\n"
    statistics = tracemalloc.take_snapshot().statistics("lineno")[:TOP_ALLOCATIONS]
    current, peak = tracemalloc.get_traced_memory()
    summary = f"traced {current / 2**20:.1f} MiB, peak {peak / 2**20:.1f} MiB"
    return "\n".join([summary, *map(str, statistics)]) + "\n"


async def describe_growth(seconds: float) -> str:
    """Traces allocations for some seconds and lists those that are still in memory, by line."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(TRACE_FRAMES)
    try:
        before = tracemalloc.take_snapshot()
        await asyncio.sleep(seconds)
        grown = tracemalloc.take_snapshot().compare_to(before, "lineno")[:TOP_ALLOCATIONS]
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return "\n".join([f"in memory now and not {seconds:g} s ago:", *map(str, grown)]) + "\n"
