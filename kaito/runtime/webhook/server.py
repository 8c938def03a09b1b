"""The webhook server: TLS, limits, deadlines and metrics. The manager starts it before its caches.

The HTTP status is 200 for every admission response. If a handler raises or exceeds its deadline, the request is denied
with the reason instead of a closed connection. The certificate can be replaced at any time; new connections use it.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, final

import msgspec

from kaito.runtime.client.patch import is_object
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.http_server import Handler, HttpRequest, HttpResponse, HttpServer, Page
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.logging import get_logger
from kaito.runtime.metrics import Metrics
from kaito.runtime.tracing import NO_TRACER, TRACEPARENT, Attribute, Span, Tracer, is_traceparent
from kaito.runtime.webhook.admission import AdmissionHandler, defaulting_handler, validating_handler
from kaito.runtime.webhook.conversion import Conversion, convert_review
from kaito.runtime.webhook.declaration import AnyWebhook
from kaito.runtime.webhook.manifests import CONVERT_PATH
from kaito.runtime.webhook.review import AdmissionResponse, AdmissionReview, BadReview, find_uid, parse_review

ADMISSION_BYTES: Final = 7 * 1024 * 1024
"""Maximum size of an admission request (controller-runtime's): object and old object of 3 MiB each, and a margin."""

CONVERSION_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of a conversion request, which contains a page of objects. controller-runtime has no limit."""

TIMEOUT_SECONDS: Final = 10.0
"""Timeout of the API server if the request does not contain it (default of `timeoutSeconds`)."""

MARGIN_SECONDS: Final = 1.0
"""The response is sent this long before the API server's timeout, so that it can contain a reason."""

STOP_SECONDS: Final = 15.0
"""Time for open requests at the stop: more than the API server's timeout."""

JSON: Final = "application/json"

_log = get_logger(__name__)


@final
class WebhookServer:
    """Serves admission and conversion.

    Args:
        webhooks: the admission webhooks.
        conversions: kinds with several versions.
        metrics: counts the calls.
        host: address to listen on; None for all.
        port: the port; 0 selects a free one.
        client_ca: CA of client certificates; without one of this CA a caller is rejected.
        state: returns the state of the manager's lifespan.
        tracer: records admissions as spans.

    Raises:
        ConfigurationError: two webhooks with one path, or two conversions of one kind.
    """

    def __init__(
        self,
        webhooks: Sequence[AnyWebhook],
        conversions: Sequence[Conversion[Any]],
        *,
        metrics: Metrics,
        host: str | None,
        port: int,
        client_ca: Path | None = None,
        state: StateProvider = no_state,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._host, self._port = host, port
        self._client_ca = client_ca
        self._state = state
        self._pages: dict[str, Page] = {}
        self._server: HttpServer | None = None
        self.port: int | None = None
        """The port, once started."""
        self._add_admission(webhooks)
        self._add_conversion(conversions)

    def _add_admission(self, webhooks: Sequence[AnyWebhook]) -> None:
        paths: set[str] = set()
        for webhook in webhooks:
            handlers: dict[str, AdmissionHandler] = {}
            if webhook.mutates:
                handlers[webhook.mutate_path] = defaulting_handler(webhook, self._state)
            if webhook.validate is not None:
                if webhook.validate_path in handlers:
                    message = f"{webhook!r}: one path cannot both default and validate"
                    raise ConfigurationError(message)
                handlers[webhook.validate_path] = validating_handler(webhook, self._state)
            for path, handler in handlers.items():
                if path in paths:
                    message = f"two webhooks share the path {path}"
                    raise ConfigurationError(message)
                paths.add(path)
                self._prepare_metrics(path)
                self._pages[path] = Page(self._admission(path, handler), ("POST",), ADMISSION_BYTES)

    def _add_conversion(self, conversions: Sequence[Conversion[Any]]) -> None:
        by_kind: dict[tuple[str, str], Conversion[Any]] = {}
        for conversion in conversions:
            if conversion.group_kind in by_kind:
                message = f"two conversions of {conversion.hub.kind}"
                raise ConfigurationError(message)
            by_kind[conversion.group_kind] = conversion
        if by_kind:
            self._prepare_metrics(CONVERT_PATH)
            self._pages[CONVERT_PATH] = Page(self._conversion(by_kind), ("POST",), CONVERSION_BYTES)

    def _prepare_metrics(self, path: str) -> None:
        for code in ("200", "500"):
            self._metrics.webhook_requests.labels(path, code)
        self._metrics.webhook_in_flight.labels(path).set(0)

    # -- handling ----------------------------------------------------------------------------------------------------

    def _admission(self, path: str, handler: AdmissionHandler) -> Handler:
        async def handle(request: HttpRequest) -> HttpResponse:
            with self._counted(path) as call:
                body = _body(request, ADMISSION_BYTES)
                parent = request.headers.get(TRACEPARENT, "")
                version, uid, response = await self._respond(path, handler, body, _deadline(request), parent)
                call.code = response.code if response.code >= 500 else 200
                return HttpResponse(response.encode(version, uid), content_type=JSON)

        return handle

    async def _respond(
        self, path: str, handler: AdmissionHandler, body: "bytes | BadReview", deadline: float, parent: str
    ) -> tuple[str, str, AdmissionResponse]:
        if isinstance(body, BadReview):
            return body.version, body.uid, AdmissionResponse(allowed=False, code=body.code, message=str(body))
        try:
            review = parse_review(body)
        except BadReview as error:
            return error.version, error.uid, AdmissionResponse(allowed=False, code=error.code, message=str(error))
        annotation = self._tracer.annotation
        traced = parent if is_traceparent(parent) else _annotations(review).get(annotation, "")
        with self._tracer.start_as_current_span(
            f"POST {path}", attributes=_attributes(path, review), kind="server", parent=traced
        ) as span:
            if annotation and span.traceparent and not review.request.get("dryRun"):
                review = replace(review, trace={annotation: span.traceparent})
            response = await self._handle(path, handler, review, deadline, span)
            span.set_attribute("admission.allowed", response.allowed)
        if not response.allowed:
            _log.info("request denied", path=path, code=response.code, reason=response.message, uid=review.uid)
        return review.version, review.uid, response

    async def _handle(
        self, path: str, handler: AdmissionHandler, review: AdmissionReview, deadline: float, span: Span
    ) -> AdmissionResponse:
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                return await handler(review)
        except Exception as error:  # noqa: BLE001 - the boundary of foreign code; the reason goes to the user
            if limit.expired():
                message = f"no response within {deadline:g} s"
                _log.error("webhook timed out", path=path, seconds=deadline)
            else:
                self._metrics.webhook_panics.inc()
                message = f"{type(error).__name__}: {error}"
                _log.exception("webhook failed", path=path, uid=review.uid)
            span.record_exception(error)
            return AdmissionResponse(allowed=False, code=500, message=message)

    def _conversion(self, conversions: Mapping[tuple[str, str], Conversion[Any]]) -> Handler:
        async def handle(request: HttpRequest) -> HttpResponse:
            with self._counted(CONVERT_PATH) as call:
                body = _body(request, CONVERSION_BYTES)
                reply = convert_review(conversions, b"" if isinstance(body, BadReview) else body)
                result = reply["response"]["result"]
                if result["status"] != "Success":
                    call.code = 500
                    self._metrics.conversion_panics.inc()
                    _log.error("conversion failed", reason=result["message"])
                return HttpResponse(msgspec.json.encode(reply), content_type=JSON)

        return handle

    def _counted(self, path: str) -> "_Call":
        return _Call(self._metrics, path)

    # -- serving -----------------------------------------------------------------------------------------------------

    async def start(self, context: ssl.SSLContext) -> None:
        """Listens with the certificate in `context`, which its owner may replace at any time.

        Raises:
            ConfigurationError: the address is in use or does not exist.
        """
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server = HttpServer(self._pages, close_seconds=STOP_SECONDS)
        try:
            self.port = await self._server.start(self._host, self._port, context)
        except OSError as error:
            message = f"cannot serve webhooks on {self._host or ''}:{self._port}: {error}"
            raise ConfigurationError(message) from error
        _log.info("serving", server="webhooks", port=self.port)

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_listening

    async def stop(self) -> None:
        """Stops accepting connections and finishes open requests."""
        if self._server is not None:
            await self._server.stop()
            self._server = None


class _Call:
    """Measures and counts one call."""

    def __init__(self, metrics: Metrics, path: str) -> None:
        self.code = 500
        self._metrics = metrics
        self._path = path
        self._started = 0.0

    def __enter__(self) -> Self:
        self._metrics.webhook_in_flight.labels(self._path).inc()
        self._started = monotonic()
        self.code = 200
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is not None:
            self.code = 500
        self._metrics.webhook_in_flight.labels(self._path).dec()
        self._metrics.webhook_seconds.labels(self._path).observe(monotonic() - self._started)
        self._metrics.webhook_requests.labels(self._path, str(self.code)).inc()


def _annotations(review: AdmissionReview) -> Mapping[str, str]:
    """The annotations of the new object of a request."""
    document: object = review.request.get("object")
    metadata: object = document.get("metadata") if is_object(document) else None
    found: object = metadata.get("annotations") if is_object(metadata) else None
    return {key: value for key, value in found.items() if isinstance(value, str)} if is_object(found) else {}


def _attributes(path: str, review: AdmissionReview) -> dict[str, Attribute]:
    """The attributes of an admission's span: semantic conventions of HTTP and Kubernetes."""
    request = review.request
    kind: object = request.get("kind")
    return {
        "http.request.method": "POST",
        "http.route": path,
        "admission.operation": str(request.get("operation", "")),
        "admission.kind": str(kind.get("kind", "")) if is_object(kind) else "",
        "k8s.namespace.name": str(request.get("namespace", "")),
        "admission.name": str(request.get("name", "")),
    }


def _body(request: HttpRequest, limit: int) -> "bytes | BadReview":
    """The body, or why it is rejected."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON:
        return BadReview(f"content type {content_type!r}, expected application/json")
    if request.is_cut:
        return BadReview(f"the request is larger than {limit} bytes", uid=find_uid(request.body), code=413)
    return request.body or BadReview("the request has no body")


def _deadline(request: HttpRequest) -> float:
    """Seconds for the response: the API server's timeout (`?timeout=10s`), minus a margin to send it."""
    text = request.parameter("timeout").removesuffix("s")
    try:
        timeout = float(text) if text else TIMEOUT_SECONDS
    except ValueError:
        timeout = TIMEOUT_SECONDS
    return max(timeout - MARGIN_SECONDS, timeout / 2)
