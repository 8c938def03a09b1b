"""Traces reconciles, requests and admissions, without depending on a tracing library.

`NO_TRACER`, the default of a manager, returns a shared span that does nothing. `configured_tracer` (extra
`kaito-runtime[tracing]`) records spans with OpenTelemetry and exports them by OTLP; that library is imported only if a
collector is configured.

    import os
    from kaito.runtime.manager import Manager, Settings
    from kaito.runtime.tracing import configured_tracer

    settings = Settings.from_env()
    with configured_tracer("memcached-operator", settings.tracing_endpoint, os.environ) as tracer:
        manager = Manager(settings, tracer=tracer)
"""

from kaito.runtime.tracing.otlp import (
    OpenTelemetryTracer as OpenTelemetryTracer,
    configured_tracer as configured_tracer,
    is_configured as is_configured,
)
from kaito.runtime.tracing.spans import (
    NO_SPAN as NO_SPAN,
    NO_TRACER as NO_TRACER,
    TRACEPARENT as TRACEPARENT,
    Attribute as Attribute,
    Span as Span,
    SpanKind as SpanKind,
    Tracer as Tracer,
    is_traceparent as is_traceparent,
    trace_id as trace_id,
)
