"""A command that runs in a container: the channels of `v5.channel.k8s.io`.

The first byte of a message is its channel: 0 input, 1 output, 2 errors, 3 the result as a Status, 4 the size of the
terminal. In version 5, a message of channel 255 with the byte 0 ends the input.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

from kaito.runtime.client.transport import WebSocket
from kaito.runtime.errors import ApiError, ConfigurationError, TransportError, api_error

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"

MESSAGE_BYTES: Final = 2**15
"""Longest part of the input that is sent in one message, the size that the API server reads."""

_STDIN, _STDOUT, _STDERR, _RESULT, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_NAMES: Final[Mapping[int, Literal["stdout", "stderr"]]] = {_STDOUT: "stdout", _STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class Output:
    """A part of the output, as it was received."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """The standard output as text, without white space at its ends."""
        return self.stdout.decode(errors="replace").strip()


@final
class Execution:
    """A running command; made by `Pods.exec`.

    Read the output with `output` until it ends, or with `wait`: a command whose output is not read waits when a few
    hundred KiB are on the way. Writing and reading may be in different tasks.
    """

    def __init__(self, socket: WebSocket, what: str) -> None:
        self._socket = socket
        self._what = what
        self._exit_code: int | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the command runs."""
        return self._exit_code

    async def write(self, data: bytes) -> None:
        """Writes to the standard input; waits while the command reads more slowly.

        Raises:
            TransportError: the connection was lost, or the command has ended.
        """
        for position in range(0, len(data), MESSAGE_BYTES):
            await self._socket.send(bytes([_STDIN]) + data[position : position + MESSAGE_BYTES])

    async def close_stdin(self) -> None:
        """Ends the standard input: the command reads the end of its input.

        Raises:
            ConfigurationError: the server has only version 4 of the protocol, which cannot end the input.
            TransportError: the connection was lost.
        """
        if self._socket.protocol != V5:
            raise ConfigurationError(f"{self._what}: {self._socket.protocol} cannot end the input; use Kubernetes 1.30")
        await self._socket.send(bytes([_CLOSE, _STDIN]))

    async def resize(self, columns: int, rows: int) -> None:
        """Sets the size of the terminal.

        Raises:
            TransportError: the connection was lost.
        """
        size = json.dumps({"Width": columns, "Height": rows}).encode()
        await self._socket.send(bytes([_RESIZE]) + size)

    async def output(self) -> AsyncGenerator[Output]:
        """Yields the output until the command has ended.

        Raises:
            ApiError: the command could not be started, or the container ended.
            TransportError: the connection was lost, so that the exit code is unknown.
        """
        while self._exit_code is None:
            message = await self._socket.receive()
            if message is None:
                raise TransportError(f"{self._what}: the connection ended without the result of the command")
            channel, data = message[:1], message[1:]
            if channel == bytes([_RESULT]) and data:
                self._exit_code = _exit_code(data, self._what)
            elif data and (name := _NAMES.get(channel[0])) is not None:
                yield Output(name, data)

    async def wait(self) -> int:
        """Drops the rest of the output, and returns the exit code. Raises the errors of `output`."""
        async with aclosing(self.output()) as rest:
            async for _ in rest:
                pass
        return cast("int", self._exit_code)


def _exit_code(data: bytes, what: str) -> int:
    """Returns the exit code in a Status; raises the error of another failure."""
    try:
        status: Mapping[str, Any] = json.loads(data)
        if status.get("status") == "Success":
            return 0
        details: Mapping[str, Any] = status.get("details") or {}
        causes: list[Mapping[str, Any]] = details.get("causes") or []
        codes = [int(cause.get("message", "")) for cause in causes if cause.get("reason") == "ExitCode"]
    except (AttributeError, ValueError) as error:
        raise TransportError(f"{what}: the result of the command is malformed: {error}") from None
    if codes:
        return codes[0]
    raise _failure(status, what)


def _failure(status: Mapping[str, Any], what: str) -> ApiError:
    code = status.get("code")
    return api_error(code if isinstance(code, int) and code >= 400 else 500, status, request=what)
