"""Transport with scripted responses, for cases of the protocol that a healthy server does not produce.

Responses are returned in order, for any request; every call is recorded with its time. After the last one, streams stay
open without data, and unary requests fail the test.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kaito.runtime.client.transport import CONNECT_SECONDS, NO_HEADERS, REQUEST_SECONDS, Reply
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import TransportError

Piece: TypeAlias = bytes | float | Exception
"""Part of a stream: bytes to send, seconds to wait, or an exception to raise."""


@dataclass(frozen=True, slots=True)
class Call:
    """Recorded request."""

    at: float
    """Time of the loop in seconds."""
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch, with or without a streamed list."""
        return self.query.get("watch") == "true"


@dataclass(frozen=True, slots=True)
class Stream:
    """Streamed response, which ends after its pieces unless `keep_open`."""

    pieces: tuple[Piece, ...] = ()
    status: int = 200
    keep_open: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the bytes, with the delays and failures."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, Exception):
                raise piece
            else:
                await asyncio.sleep(piece)
        if self.keep_open:
            await asyncio.Event().wait()

    async def read(self) -> bytes:
        """Reads all bytes."""
        return b"".join([chunk async for chunk in self.chunks()])


Answer: TypeAlias = Reply | Stream | Exception


@final
class ScriptedTransport:
    """Transport that returns scripted responses in order and records the calls."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.calls: list[Call] = []

    @property
    def host(self) -> str:
        """The `host` label of metrics."""
        return "scripted"

    @property
    def lists(self) -> list[Call]:
        """The calls that are not watches."""
        return [call for call in self.calls if not call.is_watch]

    @property
    def watches(self) -> list[Call]:
        """The calls that are watches."""
        return [call for call in self.calls if call.is_watch]

    def then(self, *answers: Answer) -> None:
        """Appends responses to the script."""
        self._answers.extend(answers)

    def _next(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(target)
        call = Call(monotonic(), method, parts.path, dict(parse_qsl(parts.query)), dict(headers))
        self.calls.append(call)
        if self._answers:
            return self._answers.pop(0)
        if call.is_watch:
            return Stream(keep_open=True)
        raise AssertionError(f"the script has no response for {method} {target}")

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,  # noqa: ARG002 -- the protocol's
        timeout: float = REQUEST_SECONDS,  # noqa: ARG002 -- the protocol's
    ) -> Reply:
        """Returns the next response."""
        answer = self._next(method, target, headers)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Stream):
            return Reply(answer.status, answer.headers, await answer.read())
        return answer

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,  # noqa: ARG002 -- the protocol's
        idle: float | None = None,  # noqa: ARG002 -- the protocol's
    ) -> AsyncGenerator[Stream]:
        """Opens the next response as a stream."""
        answer = self._next(method, target, headers)
        if isinstance(answer, Exception):
            raise answer
        yield answer if isinstance(answer, Stream) else Stream((answer.body,), answer.status, headers=answer.headers)

    async def close(self) -> None:
        """Does nothing: there are no connections."""


REFUSED = TransportError("connection refused")


def status(code: int, reason: str, message: str = "", **details: Any) -> Reply:
    """Builds an error response with a Status object."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return Reply(code, {}, msgspec.json.encode(body | {"message": message or reason, "details": details}))


def list_page(version: str, *items: Mapping[str, Any], token: str = "") -> Reply:
    """Builds a page of a list."""
    metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
    return Reply(200, {}, msgspec.json.encode({"metadata": metadata, "items": items}))


def watch_event(verb: str, obj: Mapping[str, Any]) -> bytes:
    """Builds a watch event as a line of JSON."""
    return msgspec.json.encode({"type": verb, "object": obj}) + b"\n"


def bookmark(version: str, *, initial_events_end: bool = False) -> bytes:
    """Builds a bookmark; with `initial_events_end` the one at the end of a streamed list."""
    metadata: dict[str, Any] = {"resourceVersion": version}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return watch_event("BOOKMARK", {"metadata": metadata})


def error_event(code: int, reason: str, message: str = "") -> bytes:
    """Builds an ERROR event."""
    return watch_event("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": message or reason})
