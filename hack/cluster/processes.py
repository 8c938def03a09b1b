"""Starts and stops the processes of a cluster by recorded process ID.

A record holds the process ID and the start time that the kernel reports for it. A process is only ever signaled if both
match, so a record of an earlier boot or a reused ID never ends a foreign process.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import Layout

_START_TIME_FIELD = 21
"""Index of `starttime` in /proc/PID/stat (proc(5) counts from 1)."""


class StartFailed(RuntimeError):
    """Raised when a process ends or does not become ready; the message has the end of its log."""


@dataclass(frozen=True)
class Record:
    """Process ID and start time of a process, in clock ticks since boot."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether the recorded process still runs (a zombie does not)."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None if it does not run."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command, in parentheses, may contain spaces.
    fields = content.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_TIME_FIELD - 2])


class Processes:
    """The processes of one cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def record(self, name: str) -> Record | None:
        """Returns the record of a process, running or not; None if there is none or it is damaged."""
        try:
            pid, started = (self._layout.pids / name).read_text().split()
            return Record(int(pid), int(started))
        except (FileNotFoundError, ValueError):
            return None

    def is_running(self, name: str) -> bool:
        """Whether a process runs."""
        record = self.record(name)
        return record is not None and record.is_alive

    def running(self) -> dict[str, int]:
        """Returns the process ID of every running process by name."""
        names = sorted(path.name for path in self._layout.pids.glob("*"))
        records = {name: record for name in names if (record := self.record(name)) is not None}
        return {name: record.pid for name, record in records.items() if record.is_alive}

    def log(self, name: str) -> Path:
        """Returns the path of a process's log."""
        return self._layout.logs / f"{name}.log"

    def start(self, name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Starts a process inside of the network namespace, unless it runs."""
        if self.is_running(name):
            return
        # nsenter and nice replace themselves, so the process ID is the program's.
        words = ["nsenter", f"--net={self._layout.namespace_file}", "nice", "-n", "2", *map(str, command)]
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **(environment or {})},
            )
        started = start_time(process.pid)
        (self._layout.pids / name).write_text(f"{process.pid} {started if started is not None else 0}\n")
        process.returncode = 0  # the process outlives this one: no warning about a child that is still running

    def stop(self, name: str, timeout_seconds: float = 30) -> None:
        """Stops a process, with SIGKILL after the time limit, and removes its record."""
        record = self.record(name)
        if record is not None and record.is_alive:
            send(record, signal.SIGTERM)
            if not ended(record, timeout_seconds):
                send(record, signal.SIGKILL)
                ended(record, timeout_seconds)
        (self._layout.pids / name).unlink(missing_ok=True)

    def wait(self, name: str, is_ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Waits until a process is ready.

        Raises:
            StartFailed: the process ended, or the time limit passed.
        """
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running(name):
                raise StartFailed(f"{name} ended during its start; the end of {self.log(name)}:\n{self.log_end(name)}")
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{name} was not ready after {timeout_seconds:.0f} s; the end of {self.log(name)}:\n"
                    f"{self.log_end(name)}"
                )
            time.sleep(0.2)

    def log_end(self, name: str, lines: int = 15) -> str:
        """Returns the last lines of a process's log."""
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"


def send(record: Record, number: signal.Signals) -> None:
    """Sends a signal to a recorded process; does nothing if it has ended."""
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        return


def ended(record: Record, timeout_seconds: float) -> bool:
    """Waits until a recorded process has ended; returns whether it has."""
    deadline = time.monotonic() + timeout_seconds
    while record.is_alive:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record.pid, os.WNOHANG)  # reaps it if it is a child of this process
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
