"""Reports how far a transfer is: lines in the log, a JSON file, and an HTTP endpoint.

A pull in an init container writes all three. Its log shows `pulling 3.1 of 7.6 GB`; `GET /progress` and the file
contain `{"phase": "pulling", "bytes": 3100000000, "total": 7600000000, …}`.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, final

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 5.0

Phase = Literal["resolving", "waiting", "downloading", "hashing", "packing", "pushing", "pulling", "complete", "failed"]


def gigabytes(done: int, total: int) -> str:
    """Formats two sizes in one unit: `3.1 of 7.6 GB`."""
    return f"{_in_unit(done, total)} of {size_text(total)}"


def size_text(size: int) -> str:
    """Formats a size in decimal units: `7.6 GB`."""
    return f"{_in_unit(size, size)} {_unit(size)[1]}"


def _in_unit(value: int, size: int) -> str:
    factor, _ = _unit(size)
    return f"{value / factor:.1f}" if factor > 1 else str(value)


def _unit(size: int) -> tuple[int, str]:
    return (10**9, "GB") if size >= 10**9 else (10**6, "MB") if size >= 10**6 else (1, "bytes")


@final
@dataclass
class Progress:
    """Counts the bytes of a transfer; safe for use by several threads."""

    subject: str = ""
    """The reference that is transferred."""
    phase: Phase = "resolving"
    total: int = 0
    message: str = ""
    files: list[Path] = field(default_factory=list[Path])
    """JSON files that `reporting` writes."""
    _parts: dict[str, int] = field(default_factory=dict[str, int])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, phase: Phase, total: int, message: str = "") -> None:
        """Begins a phase of `total` bytes."""
        with self._lock:
            self.phase, self.total, self.message = phase, total, message
            self._parts.clear()

    def update(self, part: str, done: int) -> None:
        """Records that `done` bytes of one blob are transferred."""
        with self._lock:
            self._parts[part] = done

    def set_phase(self, phase: Phase, message: str = "") -> None:
        """Changes the phase; the counters stay."""
        with self._lock:
            self.phase, self.message = phase, message

    @property
    def done(self) -> int:
        """Bytes that are transferred."""
        with self._lock:
            return sum(self._parts.values())

    def snapshot(self) -> dict[str, Any]:
        """Returns the state as a JSON object."""
        done = self.done
        with self._lock:
            state: dict[str, Any] = {
                "phase": self.phase,
                "bytes": self.total if self.phase == "complete" else done,
                "total": self.total,
                "reference": self.subject,
            }
            return state | ({"message": self.message} if self.message else {})

    def line(self) -> str:
        """Returns the state as a line of the log."""
        if self.phase in ("resolving", "waiting", "complete", "failed") or not self.total:
            return self.message or f"{self.phase} {self.subject}".strip()
        return f"{self.phase} {gigabytes(self.done, self.total)}"


@contextmanager
def reporting(progress: Progress, *, interval_seconds: float = INTERVAL_SECONDS) -> Generator[None]:
    """Logs the progress and writes it to its files, at once, every few seconds and at the end."""
    stop = threading.Event()

    logged = ""

    def report() -> None:
        nonlocal logged
        write_state(progress)
        line = progress.line()
        if line != logged:
            log.info("%s", line)
        logged = line

    def repeat() -> None:
        report()
        while not stop.wait(interval_seconds):
            report()

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        report()


def write_state(progress: Progress) -> None:
    """Writes the progress to its files. A failure is ignored: a report must not end a transfer."""
    for file in tuple(progress.files):
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            partial.write_text(json.dumps(progress.snapshot()) + "\n", encoding="utf-8")
            partial.replace(file)
        except OSError as error:
            log.debug("progress cannot be written to %s: %s", file, error)


@contextmanager
def serving(
    progress: Progress, port: int | None, *, started: Callable[[int], None] = lambda _: None
) -> Generator[None]:
    """Serves `GET /progress` on `port` of all addresses; None serves nothing, 0 chooses a port."""
    if port is None:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/progress"
            body = json.dumps(progress.snapshot() if found else {"error": "the only path is /progress"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            pass

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        log.warning("progress is not served on port %d: %s", port, error)
        yield
        return
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="progress-server", daemon=True)
    thread.start()
    started(server.server_address[1])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
