"""HTTP server: routes, and the life cycle Loading → Healthy → Draining.

`main` builds the application around a `Lifecycle`; tests use it with a fake model. Guarantees:

* The port is open before the model is loaded, and health is 503 until then, so that a startup probe distinguishes a
  slow start from a dead process.
* Health is 200 only after the model has generated a token.
* After `Lifecycle.drain`, no generation starts; running ones finish, or are canceled at the deadline.
"""

import asyncio
import logging
import time
from typing import Final, final

from aiohttp import web
from aiohttp.typedefs import Middleware

from kaito_presets import __version__
from kaito_presets.inference import auxiliary_routes, chat, openai_routes
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.openapi import openapi_document
from kaito_presets.inference.service import GenerationService
from kaito_presets.serving.adapter_sync import AdapterSync, adapters_document
from kaito_presets.serving.chat import ChatRequest
from kaito_presets.serving.health import PROMETHEUS_CONTENT_TYPE, ROOT_RESPONSE, ServerState, require_healthy
from kaito_presets.serving.http_errors import Handler, errors_as_json, read_body
from kaito_presets.serving.progress import StartProgress
from kaito_presets.serving.tracing import Tracing

log = logging.getLogger(__name__)

DRAIN_POLL_SECONDS: Final = 0.02


@final
class Lifecycle:
    """State of the server, and the service once the model is loaded."""

    def __init__(self, name: str, progress: StartProgress | None = None, adapters: AdapterSync | None = None) -> None:
        self.name = name
        self.adapters = adapters
        """The list of adapters that the server follows; None if its adapters do not change."""
        self.state: ServerState = "Loading"
        self.progress = progress or StartProgress()
        self._service: GenerationService | None = None

    @property
    def service(self) -> GenerationService:
        """The service of the loaded model.

        Raises:
            Unavailable: the model is loading, or the server is draining.
        """
        require_healthy(self.state)
        if self._service is None:
            raise RuntimeError("the state is Healthy before the model is loaded")
        return self._service

    @property
    def is_broken(self) -> bool:
        """Whether the model failed and could not be reset, so that the process has to be restarted."""
        return self.state == "Healthy" and self._service is not None and self._service.scheduler.is_broken

    def set_ready(self, service: GenerationService) -> None:
        """Sets the service of the loaded model; the state becomes Healthy unless the server is draining."""
        self._service = service
        if self.state == "Loading":
            self.state = "Healthy"

    async def drain(self, seconds: float) -> bool:
        """Rejects new generations and waits for running ones; returns whether all of them finished in time."""
        self.state = "Draining"
        service = self._service
        if service is None:
            return True
        service.scheduler.close()
        deadline = time.monotonic() + seconds
        # The scheduler's thread has no event for this. It happens once per process, so polling is good enough.
        while service.scheduler.is_busy and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        finished = not service.scheduler.is_busy
        if not finished:
            log.warning("drain deadline of %.0f s exceeded: running requests are canceled", seconds)
        await asyncio.to_thread(service.scheduler.stop)
        service.close()
        return finished


def application(
    lifecycle: Lifecycle,
    metrics: Metrics,
    *,
    conversational: bool = False,
    max_request_bytes: int = 4 * 2**20,
    tracing: Tracing | None = None,
) -> web.Application:
    """Builds the application with all routes."""
    traced = [tracing.middleware()] if tracing is not None and tracing.is_on else []
    app = web.Application(middlewares=[*traced, _measuring(metrics), errors_as_json], client_max_size=max_request_bytes)

    async def root(_: web.Request) -> web.Response:
        return web.json_response(ROOT_RESPONSE)

    async def health(_: web.Request) -> web.Response:
        status = "Unhealthy" if lifecycle.is_broken else lifecycle.state
        return web.json_response({"status": status}, status=200 if status == "Healthy" else 503)

    async def progress(_: web.Request) -> web.Response:
        return web.json_response(lifecycle.progress.document(lifecycle.state))

    async def adapters(_: web.Request) -> web.Response:
        return web.json_response(adapters_document(lifecycle.adapters))

    async def version(_: web.Request) -> web.Response:
        document = {"version": __version__, "engine": "transformers", "engine_version": "", "model": lifecycle.name}
        if lifecycle.state == "Healthy":
            info = lifecycle.service.info
            document |= {"engine": info.engine, "engine_version": info.engine_version}
        return web.json_response(document)

    async def metrics_page(request: web.Request) -> web.Response:
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(metrics.json())
        return web.Response(body=metrics.prometheus(), headers={"Content-Type": PROMETHEUS_CONTENT_TYPE})

    async def chat_route(request: web.Request) -> web.Response:
        service = lifecycle.service
        body = await read_body(request, ChatRequest)
        response = await chat.answer(body, service, conversational=conversational)
        return web.json_response(response.model_dump())

    app.add_routes(
        [
            web.get("/", root),
            web.get("/health", health),
            web.get("/healthz", health),
            web.get("/progress", progress),
            web.get("/adapters", adapters),
            web.get("/version", version),
            web.get("/ping", health),
            web.post("/ping", health),
            web.get("/metrics", metrics_page),
            web.post("/chat", chat_route),
            *openai_routes.routes(lambda: lifecycle.service),
            *auxiliary_routes.routes(lambda: lifecycle.service),
            *_description_routes(app, metrics),
        ]
    )
    return app


def _description_routes(app: web.Application, metrics: Metrics) -> list[web.RouteDef]:
    async def load(_: web.Request) -> web.Response:
        return web.json_response({"server_load": metrics.open_sequences})

    async def openapi(_: web.Request) -> web.Response:
        served: dict[str, list[str]] = {}
        for route in app.router.routes():
            if route.resource is not None and route.method != "HEAD":
                served.setdefault(route.resource.canonical, []).append(route.method)
        return web.json_response(openapi_document(__version__, served))

    return [web.get("/load", load), web.get("/openapi.json", openapi)]


def _measuring(metrics: Metrics) -> Middleware:
    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        code = "499"  # nginx's status for a request whose client has disconnected
        try:
            response = await handler(request)
            code = str(response.status)
            return response
        finally:
            metrics.requests.labels(route, code).inc()
            metrics.duration.labels(route).observe(time.monotonic() - started)

    return measure
