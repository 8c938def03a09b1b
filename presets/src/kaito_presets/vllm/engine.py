"""Runs the vLLM process.

Used by `main`. Guarantees that the output of the engine is in the log of the wrapper, and that `stop` ends the process:
with SIGTERM, and with SIGKILL after `TERMINATION_SECONDS`.
"""

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

from kaito_presets.vllm.figures import EngineFigures

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
        self.figures = EngineFigures()
        """Measurements that the output contains."""

    async def start(self) -> None:
        """Starts the process.

        Raises:
            OSError: the executable does not exist or cannot be run.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
            start_new_session=True,
        )

    async def wait(self) -> int:
        """Forwards the output until the process exits; returns its exit code.

        Processes that the engine leaves behind are killed: they hold its output and the memory of the GPUs.
        """
        process = self._running()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forward(process.stdout or asyncio.StreamReader()))
            await _wait_for_end(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()

    async def _forward(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than the limit of the stream; the rest of it follows
                continue
            if not line:
                break
            text = line.decode(errors="replace")
            self._output.append(text)
            self.figures.read(text)
            if LOADED in text:
                self._on_loaded()
            sys.stderr.write(text)

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


async def _wait_for_end(pid: int) -> None:
    """Waits until the process ends. `Process.wait` also waits for the processes that hold its output open."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
