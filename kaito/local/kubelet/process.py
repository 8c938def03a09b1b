"""One operating-system process of a container: started in a process group, logged to a file, terminated gracefully."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Self, final

from kaito.local.kubelet.images import Launch


@final
class Process:
    """A running process whose whole group is signaled, so that `sh -c` children end with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, launch: Launch, log: Path) -> Self:
        """Starts the process with both outputs appended to `log`.

        Raises:
            OSError: the program does not exist or cannot be executed.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launch.argv,
                env=dict(launch.env),
                cwd=launch.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code as a container reports it: 128 + n when ended by signal n."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)  # grandchildren that outlived their parent
        return code if code >= 0 else 128 - code

    async def stop(self, grace_seconds: float) -> int:
        """SIGTERM, then SIGKILL after the grace period; the exit code."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                return await self.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self.wait()

    def kill(self) -> None:
        """Sends SIGKILL and returns at once."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Sends SIGTERM and returns at once."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # the group has ended already
            os.killpg(self._process.pid, number)


async def run_to_end(launch: Launch, log: Path) -> int:
    """Runs a short command and returns its exit code; it does not outlive a cancellation."""
    process = await Process.start(launch, log)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await process.stop(0)
        raise
