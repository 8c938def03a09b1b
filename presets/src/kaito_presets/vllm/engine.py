"""Runs the vLLM process.

Used by `main`. Guarantees that the output of the engine is in the log of the wrapper, and that `stop` ends the process:
with SIGTERM, and with SIGKILL after `TERMINATION_SECONDS`.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

log = logging.getLogger(__name__)

OUTPUT_LINES: Final = 400
"""Most recent lines of output that are stored to find the cause of a failed start."""
TERMINATION_SECONDS: Final = 20.0
LOADED: Final = "Model loading took"
"""Text of the line that vLLM's worker logs when the weights are in memory, before it profiles and compiles
(`vllm/v1/worker/gpu_model_runner.py`)."""


@final
class Engine:
    """One process of the engine.

    Args:
        command: the command line.
        on_loaded: called when the weights are in memory, according to the output.
    """

    def __init__(self, command: Sequence[str], *, on_loaded: Callable[[], None] = lambda: None) -> None:
        self._command = list(command)
        self._on_loaded = on_loaded
        self._process: asyncio.subprocess.Process | None = None
        self._output: deque[str] = deque(maxlen=OUTPUT_LINES)

    async def start(self) -> None:
        """Starts the process.

        Raises:
            OSError: the executable does not exist or cannot be run.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=2**20
        )

    async def wait(self) -> int:
        """Forwards the output until the process exits; returns its exit code."""
        process = self._running()
        output = process.stdout or asyncio.StreamReader()
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than the limit of the stream; the rest of it follows
                continue
            if not line:
                break
            text = line.decode(errors="replace")
            self._output.append(text)
            if LOADED in text:
                self._on_loaded()
            sys.stderr.write(text)
        return await process.wait()

    @property
    def output(self) -> str:
        """The most recent lines of output."""
        return "".join(self._output)

    async def stop(self) -> None:
        """Terminates the process, if it is running."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(TERMINATION_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("the engine did not exit within %.0f s of SIGTERM; killing it", TERMINATION_SECONDS)
            process.kill()
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the engine was not started")
        return self._process
