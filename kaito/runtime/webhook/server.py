"""The webhook server: TLS, limits, deadlines and metrics around the answers. The manager runs it before its caches.

Answers are HTTP 200 whatever the verdict; a handler that raises or is too slow is refused with the reason, never
a broken connection. The certificate may change while it serves: new connections get the new one.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, final

import msgspec
from aiohttp import web

from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.logging import get_logger
from kaito.runtime.metrics import Metrics
from kaito.runtime.webhook.answer import Answer, defaulting, validating
from kaito.runtime.webhook.conversion import Conversion, review
from kaito.runtime.webhook.declaration import AnyWebhook
from kaito.runtime.webhook.manifests import CONVERT_PATH
from kaito.runtime.webhook.review import BadReview, Verdict, guess_uid, parse

ADMISSION_BYTES: Final = 7 * 1024 * 1024
"""Largest admission request (controller-runtime): object and old object of 3 MiB each, and some more."""

CONVERSION_BYTES: Final = 64 * 1024 * 1024
"""Largest conversion request: a page of objects. controller-runtime has no limit there."""

TIMEOUT_SECONDS: Final = 10.0
"""How long API servers wait when they do not say (`timeoutSeconds`)."""

SPARE_SECONDS: Final = 1.0
"""An answer is given this long before the API server gives up, so that it carries a reason."""

STOP_SECONDS: Final = 15.0
"""Open requests get this long at the end: more than an API server waits."""

_log = get_logger(__name__)


@final
class WebhookServer:
    """Serves admission and conversion.

    Args:
        webhooks: what to answer.
        conversions: kinds with several versions.
        metrics: where calls are counted.
        host: address to listen on; None for all.
        port: 0 takes a free one.
        client_ca: only callers with a certificate of this CA are served.

    Raises:
        ConfigurationError: two webhooks on one path, two conversions of one kind.
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
    ) -> None:
        self._metrics = metrics
        self._host, self._port = host, port
        self._client_ca = client_ca
        self._app = web.Application()
        self._runner: web.AppRunner | None = None
        self.port: int | None = None
        """The port it listens on, once started."""
        self._add_admission(webhooks)
        self._add_conversion(conversions)

    def _add_admission(self, webhooks: Sequence[AnyWebhook]) -> None:
        paths: set[str] = set()
        for webhook in webhooks:
            answers: dict[str, Answer] = {}
            if webhook.defaults:
                answers[webhook.mutate_path] = defaulting(webhook)
            if webhook.validate is not None:
                if webhook.validate_path in answers:
                    message = f"{webhook!r}: one path cannot both default and validate"
                    raise ConfigurationError(message)
                answers[webhook.validate_path] = validating(webhook)
            for path, answer in answers.items():
                if path in paths:
                    message = f"two webhooks share the path {path}"
                    raise ConfigurationError(message)
                paths.add(path)
                self._prepare_metrics(path)
                self._app.router.add_post(path, self._admission(path, answer))

    def _add_conversion(self, conversions: Sequence[Conversion[Any]]) -> None:
        by_kind: dict[tuple[str, str], Conversion[Any]] = {}
        for conversion in conversions:
            if conversion.group_kind in by_kind:
                message = f"two conversions of {conversion.hub.kind}"
                raise ConfigurationError(message)
            by_kind[conversion.group_kind] = conversion
        if by_kind:
            self._prepare_metrics(CONVERT_PATH)
            self._app.router.add_post(CONVERT_PATH, self._conversion(by_kind))

    def _prepare_metrics(self, path: str) -> None:
        for code in ("200", "500"):
            self._metrics.webhook_requests.labels(path, code)
        self._metrics.webhook_in_flight.labels(path).set(0)

    # -- answering ---------------------------------------------------------------------------------------------------

    def _admission(self, path: str, answer: Answer) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            with self._counted(path) as call:
                body = await _read(request, ADMISSION_BYTES)
                version, uid, verdict = await self._judge(path, answer, body, _deadline(request))
                call.code = verdict.code if verdict.code >= 500 else 200
                return web.Response(body=verdict.encode(version, uid), content_type="application/json")

        return handle

    async def _judge(
        self, path: str, answer: Answer, body: "bytes | BadReview", deadline: float
    ) -> tuple[str, str, Verdict]:
        if isinstance(body, BadReview):
            return body.version, body.uid, Verdict(allowed=False, code=body.code, message=str(body))
        try:
            question = parse(body)
        except BadReview as error:
            return error.version, error.uid, Verdict(allowed=False, code=error.code, message=str(error))
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                verdict = await answer(question)
        except Exception as error:  # noqa: BLE001 - the boundary of foreign code; the reason goes to the user
            if limit.expired():
                message = f"no answer within {deadline:g} s"
                _log.error("webhook too slow", path=path, seconds=deadline)
            else:
                self._metrics.webhook_panics.inc()
                message = f"{type(error).__name__}: {error}"
                _log.exception("webhook failed", path=path, uid=question.uid)
            verdict = Verdict(allowed=False, code=500, message=message)
        if not verdict.allowed:
            _log.info("request refused", path=path, code=verdict.code, reason=verdict.message, uid=question.uid)
        return question.version, question.uid, verdict

    def _conversion(self, conversions: Mapping[tuple[str, str], Conversion[Any]]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            with self._counted(CONVERT_PATH) as call:
                body = await _read(request, CONVERSION_BYTES)
                answer = review(conversions, b"" if isinstance(body, BadReview) else body)
                result = answer["response"]["result"]
                if result["status"] != "Success":
                    call.code = 500
                    self._metrics.conversion_panics.inc()
                    _log.error("conversion failed", reason=result["message"])
                return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

        return handle

    def _counted(self, path: str) -> "_Call":
        return _Call(self._metrics, path)

    # -- serving -----------------------------------------------------------------------------------------------------

    async def start(self, context: ssl.SSLContext) -> None:
        """Listen with the certificate in `context`, which its owner may reload at any time.

        Raises:
            ConfigurationError: the address is in use or not ours.
        """
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, ssl_context=context).start()
        except OSError as error:
            message = f"cannot serve webhooks on {self._host or ''}:{self._port}: {error}"
            raise ConfigurationError(message) from error
        self.port = self._runner.addresses[0][1]
        _log.info("serving", what="webhooks", port=self.port)

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._runner is not None and bool(self._runner.sites)

    async def stop(self) -> None:
        """Accept no more, let open requests end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


class _Call:
    """Counts one call."""

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


async def _read(request: web.Request, limit: int) -> "bytes | BadReview":
    """The body, or why it is not taken."""
    if request.content_type != "application/json":
        return BadReview(f"content type {request.content_type!r}, expected application/json")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            start = b"".join(chunks) or chunk
            return BadReview(f"the request is larger than {limit} bytes", uid=guess_uid(start), code=413)
        chunks.append(chunk)
    body = b"".join(chunks)
    return body or BadReview("the request has no body")


def _deadline(request: web.Request) -> float:
    """Seconds for the answer: what the API server says it waits (`?timeout=10s`), less some to send it."""
    text = request.query.get("timeout", "").removesuffix("s")
    try:
        waits = float(text) if text else TIMEOUT_SECONDS
    except ValueError:
        waits = TIMEOUT_SECONDS
    return max(waits - SPARE_SECONDS, waits / 2)
