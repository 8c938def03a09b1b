"""The live view: one line per change, with the seconds since the start.

It prints only the state of the API server and the cloud; on a terminal, states are colored.
"""

import asyncio
import sys
from typing import TextIO, final

import aiohttp

from kaito.local.cluster import LocalCluster
from kaito.local.progress import Fact, observe
from kaito.runtime.clock import monotonic

REFRESH_SECONDS = 0.2
_GREEN, _YELLOW, _RED, _DIM, _PLAIN = "\033[32m", "\033[33m", "\033[31m", "\033[2m", "\033[0m"


@final
class View:
    """Prints changes; `timeline` holds the lines for a summary."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._color = out.isatty()
        self._started: float | None = None
        self._seen: dict[tuple[str, str], str] = {}
        self.timeline: list[tuple[float, Fact]] = []

    def elapsed(self) -> float:
        """Seconds since the first line."""
        if self._started is None:
            self._started = monotonic()
        return monotonic() - self._started

    def print(self, text: str) -> None:
        """Prints a line with the elapsed seconds."""
        self._out.write(f"{self._paint(f'{self.elapsed():6.1f}s', _DIM)}  {text}\n")
        self._out.flush()

    def print_text(self, text: str) -> None:
        """Prints text unchanged."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def show(self, facts: list[Fact]) -> None:
        """Prints new, changed and deleted objects."""
        current = {(fact.kind, fact.name): fact.state for fact in facts}
        for fact in facts:
            if self._seen.get((fact.kind, fact.name)) != fact.state:
                self._line(fact)
        for kind, name in [key for key in self._seen if key not in current]:
            self._line(Fact(kind, name, "deleted"))
        self._seen = current

    async def follow(self, cluster: LocalCluster) -> None:
        """Prints changes until cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                self.show(await observe(cluster, session))
                await asyncio.sleep(REFRESH_SECONDS)

    def _line(self, fact: Fact) -> None:
        self.timeline.append((self.elapsed(), fact))
        self.print(f"{fact.kind:<11} {fact.name:<34} {self._paint(fact.state, _color(fact.state))}")

    def _paint(self, text: str, color: str) -> str:
        return f"{color}{text}{_PLAIN}" if self._color and color else text


def _color(state: str) -> str:
    if any(word in state for word in ("CrashLoop", "Failed", "Error", "Err", "Exceeded")):
        return _RED
    if "=True" in state and "=False" not in state and "=-" not in state and "Unknown" not in state:
        return _GREEN
    if state in {"Ready", "Succeeded", "Running, ready"} or state.startswith("Ready"):
        return _GREEN
    return _DIM if state == "deleted" else _YELLOW
