"""Answers for logs, commands and ports of pods in the in-memory cluster, whose pods do not run.

    def answer(call: ExecCall) -> ExecResult:
        return ExecResult(stdout=b"PostgreSQL 17.2") if call.command[0] == "postgres" else ExecResult(exit_code=127)

    world.answer_exec(answer)

`World` has the functions; `InMemoryTransport.websocket` makes the connections.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Final, final

from kaito.apiserver import HttpRequest, HttpResponse
from kaito.runtime.client.pods.execution import V4, V5
from kaito.runtime.errors import ConfigurationError, TransportError

PROTOCOLS: Final[Mapping[str, str]] = {"exec": V5, "portforward": V4}


@dataclass(frozen=True, slots=True)
class ExecCall:
    """A command that the code under test runs in a container."""

    namespace: str
    pod: str
    command: tuple[str, ...]
    container: str = ""
    """Empty if the call does not name it."""
    stdin: bytes = b""
    """The whole input."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The end of a command."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class PortCall:
    """Data that the code under test sends to a port of a pod."""

    namespace: str
    pod: str
    port: int
    data: bytes


ExecAnswer = Callable[[ExecCall], ExecResult | Awaitable[ExecResult]]
PortAnswer = Callable[[PortCall], Awaitable[bytes | None] | bytes | None]
"""Returns what the pod sends back for one part of the data; None closes the connection."""


@final
@dataclass
class PodAnswers:
    """The answers of one in-memory cluster."""

    exec: ExecAnswer | None = None
    port: PortAnswer | None = None
    logs: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    """By namespace, pod and container; an empty container is any."""

    async def log(self, namespace: str, pod: str, request: HttpRequest) -> HttpResponse | None:
        """Answers a request for a log."""
        container = request.param("container")
        text = self.logs.get((namespace, pod, container), self.logs.get((namespace, pod, "")))
        if text is None:
            return None
        lines = text.splitlines(keepends=True)
        if tail := request.param("tailLines"):
            lines = lines[max(len(lines) - int(tail), 0) :]
        return HttpResponse(200, {"content-type": "text/plain"}, "".join(lines).encode())

    def connect(self, path: str, query: tuple[tuple[str, str], ...], protocol: str) -> "InMemoryWebSocket":
        """Returns the connection for a path such as `/api/v1/namespaces/default/pods/a/exec`.

        Raises:
            ConfigurationError: the test has no answer for it.
        """
        _, _, _, _, namespace, _, pod, subresource = path.split("/")
        if subresource == "exec":
            if self.exec is None:
                raise ConfigurationError(f"exec in {namespace}/{pod}: give the world an answer with answer_exec()")
            return _Command(self.exec, _call(namespace, pod, query), protocol, waits=("stdin", "true") in query)
        if self.port is None:
            raise ConfigurationError(f"portforward of {namespace}/{pod}: give the world an answer with answer_port()")
        return _Port(self.port, namespace, pod, int(dict(query)["ports"]), protocol)


def _call(namespace: str, pod: str, query: tuple[tuple[str, str], ...]) -> ExecCall:
    command = tuple(value for name, value in query if name == "command")
    return ExecCall(namespace, pod, command, dict(query).get("container", ""))


class InMemoryWebSocket:
    """A connection to a pod: messages that wait for the code under test, and what happens with those that it sends."""

    def __init__(self, protocol: str) -> None:
        self.protocol: str = protocol
        self._messages: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._is_closed = False

    async def send(self, data: bytes) -> None:
        """Handles a message of the code under test."""
        if self._is_closed:
            raise TransportError("the connection is closed")
        await self._handle(data)

    async def receive(self) -> bytes | None:
        """Returns the next message; None at the end."""
        if self._is_closed and self._messages.empty():
            return None
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def reset(self) -> None:
        """Resets the connection: the reader gets an error."""
        self._is_closed = True
        self._messages.put_nowait(TransportError("connection reset"))

    async def begin(self) -> None:
        """Called when the connection is open."""

    async def _handle(self, data: bytes) -> None:
        raise NotImplementedError

    def _put(self, *messages: bytes | None) -> None:
        for message in messages:
            self._messages.put_nowait(message)
        self._is_closed = self._is_closed or None in messages


@final
class _Command(InMemoryWebSocket):
    """A command, which runs when its input has ended."""

    def __init__(self, answer: ExecAnswer, call: ExecCall, protocol: str, *, waits: bool) -> None:
        super().__init__(protocol)
        self._answer = answer
        self._call = call
        self._waits = waits
        self._stdin: list[bytes] = []

    async def begin(self) -> None:
        """Runs a command without an input at once."""
        if not self._waits:
            await self._run()

    async def _handle(self, data: bytes) -> None:
        if data[:1] == b"\x00":
            self._stdin.append(data[1:])
        elif data == b"\xff\x00":
            await self._run()

    async def _run(self) -> None:
        call = self._call
        given = ExecCall(call.namespace, call.pod, call.command, call.container, b"".join(self._stdin))
        answered = self._answer(given)
        result = await answered if isawaitable(answered) else answered
        status: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if result.exit_code:
            cause = {"reason": "ExitCode", "message": str(result.exit_code)}
            message = f"command terminated with non-zero exit code: exit status {result.exit_code}"
            status = {
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [cause]},
            }
        self._put(b"\x01" + result.stdout, b"\x02" + result.stderr, b"\x03" + json.dumps(status).encode(), None)


@final
class _Port(InMemoryWebSocket):
    """A connection to a port."""

    def __init__(self, answer: PortAnswer, namespace: str, pod: str, port: int, protocol: str) -> None:
        super().__init__(protocol)
        self._answer = answer
        self._namespace, self._pod, self._port = namespace, pod, port

    async def begin(self) -> None:
        """Sends the number of the port on both channels, as kubelets do."""
        number = self._port.to_bytes(2, "little")
        self._put(b"\x00" + number, b"\x01" + number)

    async def _handle(self, data: bytes) -> None:
        answered = self._answer(PortCall(self._namespace, self._pod, self._port, data[1:]))
        sent = await answered if isawaitable(answered) else answered
        self._put(None if sent is None else b"\x00" + sent)
