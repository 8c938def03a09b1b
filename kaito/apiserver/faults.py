"""Injects faults into requests and watches of the clients under test.

A `Fault` selects requests, describes the effects and limits how often they occur. Tests add faults with
`ApiServer.inject`; the request handler evaluates `Faults` before it serves. All waiting uses the running event loop, so
virtual time works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kaito.apiserver.errors import StatusError
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.store import Change
from kaito.apiserver.wire import HttpRequest, HttpResponse, Object, json_response

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(slots=True)
class Fault:
    """One kind of fault. Empty match fields match everything; the effects given all apply.

    Attributes:
        method: HTTP method to hit.
        verb: get, list, watch, create, update, patch, delete or deletecollection.
        kind: kind of the resource.
        name: name of the object.
        namespace: namespace of the request.
        subresource: subresource to hit; None hits all.
        times: how many requests (or watch events) are hit; None for all.
        skip: how many matching ones pass first.
        status: answer this HTTP status instead of serving.
        reason: `Status.reason` of that answer; by default the usual one of the code.
        message: `Status.message` of that answer.
        retry_after: seconds for its Retry-After header.
        delay: seconds to wait before anything else.
        hang: never answer.
        drop_connection: serve the request (a write is done) and then break the connection without an answer.
        cut_after: end a watch after this many events.
        garbage: send a line that is not JSON as the first line of a watch.
        lose_events: watchers never get the change (matched by kind, name and namespace).
        lag: watchers get the change this many seconds late.
        expire: forget all history, so that every resume from before gets 410.
        when: further condition on the request.
    """

    method: str = ""
    verb: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    subresource: str | None = None
    times: int | None = 1
    skip: int = 0
    status: int = 0
    reason: str = ""
    message: str = ""
    retry_after: int | None = None
    delay: float = 0.0
    hang: bool = False
    drop_connection: bool = False
    cut_after: int | None = None
    garbage: bool = False
    lose_events: bool = False
    lag: float = 0.0
    expire: bool = False
    when: Callable[[HttpRequest], bool] | None = None
    hits: int = 0
    """How many requests or events this fault has hit."""

    @property
    def on_events(self) -> bool:
        """Whether this fault concerns the delivery of changes and not requests."""
        return self.lose_events or self.lag > 0

    def take(self) -> bool:
        """Counts a match; returns whether it is to be hit."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class ConnectionDropped(Exception):
    """The server breaks the connection without an answer; adapters close the socket."""


@dataclass(slots=True)
class RequestInfo:
    """The attributes of a request that faults match on."""

    verb: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    subresource: str = ""


class Faults:
    """The faults of one server, in the order they were added."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Adds a fault; the returned object counts its hits and can be given to `remove`."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Removes a fault; unknown ones are ignored."""
        if fault in self._faults:
            self._faults.remove(fault)

    def clear(self) -> None:
        """Removes all faults."""
        self._faults.clear()

    def for_request(self, request: HttpRequest, info: RequestInfo) -> list[Fault]:
        """Returns the faults that hit this request, counting them."""
        return [
            fault
            for fault in self._faults
            if not fault.on_events
            and fault.method in {"", request.method}
            and fault.verb in {"", info.verb}
            and fault.subresource in {None, info.subresource}
            and _matches(fault, info.kind, info.namespace, info.name)
            and (fault.when is None or fault.when(request))
            and fault.take()
        ]

    def delivery(self, resource: Resource | None, change: Change) -> float | None:
        """Returns how many seconds a change is held back from watchers; None when it is lost."""
        delay = 0.0
        kind = resource.kind if resource is not None else str(change.stored.data.get("kind"))
        namespace, name = change.stored.key
        for fault in self._faults:
            if fault.on_events and _matches(fault, kind, namespace, name) and fault.take():
                if fault.lose_events:
                    return None
                delay = max(delay, fault.lag)
        return delay


def _matches(fault: Fault, kind: str, namespace: str, name: str) -> bool:
    return fault.kind in {"", kind} and fault.namespace in {"", namespace} and fault.name in {"", name}


async def apply_faults(faults: list[Fault]) -> HttpResponse | None:
    """Applies the delays and error responses of the faults; None when the request is to be served."""
    for fault in faults:
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.hang:
            await asyncio.get_running_loop().create_future()
        if fault.status:
            return _refusal(fault)
    return None


def _refusal(fault: Fault) -> HttpResponse:
    reason = fault.reason or _REASONS.get(fault.status, "InternalError")
    details: Object = {} if fault.retry_after is None else {"retryAfterSeconds": fault.retry_after}
    error = StatusError(fault.status, reason, fault.message or f"injected fault: {reason}", details=details)
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    return json_response(error.status(), fault.status, headers)
