"""One API request, made to succeed if it may be repeated: retries, limits, warnings, typed errors.

`Client` and `Discovery` send through it, the reflector uses `failure` for its stream answers. The rules of repetition:

| what happened            | repeated                                                                          |
|--------------------------|-----------------------------------------------------------------------------------|
| no answer                | reads, PUT, DELETE and apply: 3 times, 0.1 to 1 s apart; never a POST or a patch   |
| 429                      | any verb, after `Retry-After`; without the header, never                           |
| 500, 502, 503, 504       | reads and apply: 3 times; others surface, they may have happened                   |
| any other error          | never                                                                             |

All waiting of one call stays within 5 seconds, all attempts together within the call's timeout: the reconcile queue
is the place for patience. 401 is the transport's affair, it holds the credentials.
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
from kaito.runtime.errors import ApiError, TransportError, api_error
from kaito.runtime.logging import get_logger
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.tracing import NO_TRACER, Tracer

ATTEMPTS = 4
"""The first try and three repetitions."""

WAIT_BUDGET_SECONDS = 5.0
"""Longest total wait between the attempts of one call."""

_SERVER_ERRORS = frozenset({500, 502, 503, 504})
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_WARNINGS_REMEMBERED = 1024

_log = get_logger(__name__)


class RetryOn(Enum):
    """What a request may survive without changing its meaning."""

    ANY_FAILURE = "reads and apply"
    LOST_RESPONSE = "update and delete: the version or uid guards them"
    THROTTLING = "create and patch"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the API server; `target` is path and query."""

    method: str
    target: str
    retry_on: RetryOn
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    timeout: float = REQUEST_SECONDS
    guard: Callable[[], None] | None = None
    """Called before every attempt, and again at the moment of sending; raises when it must not be sent (lost lease)."""

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
        """The successful answer.

        Raises:
            ApiError: the server refused; typed by status.
            RequestTimeout: no answer within the request's timeout, repetitions included.
            TransportError: no answer.
            Whatever the request's guard raises.
        """
        path = request.target.partition("?")[0]
        attributes = {"http.request.method": request.method, "url.path": path, "server.address": self._transport.host}
        with self._tracer.start_as_current_span(f"{request.method} {path}", attributes=attributes) as span:
            reply = await self._send(request)
            span.set_attribute("http.response.status_code", reply.status)
            return reply

    async def _send(self, request: ApiRequest) -> Reply:
        deadline = monotonic() + request.timeout
        budget = WAIT_BUDGET_SECONDS
        unanswered = False
        for attempt in range(1, ATTEMPTS + 1):
            error = await self._attempt(request, deadline)
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
                    del error  # its traceback holds this frame: they would keep each other until a collection
            self._observer.retried(method=request.method, host=self._transport.host, code=_code(error))
            budget -= wait
            await asyncio.sleep(wait)
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises

    async def _attempt(self, request: ApiRequest, deadline: float) -> Reply | ApiError | TransportError:
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
                    headers=self._headers(request),
                    body=request.body,
                    timeout=max(deadline - started, 0.001),
                )
        except TransportError as error:
            result = error.with_traceback(None)  # which holds this frame, and the frame the error
        else:
            received = len(reply.body)
            self._log_warnings(reply.headers.get("warning", ""))
            # A redirect is not followed (credentials would go elsewhere), and no answer of an API server either.
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

    def _headers(self, request: ApiRequest) -> dict[str, str]:
        headers = {"accept": request.accept, "user-agent": self._user_agent}
        if request.body is not None:
            headers["content-type"] = request.content_type
        return headers

    def _retry_delay(self, request: ApiRequest, error: ApiError | TransportError, attempt: int) -> float | None:
        """Seconds to wait before the same request is sent again, or None when it must not be."""
        if isinstance(error, TransportError):
            return None if request.retry_on is RetryOn.THROTTLING else self._backoff(attempt)
        if error.code == 429:
            return error.retry_after
        if error.code in _SERVER_ERRORS and request.retry_on is RetryOn.ANY_FAILURE:
            return error.retry_after if error.retry_after is not None else self._backoff(attempt)
        return None

    def _backoff(self, attempt: int) -> float:
        """0.1 s doubling, up to as much again at random, at most 1 s."""
        return min(0.1 * 2.0 ** (attempt - 1) * (1.0 + self._rng.random()), 1.0)

    def _log_warnings(self, header: str) -> None:
        """Warnings of the server (deprecated versions, unknown fields), each once a process."""
        if not header:
            return
        for text in _WARNING.findall(header):
            if text in self._warned:
                continue
            self._warned[text] = None
            if len(self._warned) > _WARNINGS_REMEMBERED:
                self._warned.popitem(last=False)
            _log.warning("api server warning", warning=re.sub(r"\\(.)", r"\1", text))


def failure(status: int, headers: Mapping[str, str], body: bytes, request: str) -> ApiError:
    """The typed error of an answer that is not a success: a Status object, or whatever a proxy sent."""
    try:
        parsed: object = json.loads(body)
    except ValueError:
        parsed = None
    content: Mapping[str, Any] | str = parsed if is_object(parsed) else body.decode("utf-8", "replace").strip()
    return api_error(status, content, retry_after=_seconds(headers.get("retry-after", "")), request=request)


def _seconds(retry_after: str) -> float | None:
    """`Retry-After` in seconds; the date form is not used by API servers and ignored."""
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        return None


def _code(error: ApiError | TransportError) -> str:
    return str(error.code) if isinstance(error, ApiError) else "<error>"
