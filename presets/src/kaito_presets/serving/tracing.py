"""Spans of the programs in the pods: phases of the start, phases of tuning, requests. Exported by OTLP over HTTP.

The controller sets the address of the collector (`OTEL_EXPORTER_OTLP_ENDPOINT`) and the context of the Workspace
(`TRACEPARENT`); the other `OTEL_*` variables are OpenTelemetry's. Without an address nothing is imported or recorded. A
thread of the library sends the spans, so that a collector that does not answer delays neither a start nor a request.
"""

import logging
import os
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, final

from aiohttp import web
from aiohttp.typedefs import Middleware

from kaito_presets import __version__
from kaito_presets.serving.http_errors import Handler

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

TRACEPARENT: Final = "traceparent"
"""Header with a trace context (W3C Trace Context)."""

CONTEXT_VARIABLE: Final = "TRACEPARENT"
"""Environment variable with the context of the Workspace."""

FLUSH_SECONDS: Final = 2.0
"""Time at the end of the process in which the last spans are sent."""

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

Attributes = Mapping[str, str | int | float | bool]
NO_ATTRIBUTES: Final[Attributes] = {}


def traces_endpoint(environ: Mapping[str, str]) -> str:
    """Returns the URL to which spans are sent; empty if tracing is not configured, or disabled."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    if given := environ.get(_TRACES_ENDPOINT, "").strip():
        return given
    base = environ.get(_ENDPOINT, "").strip()
    return f"{base.rstrip('/')}/v1/traces" if base else ""


def resource_attributes(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the attributes of the process; without `service.name` if the environment has one."""
    attributes = {"service.version": __version__, "k8s.pod.name": environ.get("HOSTNAME", "")}
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return attributes if named else attributes | {"service.name": service}


def start_tracing(service: str, environ: Mapping[str, str] = os.environ) -> "Tracing":
    """Returns the tracing of the process as the environment configures it.

    Args:
        service: `service.name`, unless the environment has one.
        environ: the environment.
    """
    if not traces_endpoint(environ):
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("spans are not exported: opentelemetry-exporter-otlp-proto-http is not installed")
        return Tracing()
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    resource = Resource.create(resource_attributes(service, environ))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, environ.get(CONTEXT_VARIABLE, ""))


_current: ContextVar[str] = ContextVar("traceparent", default="")


def current_headers() -> dict[str, str]:
    """Returns the header for a request to another server within the request that is being answered."""
    traceparent = _current.get()
    return {TRACEPARENT: traceparent} if traceparent else {}


@final
class Tracing:
    """Records spans, or nothing.

    Args:
        provider: makes and exports the spans; None to record nothing.
        workspace: `traceparent` of the Workspace, the parent of the phases; empty if it is not known.
    """

    def __init__(self, provider: "TracerProvider | None" = None, workspace: str = "") -> None:
        self._provider = provider
        self._workspace = workspace

    @property
    def is_on(self) -> bool:
        """Whether spans are recorded."""
        return self._provider is not None

    def record_phases(self, name: str, moments: Mapping[str, int]) -> None:
        """Records phases of which the last one ends now, as one span with a child for each.

        Args:
            name: of the span around them.
            moments: when each phase began (`time.time_ns`), in their order.
        """
        if self._provider is None or not moments:
            return
        from opentelemetry import trace

        tracer = self._provider.get_tracer(__name__)
        starts, end = list(moments.values()), time.time_ns()
        around = tracer.start_span(name, context=_context(self._workspace), start_time=starts[0])
        inner = trace.set_span_in_context(around)
        for phase, start, stop in zip(moments, starts, [*starts[1:], end], strict=True):
            span = tracer.start_span(phase, context=inner, start_time=start)
            span.end(end_time=stop)
        around.end(end_time=end)

    @contextmanager
    def request(self, name: str, parent: str, attributes: Attributes = NO_ATTRIBUTES) -> "Generator[RequestSpan]":
        """Records a request that this process answers inside the block.

        Args:
            name: method and route.
            parent: the client's `traceparent`; empty for a new trace.
            attributes: of the span.
        """
        if self._provider is None:
            yield RequestSpan()
            return
        from opentelemetry import trace

        tracer = self._provider.get_tracer(__name__)
        context = _context(parent)
        kind = trace.SpanKind.SERVER
        with tracer.start_as_current_span(name, context=context, kind=kind, attributes=attributes) as span:
            yield RequestSpan(span)

    def middleware(self) -> Middleware:
        """Returns a middleware that records POST requests, with a span as long as the response is being written."""

        @web.middleware
        async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._provider is None or request.method != "POST":
                return await handler(request)
            resource = request.match_info.route.resource
            # A proxy has one route for all paths of its engine.
            route = resource.canonical if resource is not None and "{" not in resource.canonical else request.path
            attributes = {"http.request.method": request.method, "http.route": route, "url.path": request.path}
            parent = request.headers.get(TRACEPARENT, "")
            with self.request(f"{request.method} {route}", parent, attributes) as span:
                _current.set(span.traceparent)
                response = await handler(request)
                span.set_status(response.status)
                return response

        return trace

    def close(self) -> None:
        """Sends the spans that are left, for at most `FLUSH_SECONDS`."""
        if self._provider is None:
            return
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-shutdown", daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)


@final
class RequestSpan:
    """The span of a request, or nothing."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """The context for requests to other servers; empty if nothing is recorded."""
        if self._span is None:
            return ""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set_status(self, status: int) -> None:
        """Sets the status of the response."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


@final
class Phases:
    """Moments at which phases began, in their order."""

    def __init__(self, first: str = "") -> None:
        self.moments: dict[str, int] = {}
        if first:
            self.begin(first)

    def begin(self, name: str) -> None:
        """Begins a phase, and ends the one before; a phase that has begun already goes on."""
        self.moments.setdefault(name, time.time_ns())


def _context(traceparent: str) -> Any:
    """Returns the context of a header; an empty one, for a new trace, if it is not valid."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}, Context())
