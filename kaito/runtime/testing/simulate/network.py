"""Connections of simulated processes to the API server: delays, failures, lost answers, and crashes at writes.

`Connection` is the transport of one start of a process. `Failures` are the failures of requests that are active, and
draw with a generator of their own, so that a scenario with fewer steps does not change what the others do.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, final

import msgspec

from kaito.runtime.client.transport import (
    CONNECT_SECONDS,
    NO_HEADERS,
    REQUEST_SECONDS,
    Reply,
    StreamReply,
    check_send_guard,
)
from kaito.runtime.errors import RequestTimeout, TransportError
from kaito.runtime.testing.simulate.trace import Trace
from kaito.runtime.testing.transport import InMemoryTransport
from kaito.runtime.testing.world import World

Mode = Literal["conflict", "throttled", "internal", "unavailable", "refused", "lost-answer", "no-answer"]
"""`refused`: the request does not arrive. `lost-answer`: it is served, and the connection breaks before the response.
`no-answer`: it is served, and there is never a response. The others are answers with the status 409, 429, 500, 503."""

MODES: Final[tuple[Mode, ...]] = (
    "conflict",
    "throttled",
    "internal",
    "unavailable",
    "refused",
    "lost-answer",
    "no-answer",
)

_STATUS: Final[Mapping[str, tuple[int, str]]] = {
    "unauthorized": (401, "Unauthorized"),
    "conflict": (409, "Conflict"),
    "throttled": (429, "TooManyRequests"),
    "internal": (500, "InternalError"),
    "unavailable": (503, "ServiceUnavailable"),
}

SLOW_PROBABILITY: Final = 0.02
"""Part of the requests with a delay of seconds instead of milliseconds."""


CONCURRENT_SECONDS: Final = 10.0
"""Longest duration of a reconcile: the write of another one of the same process may be newer than what it has read."""


class _OnlyMetadata(msgspec.Struct):
    """An object of which only the metadata is decoded."""

    metadata: dict[str, Any] | None = None


_METADATA: Final = msgspec.json.Decoder(_OnlyMetadata)


class ProcessCrashed(ConnectionError):
    """A request of a process that has crashed; it cannot react to it."""


class Sender(Protocol):
    """The process that sends requests."""

    name: str
    is_suspended: bool
    is_cut: bool
    is_token_expired: bool
    is_date_hidden: bool

    @property
    def operator_name(self) -> str:
        """Name of the operator that the process is a replica of."""
        ...

    def count_write(self) -> None:
        """Counts a write that has taken effect."""
        ...


class Observer(Protocol):
    """The run, which decides what fails, and sees each request."""

    world: World
    trace: Trace

    def failure_of(self, process: Any, method: str) -> "Failures | None":
        """Returns the failure of a request; None if it succeeds."""
        ...

    def note_write(self, process: Any, method: str, target: str, body: bytes | None) -> None:
        """Checks a write immediately before it takes effect."""
        ...

    def note_own_conflict(self, process: Any, text: str) -> None:
        """Reports that a process has not read what it has written."""
        ...

    def stored_metadata(self, collection: str, name: str) -> dict[str, Any]:
        """Returns the metadata of an object of a collection's path in the server; empty if it does not exist."""
        ...


@final
@dataclass(slots=True)
class Failures:
    """An active failure of requests.

    Attributes:
        mode: what happens.
        probability: part of the matching requests that fail.
        rng: draws which.
        process: name of a process, or of an operator for all its replicas; empty for all.
        writes_only: whether reads succeed.
    """

    mode: Mode
    probability: float
    rng: random.Random
    process: str = ""
    writes_only: bool = False

    def hits(self, process: "Sender", method: str) -> bool:
        """Whether this request fails."""
        if self.process not in {"", process.name, process.operator_name} or (self.writes_only and method == "GET"):
            return False
        return (self.mode != "conflict" or method != "GET") and self.rng.random() < self.probability


