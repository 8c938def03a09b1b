"""Trace of a simulated run: a digest of everything that was sent, and the lines of its report."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report."""

    at: float
    """Virtual seconds from the start."""
    source: str
    """`user`, `fault`, a process, or the part of the environment that acted."""
    text: str

    def __str__(self) -> str:
        hours, seconds = divmod(self.at, 3600)
        minutes, seconds = divmod(seconds, 60)
        return f"{int(hours)}:{int(minutes):02}:{seconds:06.3f}  {self.source:<26} {self.text}"


@final
class Trace:
    """Digest and lines of one run.

    Args:
        time: returns the virtual seconds.
        verbose: also keep a line for each write.
    """

    def __init__(self, time: Callable[[], float], *, verbose: bool = False) -> None:
        self.lines: list[Line] = []
        self.requests: int = 0
        """Number of requests of the simulated processes."""
        self.writes: int = 0
        self._time = time
        self._verbose = verbose
        self._is_closed = False
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Digest of all requests and lines so far: equal for two runs exactly if they did the same."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Ignores what follows: the end of the processes is not part of the run."""
        self._is_closed = True

    def line(self, source: str, text: str) -> None:
        """Adds a line to the report."""
        if self._is_closed:
            return
        line = Line(self._time(), source, text)
        self.lines.append(line)
        self._digest.update(str(line).encode())

    def request(self, source: str, method: str, target: str, body: bytes | None, outcome: int | str) -> None:
        """Records a request with its outcome: a status, or why there was no response."""
        if self._is_closed:
            return
        self.requests += 1
        self._digest.update(f"{self._time():.6f} {source} {method} {target} {outcome}".encode())
        if method == "GET":
            return
        self.writes += 1
        if body:
            self._digest.update(body)
        if self._verbose:
            self.lines.append(Line(self._time(), source, f"{method} {target} -> {outcome}"))
