"""Runs another program and returns its output, with limits of time and size.

Used for credential plugins. The program runs in a new session, so that it can be killed together with its child
processes: a hanging program is often started by a shell script. The program has ended when its process has exited, even
if its pipes are still open: a background child process may keep them open indefinitely.
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
"""Maximum size of the standard output."""

STDERR_BYTES: Final = 2**23
"""Maximum size of the standard error, of which the end is returned."""

STDERR_TAIL_BYTES: Final = 2**12

DRAIN_SECONDS: Final = 1.0
"""Time limit for the pipes to close after the program's exit; then the processes that keep them open are killed."""

KILL_SECONDS: Final = 2.0
"""Time limit for a killed process to exit; one that is stuck in the kernel is abandoned."""

_STDOUT, _STDERR = 1, 2


class ProgramTimeout(Exception):
    """The program exceeded its time limit and was killed."""


class ProgramOutputTooLarge(Exception):
    """The program wrote more than the limit and was killed."""


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """Exit code and output of a program."""

    code: int
    """Exit code; a negative number is the signal that ended the program."""
    stdout: bytes
    stderr: bytes
    """The last bytes of the standard error."""


@final
class _ProcessProtocol(asyncio.SubprocessProtocol):
    """Collects the output of a program."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Completes when the process exits; fails if it exceeds the output limit."""
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
    """Runs a program without input until it exits.

    Args:
        command: The program and its arguments.
        environment: All environment variables.
        seconds: Time limit.

    Raises:
        OSError: The program could not be started.
        ProgramTimeout: The time limit was exceeded; the program and its child processes were killed.
        ProgramOutputTooLarge: The output limit was exceeded; they were killed as well.
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
    """Starts the program. A cancellation is delayed until the program can be killed with its child processes."""
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
    await asyncio.wait([protocol.drained], timeout=DRAIN_SECONDS)  # the pipes close in the next iterations of the loop


def _kill_group(leader: int) -> None:
    """Kills the process and its child processes, except those that started a new session."""
    with suppress(ProcessLookupError, PermissionError):  # already exited, or all processes belong to another user
        os.killpg(leader, signal.SIGKILL)