@final
class Connection:
    """Transport of one start of a process."""

    def __init__(self, process: "Sender", run: "Observer", alive: list[bool], rng: random.Random) -> None:
        self._process = process
        self._run = run
        self._alive = alive
        self._rng = rng
        self._inner: InMemoryTransport = run.world.transport(agent=process.name)
        self._sent = 0
        self._created: dict[tuple[str, str], tuple[int, str]] = {}
        """Objects that the process knows to have created: number of requests at that time, and UID."""
        self._written: dict[str, tuple[float, str]] = {}
        """Objects that the process knows to have changed: time, and version."""

    @property
    def host(self) -> str:
        """The `host` label of metrics."""
        return self._inner.host

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        """Sends one request; raises the errors of `Transport.request`."""
        self._sent += 1
        number, began = self._sent, asyncio.get_running_loop().time()
        await asyncio.sleep(self._delay())
        self._check(method, target)
        if self._process.is_token_expired:
            return self._fail("unauthorized", method, target)
        failure = self._run.failure_of(self._process, method)
        if failure is not None and failure.mode not in {"lost-answer", "no-answer"}:
            return self._fail(failure.mode, method, target)
        if method != "GET":
            check_send_guard()  # the transport below does it again, at the same instant
            self._run.note_write(self._process, method, target, body)
        try:
            reply = await self._inner.request(method, target, headers=headers, body=body, timeout=timeout)
        except TransportError as error:
            self._run.trace.request(self._process.name, method, target, body, type(error).__name__)
            raise
        self._run.trace.request(self._process.name, method, target, body, reply.status)
        if reply.status == 409:
            self._check_conflict(method, target, body, number, began)
        if method != "GET":
            self._process.count_write()
        self._check(method, target)
        if failure is not None:
            return await self._lose(failure.mode, method, target, timeout)
        if self._process.is_suspended or self._rng.random() < 0.5:
            await asyncio.sleep(0)
            self._check(method, target)
        if method != "GET" and reply.status in {200, 201} and "dryRun" not in target:
            self._note_written(method, target, reply.body)
        return replace(reply, headers=self._shown(reply.headers)) if self._process.is_date_hidden else reply

    def _shown(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the headers without the time that a proxy removes."""
        return {name: value for name, value in headers.items() if name != "date"}

    def _note_written(self, method: str, target: str, body: bytes) -> None:
        """Notes what the process knows to have written."""
        path = target.partition("?")[0]
        metadata = _metadata(body)
        name = str(metadata.get("name", ""))
        if method == "POST":
            self._created[path, name] = (self._sent, metadata.get("uid", ""))
        else:
            key = path.removesuffix("/status")
            self._written[key] = (asyncio.get_running_loop().time(), metadata.get("resourceVersion", ""))

    def _check_conflict(self, method: str, target: str, body: bytes | None, number: int, began: float) -> None:
        """Checks that a conflict is not with the process's own write: its reads contain its own writes."""
        path = target.partition("?")[0].removesuffix("/status")
        if method == "POST":
            name = str(_metadata(body).get("name", ""))
            known, uid = self._created.get((path, name), (number, ""))
            if known < number and uid == self._run.stored_metadata(path, name).get("uid", ""):
                self._run.note_own_conflict(self._process, f"creates {path}/{name} again")
        elif path in self._written:
            at, version = self._written[path]
            collection, _, name = path.rpartition("/")
            current = self._run.stored_metadata(collection, name).get("resourceVersion", "")
            if began - at > CONCURRENT_SECONDS and version == current:
                self._run.note_own_conflict(self._process, f"changes {path} from a version before its own write")

    def _delay(self) -> float:
        draw = self._rng.random()
        if draw < SLOW_PROBABILITY:
            return self._rng.uniform(0.2, 3.0)
        return 0.0 if draw < 0.7 else self._rng.uniform(0.001, 0.1)

    def _check(self, method: str, target: str) -> None:
        if not self._alive[0]:
            message = f"{self._process.name} has crashed"
            raise _Crashed(message)
        if self._process.is_cut:
            message = f"{method} {target}: no route to the API server"
            raise TransportError(message)

    def _fail(self, mode: Mode | Literal["unauthorized"], method: str, target: str) -> Reply:
        self._run.trace.request(self._process.name, method, target, None, mode)
        if mode == "refused":
            message = f"{method} {target}: connection refused"
            raise TransportError(message)
        status, reason = _STATUS[mode]
        document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": f"simulated: {reason}",
            "reason": reason,
            "code": status,
        }
        headers = {"content-type": "application/json"} | ({"retry-after": "2"} if mode == "throttled" else {})
        return Reply(status, headers, json.dumps(document).encode())

    async def _lose(self, mode: Mode, method: str, target: str, timeout: float) -> Reply:
        if mode == "lost-answer":
            message = f"{method} {target}: connection reset"
            raise TransportError(message)
        await asyncio.sleep(timeout)
        message = f"{method} {target}: no response within {timeout:g} s"
        raise RequestTimeout(message)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AsyncGenerator[StreamReply]:
        """Opens a stream; raises the errors of `Transport.stream`."""
        await asyncio.sleep(self._delay())
        self._check(method, target)
        if self._process.is_token_expired:
            yield _Rejected(self._fail("unauthorized", method, target))
            return
        failure = self._run.failure_of(self._process, method)
        if failure is not None:
            message = f"{method} {target}: connection refused"
            raise TransportError(message)
        self._run.trace.request(self._process.name, method, target, None, "opens")
        async with self._inner.stream(method, target, headers=headers, connect=connect, idle=idle) as reply:
            yield _Undated(reply, self._shown(reply.headers)) if self._process.is_date_hidden else reply

    def reset(self) -> None:
        """Resets the open streams."""
        self._inner.break_streams()

    async def close(self) -> None:
        """Closes the connection."""
        await self._inner.close()


@final
class _Rejected:
    """A stream that the API server has rejected."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._body = reply.body

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the body."""
        yield self._body

    async def read(self) -> bytes:
        """Reads the body."""
        return self._body


@final
class _Undated:
    """A stream whose headers a proxy has changed."""

    def __init__(self, reply: StreamReply, headers: Mapping[str, str]) -> None:
        self.status = reply.status
        self.headers = headers
        self._reply = reply

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body."""
        return self._reply.chunks()

    async def read(self) -> bytes:
        """Reads the body."""
        return await self._reply.read()


def _metadata(body: bytes | None) -> dict[str, Any]:
    return _METADATA.decode(body or b"{}").metadata or {}


class _Crashed(TransportError, ProcessCrashed):
    """The process has crashed; a `TransportError`, so that the remains of the process end in order."""
