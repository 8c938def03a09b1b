"""The vLLM process: started, watched, searched for a context that fits, ended.

Used by `main`. Guarantees that the wrapper ends when the engine ends, with the engine's exit code, so that
Kubernetes restarts what has died; and that SIGTERM reaches the engine and is followed by SIGKILL if it is
ignored.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, final

log = logging.getLogger(__name__)

KEPT_LINES: Final = 400
"""Lines of output kept to find out why a start failed."""
TERMINATION_SECONDS: Final = 20.0


@final
class Engine:
    """One run of the engine's command."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: asyncio.subprocess.Process | None = None
        self._output: deque[str] = deque(maxlen=KEPT_LINES)

    async def start(self) -> None:
        """Start the process; its output goes to ours."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=2**20
        )

    async def wait(self) -> int:
        """Pass the output on until the process ends; returns its exit code."""
        process = self._running()
        output = process.stdout or asyncio.StreamReader()
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than the limit
                continue
            if not line:
                break
            text = line.decode(errors="replace")
            self._output.append(text)
            sys.stderr.write(text)
        return await process.wait()

    @property
    def output(self) -> str:
        """The last lines of output."""
        return "".join(self._output)

    async def stop(self) -> None:
        """End the process."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(TERMINATION_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("the engine ignores SIGTERM; killing it")
            process.kill()
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the engine was not started")
        return self._process
