"""Sends API requests with retries, rate limit, warnings and typed errors.

`Client` and `ServerDiscovery` send through it; the reflector uses `failure` for its streams. Retries:

| failure                  | retry                                                                             |
|--------------------------|-----------------------------------------------------------------------------------|
| no response              | reads, PUT, DELETE and apply: 3 times, 0.1 to 1 s apart; never a POST or a patch   |
| 429                      | any verb, after `Retry-After`; without the header, never                           |
| 500, 502, 503, 504       | reads and apply: 3 times; others are raised, because they may have happened        |
| any other error          | never                                                                             |

The delays of one call add up to at most 5 s, and all attempts to the call's timeout: longer retries belong to the work
queue, whose workers would otherwise be blocked. The transport handles 401, because it holds the credentials.

A lost response does not mean that the write failed: kube-apiserver may have stored it. Repeating is safe only where a
second execution has no further effect. A PUT repeats with a stale resourceVersion and conflicts; a DELETE carries the
UID or finds nothing; an apply is declarative. A second POST with `generateName` creates a second object, and a JSON
patch applies twice. After a 429 every request may be repeated: API Priority and
Fairness rejects it before it is executed. A 5xx may come from a proxy, or from etcd after the write was stored, so PUT
and DELETE are not repeated either, and the caller handles the uncertainty.
"""

import asyncio
import json
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, final

from kaito.runtime.client.observe import RequestObserver
from kaito.runtime.client.patch import is_object
from kaito.runtime.client.transport import REQUEST_SECONDS, Reply, Transport, sending_guarded_by
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ApiError, ClusterRemoved, TransportError, api_error
from kaito.runtime.logging import get_logger
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.tracing import NO_TRACER, TRACEPARENT, Tracer

ATTEMPTS = 4
"""The first attempt and three retries."""

WAIT_BUDGET_SECONDS = 5.0
"""Maximum total delay between the attempts of one call."""

_SERVER_ERRORS = frozenset({500, 502, 503, 504})
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MAX_WARNINGS = 1024

_log = get_logger(__name__)


class RetryOn(Enum):
    """Failures after which a request is repeated, by its idempotence."""

    ANY_FAILURE = "reads and apply"
    LOST_RESPONSE = "update and delete: the version or uid guards them"
    THROTTLING = "create and patch"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """Request to the API server; `target` is the path with the query."""

    method: str
    target: str
    retry_on: RetryOn
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    timeout: float = REQUEST_SECONDS
    guard: Callable[[], None] | None = None
    """Called before every attempt and again immediately before sending; raises to prevent it (lost lease)."""

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


