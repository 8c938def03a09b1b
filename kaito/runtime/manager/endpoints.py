"""The manager's own HTTP endpoints: health probes on one port, metrics and debugging on another.

| port    | path                      | what                                                     |
|---------|---------------------------|----------------------------------------------------------|
| health  | `/healthz`, `/readyz`     | all checks; `/<name>`, `?verbose`, `?exclude=<name>`     |
| metrics | `/metrics`                | Prometheus text                                          |
| metrics | `/debug/tasks`            | every asyncio task and where it waits                    |
| metrics | `/debug/queues`           | every key in every queue, with its causes                |
| metrics | `/debug/cache`            | informers: objects, bytes, watch state, last error       |
| metrics | `/debug/memory`           | top allocations, when tracemalloc runs                   |
"""

import asyncio
import linecache
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kaito.runtime.health import Checks
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import WorkQueue

TOP_ALLOCATIONS = 40


def health_app(*groups: Checks) -> web.Application:
    """The probes."""
    app = web.Application()
    for checks in groups:
        app.router.add_get(f"/{checks.path}", _all_checks(checks))
        app.router.add_get(f"/{checks.path}/{{name}}", _one_check(checks))
    return app


def _all_checks(checks: Checks) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        report = checks.report(verbose="verbose" in request.query, exclude=request.query.getall("exclude", []))
        return web.Response(text=report.text, status=report.status)

    return handle


def _one_check(checks: Checks) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        report = checks.report_one(request.match_info["name"])
        if report is None:
            return web.Response(text="404 page not found\n", status=404)
        return web.Response(text=report.text, status=report.status)

    return handle


def metrics_app(
    metrics: Metrics,
    *,
    queues: Callable[[], Iterable[WorkQueue[Any]]],
    cache: Callable[[], Sequence[Any]],
    middlewares: Sequence[Any] = (),
) -> web.Application:
    """Metrics and debugging."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def tasks(_: web.Request) -> web.Response:
        return web.Response(text=describe_tasks())

    async def queue_dump(_: web.Request) -> web.Response:
        return _json({queue.name: [_row(row) for row in queue.dump()] for queue in queues()})

    async def cache_dump(_: web.Request) -> web.Response:
        return _json([asdict(row) for row in cache()])

    async def memory(_: web.Request) -> web.Response:
        return web.Response(text=describe_memory())

    app = web.Application(middlewares=list(middlewares))
    app.router.add_get("/metrics", exposition)
    app.router.add_get("/debug/tasks", tasks)
    app.router.add_get("/debug/queues", queue_dump)
    app.router.add_get("/debug/cache", cache_dump)
    app.router.add_get("/debug/memory", memory)
    return app


def _row(row: Any) -> dict[str, Any]:
    return asdict(row) | {"causes": [str(cause) for cause in row.causes], "seconds": round(row.seconds, 3)}


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.format(msgspec.json.encode(value)), content_type="application/json")


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
    """The largest allocations by line; says how to switch tracing on when it is off."""
    if not tracemalloc.is_tracing():
        return "tracemalloc is off: start the process with PYTHONTRACEMALLOC=5\n"
    statistics = tracemalloc.take_snapshot().statistics("lineno")[:TOP_ALLOCATIONS]
    current, peak = tracemalloc.get_traced_memory()
    head = f"traced {current / 2**20:.1f} MiB, peak {peak / 2**20:.1f} MiB"
    return "\n".join([head, *map(str, statistics)]) + "\n"
