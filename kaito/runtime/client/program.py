"""Runs another program and returns its output, within limits of time and size. Used for credential plugins.

The program gets a session of its own, so that it can be ended with everything that it started: a shell script is
usually the parent of what hangs. Its end is the end of the process itself, not of its output: a child that it left
behind may hold the pipes open for as long as it likes.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE
from typing import Final, TypeAlias, final

from kaito.runtime.tasks import TaskScope

STDOUT_BYTES: Final = 2**20
"""Longest output that is kept."""

STDERR_BYTES: Final = 2**23
"""Longest standard error that is read; its end is kept."""

STDERR_TAIL_BYTES: Final = 2**12

DRAIN_SECONDS: Final = 1.0
"""After the program's end its pipes get this long to close, and what holds them then is killed."""

KILL_SECONDS: Final = 2.0
"""A killed process gets this long to be gone; one that is stuck in the kernel is left."""

_STDOUT, _STDERR = 1, 2


class ProgramTimeout(Exception):
    """The program did not end in time and was killed."""


class ProgramOutputTooLarge(Exception):
    """The program wrote more than the limit, and was killed."""


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """How a program ended."""

    code: int
    """Exit code; negative: the number of the signal that ended it."""
    stdout: bytes
    stderr: bytes
    """The end of its standard error."""


@final
class _ProcessProtocol(asyncio.SubprocessProtocol):
    """Collects what the program writes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done at the process's end; failed when it floods us."""
        self.gone = asyncio.Event()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._stderr_bytes = 0
        self._open = {_STDOUT, _STDERR}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDOUT:
            self.stdout += data
            if len(self.stdout) > STDOUT_BYTES:
                self._fail_too_large(f"more than {STDOUT_BYTES >> 20} MiB")
        else:
            self._stderr_bytes += len(data)
            self.stderr += data
            del self.stderr[:-STDERR_TAIL_BYTES]
            if self._stderr_bytes > STDERR_BYTES:
                self._fail_too_large(f"more than {STDERR_BYTES >> 20} MiB to standard error")

    def _fail_too_large(self, how_much: str) -> None:
        del self.stdout[STDOUT_BYTES:]
        if not self.ended.done():
            self.ended.set_exception(ProgramOutputTooLarge(how_much))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's
        self._open.discard(fd)
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        self.gone.set()
        if not self.ended.done():
            self.ended.set_result(None)


async def run_program(command: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> CompletedProgram:
    """Run a program to its end, without input.

    Args:
        command: the program and its arguments.
        environment: all of its environment variables.
        seconds: longest it may take.

    Raises:
        OSError: it does not start.
        ProgramTimeout: it took longer; it was killed with everything that it started.
        ProgramOutputTooLarge: it wrote too much; likewise.
    """
    started = await _start(command, environment)
    process, protocol = started
    clean = False
    try:
        async with asyncio.timeout(seconds):
            await protocol.ended
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.shield(protocol.drained)
        clean = protocol.drained.done()
        code = process.get_returncode()
        return CompletedProgram(-1 if code is None else code, bytes(protocol.stdout), bytes(protocol.stderr))
    except TimeoutError as error:
        message = f"longer than {seconds:g} s"
        raise ProgramTimeout(message) from error
    finally:
        await _end(*started, kill=not clean)


_Started: TypeAlias = tuple[asyncio.SubprocessTransport, _ProcessProtocol]


async def _start(command: Sequence[str], environment: Mapping[str, str]) -> _Started:
    """Start the program. A cancellation meanwhile waits until it can be killed as a whole."""
    async with TaskScope("program") as scope:
        starting = scope.spawn(
            asyncio.get_running_loop().subprocess_exec(
                _ProcessProtocol,
                *command,
                env=environment,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            ),
            name="start",
        )
        try:
            await asyncio.wait([starting])
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if starting.exception() is None:
                await _end(*starting.result(), kill=True)
            raise
    return starting.result()


async def _end(process: asyncio.SubprocessTransport, protocol: _ProcessProtocol, *, kill: bool) -> None:
    if kill:
        _kill_group(process.get_pid())
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await protocol.gone.wait()
    process.close()
    await asyncio.wait([protocol.drained], timeout=DRAIN_SECONDS)  # the pipes close in the loop's next rounds


def _kill_group(leader: int) -> None:
    """Kill the process and what it started, apart from what has left for a session of its own."""
    with suppress(ProcessLookupError, PermissionError):  # gone, or nothing in it is ours to kill
        os.killpg(leader, signal.SIGKILL)