@final
class Sender:
    """Sends requests over a transport."""

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str,
        limiter: TokenBucket | None,
        observer: RequestObserver,
        rng: random.Random,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._transport = transport
        self._user_agent = user_agent
        self._limiter = limiter
        self._observer = observer
        self._rng = rng
        self._tracer = tracer
        self._warned: OrderedDict[str, None] = OrderedDict()

    async def send(self, request: ApiRequest) -> Reply:
        """Sends a request and returns the successful response. The exceptions of the request's guard are raised as
        well.

        Raises:
            ApiError: The server rejected the request; typed by status.
            RequestTimeout: No response within the request's timeout, including retries.
            TransportError: No response.
        """
        path = request.target.partition("?")[0]
        attributes = {"http.request.method": request.method, "url.path": path, "server.address": self._transport.host}
        name = f"{request.method} {path}"
        with self._tracer.start_as_current_span(name, attributes=attributes, kind="client") as span:
            try:
                reply = await self._send(request, span.traceparent)
            except ApiError as error:
                span.set_attribute("http.response.status_code", error.code)
                span.set_attribute("error.type", str(error.code))
                raise
            span.set_attribute("http.response.status_code", reply.status)
            return reply

    async def _send(self, request: ApiRequest, traceparent: str) -> Reply:
        deadline = monotonic() + request.timeout
        budget = WAIT_BUDGET_SECONDS
        unanswered = False
        for attempt in range(1, ATTEMPTS + 1):
            error = await self._attempt(request, deadline, traceparent)
            if isinstance(error, Reply):
                return error
            if isinstance(error, ApiError):
                error.after_lost_response = unanswered
            unanswered = unanswered or isinstance(error, TransportError) or error.code in _SERVER_ERRORS
            wait = self._retry_delay(request, error, attempt)
            if wait is None or attempt == ATTEMPTS or wait > budget or monotonic() + wait >= deadline:
                try:
                    raise error
                finally:
                    del error  # its traceback refers to this frame: the cycle would stay until a garbage collection
            self._observer.retried(method=request.method, host=self._transport.host, code=_code(error))
            budget -= wait
            await asyncio.sleep(wait)
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises

    async def _attempt(
        self, request: ApiRequest, deadline: float, traceparent: str
    ) -> Reply | ApiError | TransportError:
        host = self._transport.host
        if self._limiter is not None and (waited := await self._limiter.take()):
            self._observer.limited(method=request.method, host=host, seconds=waited)
        if request.guard is not None:
            request.guard()
        started = monotonic()
        result: Reply | ApiError | TransportError
        received = 0
        try:
            with sending_guarded_by(request.guard):
                reply = await self._transport.request(
                    request.method,
                    request.target,
                    headers=self._headers(request, traceparent),
                    body=request.body,
                    timeout=max(deadline - started, 0.001),
                )
        except TransportError as error:
            result = error.with_traceback(None)  # the traceback refers to this frame, and the frame to the error
        else:
            received = len(reply.body)
            self._observer.dated(reply.headers.get("date", ""), monotonic() - started)
            self._log_warnings(reply.headers.get("warning", ""))
            # API servers do not redirect; following a redirect would send the credentials to another host.
            result = reply if reply.status < 300 else failure(reply.status, reply.headers, reply.body, str(request))
        self._observer.finished(
            method=request.method,
            host=host,
            code=str(result.status) if isinstance(result, Reply) else _code(result),
            seconds=monotonic() - started,
            sent=len(request.body or b""),
            received=received,
        )
        return result

    def _headers(self, request: ApiRequest, traceparent: str) -> dict[str, str]:
        headers = {"accept": request.accept, "user-agent": self._user_agent}
        if traceparent:
            headers[TRACEPARENT] = traceparent
        if request.body is not None:
            headers["content-type"] = request.content_type
        return headers

    def _retry_delay(self, request: ApiRequest, error: ApiError | TransportError, attempt: int) -> float | None:
        """Returns the delay in seconds before the next attempt, or None if there must be none."""
        if isinstance(error, TransportError):
            final = request.retry_on is RetryOn.THROTTLING or isinstance(error, ClusterRemoved)
            return None if final else self._backoff(attempt)
        if error.code == 429:
            return error.retry_after
        if error.code in _SERVER_ERRORS and request.retry_on is RetryOn.ANY_FAILURE:
            return error.retry_after if error.retry_after is not None else self._backoff(attempt)
        return None

    def _backoff(self, attempt: int) -> float:
        """Returns 0.1 s, doubled with every attempt, with up to 100 % jitter, at most 1 s."""
        return min(0.1 * 2.0 ** (attempt - 1) * (1.0 + self._rng.random()), 1.0)

    def _log_warnings(self, header: str) -> None:
        """Logs warnings of the server (deprecated versions, unknown fields), each once per process."""
        if not header:
            return
        for text in _WARNING.findall(header):
            if text in self._warned:
                continue
            self._warned[text] = None
            if len(self._warned) > _MAX_WARNINGS:
                self._warned.popitem(last=False)
            _log.warning("api server warning", warning=re.sub(r"\\(.)", r"\1", text))


def failure(status: int, headers: Mapping[str, str], body: bytes, request: str) -> ApiError:
    """Converts an error response: a Status object, or the text of a proxy."""
    try:
        parsed: object = json.loads(body)
    except ValueError:
        parsed = None
    content: Mapping[str, Any] | str = parsed if is_object(parsed) else body.decode("utf-8", "replace").strip()
    return api_error(status, content, retry_after=_seconds(headers.get("retry-after", "")), request=request)


def _seconds(retry_after: str) -> float | None:
    """Parses `Retry-After` in seconds; API servers do not use the date form."""
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        return None


def _code(error: ApiError | TransportError) -> str:
    return str(error.code) if isinstance(error, ApiError) else "<error>"
