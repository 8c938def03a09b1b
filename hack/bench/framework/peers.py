"""Runs the peers of the framework's benchmarks as processes: builds, starts and reads them, and reports unexpected
exits.

A peer is a program `COMMAND MODE KUBECONFIG [OPTIONS]` that writes one JSON object a line to its standard output, each
with an `event`:

| event       | when                                                                              |
|-------------|-----------------------------------------------------------------------------------|
| `synced`    | its caches are full (and its workers are about to start)                           |
| `collected` | after SIGUSR1: garbage is collected and free memory returned to the system     |
| `result`    | the measurement of its mode is complete                                             |
| `end`       | after SIGTERM: the figures of the run                              |

Benchmarks use `peer()`; a peer that exits early, or prints nothing for too long, is an error that contains its log.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, final

from hack.bench.process import Cost, cost_of
from hack.envtest.binaries import cache_directory
from kaito.runtime.tasks import TaskScope

T = TypeVar("T")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KOPF_REQUIREMENT = "kopf==1.45.*"
KUBECONFIG_REQUIREMENT = "kubernetes-asyncio>=33"
LINE_BYTES = 16 * 1024 * 1024
"""Longest line of a peer: those that measured latencies send all of them."""
SILENCE_SECONDS = 300.0
STOP_SECONDS = 60.0
LOG_LINES = 20

OURS = "ours"
CONTROLLER_RUNTIME = "controller-runtime"
KOPF = "kopf"
WATCH = "a bare watch"


class PeerFailed(Exception):
    """A peer could not start, exited early, or printed nothing for too long; contains the last lines of its log."""


def command(peer: str) -> list[str]:
    """Returns the command that starts a peer, without its mode; builds or installs missing programs.

    Raises:
        PeerFailed: Go is not installed.
        subprocess.CalledProcessError: the build or installation failed.
    """
    if peer == OURS:
        return [str(_our_python()), "-m", "hack.bench.framework.peer_ours"]
    if peer == WATCH:
        return [sys.executable, "-m", "hack.bench.framework.peer_watch"]
    if peer == KOPF:
        return [str(_kopf_python()), str(HERE / "peer_kopf.py")]
    if shutil.which("go") is None:
        raise PeerFailed("the peer on controller-runtime is built with Go, which is not installed")
    binary = cache_directory().parent / "controller-runtime-peer"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "controller_runtime", check=True)
    return [str(binary)]


def load(kubeconfig: str, *, rate: float, seconds: float, objects: int) -> list[str]:
    """Returns the command of the load generator, which prints events like a peer."""
    program = [sys.executable, "-m", "hack.bench.framework.load", kubeconfig]
    return [*program, "--rate", str(rate), "--seconds", str(seconds), "--objects", str(objects)]


def _our_python() -> Path:
    """Returns the interpreter of an environment without development tools: they install rich, which structlog
    imports. It reads the kubeconfig of the control plane, which a pod does not."""
    return _environment("ours", "-r", str(ROOT / "requirements" / "workspace.txt"), KUBECONFIG_REQUIREMENT)


def _kopf_python() -> Path:
    """Returns the interpreter of kopf's environment."""
    return _environment("kopf", KOPF_REQUIREMENT)


def _environment(name: str, *packages: str) -> Path:
    """Returns an environment's interpreter; creates it on first use, with compiled modules as in an image."""
    python = ROOT / ".venv-bench" / name / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(python.parents[1])], check=True)
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python)]
        subprocess.run([*install, *packages], check=True)
    return python


@final
class Peer:
    """A running peer."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        if process.stdout is None:
            raise ValueError(f"{name} was started without a pipe")
        self.name = name
        self._process = process
        self._output = process.stdout
        self._log = log

    @property
    def cost(self) -> Cost:
        """CPU time and memory so far.

        Raises:
            PeerFailed: it has ended.
        """
        try:
            return cost_of(self._process.pid)
        except (OSError, KeyError) as error:  # ended, or a zombie without memory
            raise self._failed("has ended") from error

    async def until(self, event: str, *, timeout: float = SILENCE_SECONDS) -> dict[str, Any]:
        """Reads the next line with this event; others are ignored.

        Raises:
            PeerFailed: it exited, or did not print the event in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while line := await self._output.readline():
                    line_event: dict[str, Any] = json.loads(line)
                    if line_event["event"] == event:
                        return line_event
        except TimeoutError as error:
            raise self._failed(f"did not print {event!r} within {timeout:g} s") from error
        raise self._failed(f"ended with exit code {await self._process.wait()} before {event!r}")

    async def collect(self) -> None:
        """Collects garbage in the peer and returns free memory to the system."""
        self._process.send_signal(signal.SIGUSR1)
        await self.until("collected")

    async def alongside(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns the result of `work`, which is canceled when the peer exits.

        Raises:
            PeerFailed: the peer ended first.
        """
        async with TaskScope(self.name) as scope:
            working = scope.spawn(work, name="work")
            ended = scope.spawn(self._process.wait(), name="end")
            await asyncio.wait([working, ended], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise self._failed(f"ended with exit code {ended.result()}")
            return await working

    async def quiet(self, *, within: float, cores: float = 0.05, seconds: float = 1.0) -> Cost:
        """Returns the cost when the peer has used less than `cores` of a core for `seconds`, or after `within`
        seconds."""
        deadline = asyncio.get_running_loop().time() + within
        before = self.cost
        while True:
            await asyncio.sleep(seconds)
            after = self.cost
            used = after.cpu_seconds - before.cpu_seconds
            if used < cores * seconds or asyncio.get_running_loop().time() > deadline:
                return after
            before = after

    async def end(self) -> dict[str, Any]:
        """Stops it and waits; returns its `end` event.

        Raises:
            PeerFailed: it has already ended, does not stop, or stops with an error.
        """
        if self._process.returncode is not None:
            raise self._failed(f"had ended with exit code {self._process.returncode}")
        self._process.terminate()
        event = await self.until("end", timeout=STOP_SECONDS)
        async with asyncio.timeout(STOP_SECONDS):
            code = await self._process.wait()
        if code != 0:
            raise self._failed(f"stopped with exit code {code}")
        return event

    async def kill(self) -> None:
        """Kills it if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _failed(self, what: str) -> PeerFailed:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return PeerFailed(f"{self.name} {what}:\n{tail}")


@asynccontextmanager
async def peer(name: str, started: Sequence[str], *, log: Path) -> AsyncGenerator[Peer]:
    """Runs a peer during the `async with` block, and always stop it at the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs are compiled once, not at each start
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *started, stdout=asyncio.subprocess.PIPE, stderr=errors, env=env, limit=LINE_BYTES
        )
    running = Peer(name, process, log)
    try:
        yield running
    finally:
        await running.kill()
