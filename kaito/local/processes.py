"""Child processes of `kaito up`: started with a log file, watched, and stopped in reverse order.

A child that exits unexpectedly is a failure of the whole cluster; the error contains the last lines of its log.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path

from kaito.runtime.tasks import TaskScope

STOP_GRACE_SECONDS = 10.0
TAIL_LINES = 15


class ChildEnded(Exception):
    """A child process exited unexpectedly."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        super().__init__(f"{name} ended with exit code {code}; the end of {log}:\n{tail(log)}")
        self.name = name


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file."""
    try:
        with log.open(errors="replace") as file:
            return "".join(deque(file, maxlen=lines)).rstrip()
    except FileNotFoundError:
        return "(no log)"


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str]
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Runs a process for the length of the body: SIGTERM at the end, SIGKILL after ten seconds."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


@contextlib.contextmanager
def watched(scope: TaskScope, name: str, process: asyncio.subprocess.Process, log: Path) -> Generator[None]:
    """Raises `ChildEnded` in the scope if the child exits while the body runs."""

    async def complain() -> None:
        raise ChildEnded(name, await process.wait(), log)

    watcher = scope.spawn(complain(), name=name)
    try:
        yield
    finally:
        watcher.cancel()


async def run(name: str, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str]) -> None:
    """Runs a process to its end.

    Raises:
        ChildEnded: its exit code is not 0.
    """
    async with child(command, log, env=env) as process:
        code = await process.wait()
    if code:
        raise ChildEnded(name, code, log)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
