"""Records spans with OpenTelemetry and exports them by OTLP over HTTP (extra `kaito-runtime[tracing]`).

Only `configured_tracer` imports the library, and only if an endpoint is configured. Spans are sent in batches by a
thread of OpenTelemetry's `BatchSpanProcessor`: ending a span only appends it to a queue of limited length. While the
collector does not answer, spans are dropped; no reconcile waits for it.
"""

import logging
import threading
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.tracing.spans import NO_SPAN, NO_TRACER, Attribute, Span, SpanKind, Tracer, is_traceparent

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

INSTALL_HINT: Final = "install the extra: pip install 'kaito-runtime[tracing]'"

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Standard variables that name a collector."""

FLUSH_SECONDS: Final = 2.0
"""Time at the end of the process in which the last spans are sent; they are dropped afterwards."""

_NANOSECONDS: Final = 1_000_000_000


def is_configured(endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether spans are exported: an endpoint is given, or one of `ENDPOINT_VARIABLES`, and nothing disables it."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return bool(endpoint or any(environ.get(name, "").strip() for name in ENDPOINT_VARIABLES))


@contextmanager
def configured_tracer(
    service: str, endpoint: str, environ: Mapping[str, str], *, annotation: str = "", version: str = ""
) -> Generator[Tracer]:
    """Gives a tracer that exports spans while the body runs; `NO_TRACER` if no endpoint is configured.

    OpenTelemetry's `OTEL_*` environment variables determine everything else: headers, certificates, sampling, limits.
    At the end, the spans that are left are sent within `FLUSH_SECONDS`.

    Args:
        service: `service.name`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has one.
        endpoint: address of the collector, such as `http://collector:4318`; empty for that of the environment.
        environ: the environment of the process.
        annotation: annotation of objects with the context of their trace; empty for none.
        version: `service.version`.

    Raises:
        ConfigurationError: an endpoint is configured, and the library is not installed.
    """
    if not is_configured(endpoint, environ):
        yield NO_TRACER
        return
    try:
        provider = _provider(service, endpoint, environ, version)
    except ImportError as error:  # of the interface alone, too: other libraries install it without an exporter
        message = f"tracing is configured, and OpenTelemetry is not installed ({error}): {INSTALL_HINT}"
        raise ConfigurationError(message) from error
    try:
        yield OpenTelemetryTracer(provider, annotation=annotation)
    finally:
        # The processor would wait up to 30 s for a collector that does not answer; a thread can be left behind.
        closing = threading.Thread(target=provider.shutdown, name="tracing-shutdown", daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)


def _provider(service: str, endpoint: str, environ: Mapping[str, str], version: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # The library would log a warning for each retry; a failed batch is an error.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    attributes: dict[str, Attribute] = {"service.version": version} if version else {}
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        attributes["service.name"] = service
    if pod := environ.get("POD_NAME"):
        attributes["k8s.pod.name"] = pod
    if namespace := environ.get("POD_NAMESPACE"):
        attributes["k8s.namespace.name"] = namespace
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@final
class OpenTelemetryTracer:
    """A `Tracer` on a provider of OpenTelemetry.

    A span of a request that this process sends is recorded only within another span: the requests of informers and
    leases would otherwise be traces of one span each.

    Args:
        provider: makes and exports the spans.
        annotation: annotation of objects with the context of their trace; empty for none.
        name: instrumentation scope.
    """

    def __init__(self, provider: "TracerProvider", *, annotation: str = "", name: str = "kaito.runtime") -> None:
        from opentelemetry import trace

        self._tracer = provider.get_tracer(name)
        self._kinds: Mapping[SpanKind, Any] = {
            "internal": trace.SpanKind.INTERNAL,
            "server": trace.SpanKind.SERVER,
            "client": trace.SpanKind.CLIENT,
        }
        self._annotation = annotation

    @property
    def annotation(self) -> str:
        """Annotation of objects with the context of their trace."""
        return self._annotation

    def start_as_current_span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Attribute] | None = None,
        kind: SpanKind = "internal",
        parent: str = "",
        link: str = "",
    ) -> AbstractContextManager[Span]:
        """Starts a span for a `with` body; see `Tracer`."""
        from opentelemetry import trace

        if kind == "client" and not parent and not trace.get_current_span().get_span_context().is_valid:
            return NO_SPAN
        linked = _span_context(link)
        started = self._tracer.start_as_current_span(
            name,
            context=_context(parent),
            kind=self._kinds[kind],
            attributes=attributes,
            links=[trace.Link(linked)] if linked is not None else None,
            record_exception=kind != "client",  # the caller records it, or expects it
        )
        return _Started(started)

    def record_span(
        self,
        name: str,
        *,
        start: datetime,
        end: datetime,
        parent: str,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Records a span of the past; without a valid parent, nothing."""
        context = _context(parent)
        if context is None:
            return
        span = self._tracer.start_span(name, context=context, attributes=attributes, start_time=_nanoseconds(start))
        span.end(end_time=_nanoseconds(max(start, end)))


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * _NANOSECONDS)


def _span_context(traceparent: str) -> "trace.SpanContext | None":
    """The context of a `traceparent` of another process; None if it is not valid."""
    from opentelemetry import trace

    if not is_traceparent(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    sampled = trace.TraceFlags(int(flags, 16))
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)


def _context(traceparent: str) -> Any:
    """The context of which the span is the current one; None, the context of the task, if it is not valid."""
    from opentelemetry import trace
    from opentelemetry.context import Context

    remote = _span_context(traceparent)
    return None if remote is None else trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


@final
class _Started(AbstractContextManager["_Started"]):
    """The started span, with the interface of `Span`."""

    def __init__(self, started: "AbstractContextManager[trace.Span]") -> None:
        self._started = started
        self._span: trace.Span | None = None

    def __enter__(self) -> Self:
        self._span = self._started.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._started.__exit__(exc_type, exc, traceback)

    @property
    def traceparent(self) -> str:
        """The context as a header."""
        if self._span is None:
            return ""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Sets an attribute."""
        if self._span is not None:
            self._span.set_attribute(key, value)

    def record_exception(self, exception: BaseException) -> None:
        """Records an exception, and that the span has failed."""
        from opentelemetry import trace

        if self._span is not None:
            self._span.record_exception(exception)
            self._span.set_status(trace.StatusCode.ERROR, f"{type(exception).__name__}: {exception}")
