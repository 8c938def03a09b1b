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
import inspect
import linecache
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, final

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kaito.runtime.cache import Cache
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import FailureRow
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.health import Checks
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import QueueRow, WorkQueue

TOP_ALLOCATIONS = 40

MAX_TRACE_SECONDS = 300.0
"""Maximum duration of a trace of allocations, which slows the process down."""

TRACE_FRAMES = 5
"""Frames recorded for each allocation."""

HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""A handler of aiohttp."""

Port = Literal["metrics", "health"]

_RESERVED = {"metrics": ("/metrics", "/debug"), "health": ("/healthz", "/readyz")}
"""Reserved paths of each port, with all paths below them."""


@final
class Routes:
    """Paths of the program on the manager's ports."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[Port, str], HttpHandler] = {}
        self._sealed = False

    def add(self, path: str, handler: HttpHandler, port: Port) -> None:
        """Adds a path, for all HTTP methods.

        Raises:
            ConfigurationError: the path is taken or malformed, the handler is not an async function, the port does not
                exist, or the servers have started.
        """
        reserved = _RESERVED.get(port)
        if reserved is None:
            message = f"serve({path!r}): on={port!r} is neither 'metrics' nor 'health'"
        elif self._sealed:
            message = f"serve({path!r}): the manager has started; add handlers before"
        elif not path.startswith("/") or path == "/" * len(path) or "?" in path:
            message = f"serve({path!r}): a path begins with a slash and has a name, for example '/plan'"
        elif any(path == taken or path.startswith(f"{taken}/") for taken in reserved):
            message = f"serve({path!r}): the path is the manager's own; choose another"
        elif (port, path) in self._handlers:
            message = f"serve({path!r}): something is served there already"
        elif not _is_async(handler):
            message = f"serve({path!r}): {handler!r} is not an async function of aiohttp's request"
        else:
            self._handlers[port, path] = handler
            return
        raise ConfigurationError(message)

    def seal(self) -> None:
        """Rejects further paths; called when the servers start."""
        self._sealed = True

    def install(self, app: web.Application, port: Port) -> web.Application:
        """Adds the port's handlers to its application."""
        for (on, path), handler in self._handlers.items():
            if on == port:
                app.router.add_route("*", path, handler)
        return app


def _is_async(handler: object) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - objects with async call


def health_app(*groups: Checks) -> web.Application:
    """The application of the probes."""
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
    debug: "Debugging | None",
    middlewares: Sequence[Any] = (),
) -> web.Application:
    """The application of the metrics, with the debugging endpoints if they are given."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application(middlewares=list(middlewares))
    app.router.add_get("/metrics", exposition)
    if debug is not None:
        app.router.add_get("/debug/tasks", debug.tasks)
        app.router.add_get("/debug/queues", debug.queues)
        app.router.add_get("/debug/failures", debug.failures)
        app.router.add_get("/debug/cache", debug.cache)
        app.router.add_get("/debug/memory", debug.memory)
    return app


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

    async def tasks(self, _: web.Request) -> web.Response:
        """Lists every task and its stack."""
        return web.Response(text=describe_tasks())

    async def queues(self, _: web.Request) -> web.Response:
        """Dumps every queue."""
        return _json({queue.name: [_row(row) for row in queue.dump()] for queue in self._queues()})

    async def failures(self, _: web.Request) -> web.Response:
        """Lists the keys that fail."""
        return _json({name: [asdict(row) for row in rows] for name, rows in self._failures().items()})

    async def cache(self, _: web.Request) -> web.Response:
        """Lists the informers."""
        return _json(
            [
                asdict(row) | ({"cluster": cluster} if cluster else {})
                for cluster, cache in self._caches().items()
                for row in cache.health()
            ]
        )

    async def memory(self, request: web.Request) -> web.Response:
        """Lists allocations: all since tracing began, or those of the next seconds."""
        text = request.query.get("seconds", "")
        if not text:
            return web.Response(text=describe_memory())
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= MAX_TRACE_SECONDS:
            message = f"seconds={text}: must be a number up to {MAX_TRACE_SECONDS:g}\n"
            return web.Response(status=400, text=message)
        if self._tracing:
            return web.Response(status=409, text="another trace is running; try again later\n")
        self._tracing = True
        try:
            return web.Response(text=await describe_growth(seconds))
        finally:
            self._tracing = False


def _row(row: QueueRow) -> dict[str, Any]:
    now = monotonic()
    causes = [f"{cause}, {now - cause.at:.1f} s ago" for cause in row.causes]
    return asdict(row) | {"causes": causes, "seconds": round(row.seconds, 3)}


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
