"""A tracer with the spans that it has recorded, in memory."""

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kaito.runtime.tracing import OpenTelemetryTracer


class Recorded:
    """`tracer` records; `take` returns what has ended since the last call."""

    def __init__(self, annotation: str = "") -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetryTracer(provider, annotation=annotation)

    def take(self, *names: str) -> list[ReadableSpan]:
        spans = [span for span in self._exporter.get_finished_spans() if not names or span.name.startswith(names)]
        self._exporter.clear()
        return spans
