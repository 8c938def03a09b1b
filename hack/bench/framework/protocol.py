"""Implements a Python peer's side of the protocol (see `hack.bench.framework.peers`): events and latencies.

Standard library only, because kopf's peer runs in a separate environment.
"""

import asyncio
import ctypes
import gc
import json
import signal
import time
from typing import Any


def emit(event: str, **figures: Any) -> None:
    """Prints one event, which the benchmark reads."""
    print(json.dumps({"event": event, **figures}), flush=True)


def collect_on_signal() -> None:
    """On SIGUSR1 collect garbage, return freed memory to the system, and print `collected`. In a running loop only."""

    def collect() -> None:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # as Go's debug.FreeOSMemory does
        emit("collected")

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, collect)


class Latencies:
    """Collects the nanoseconds from the sending of a change, whose time the object contains, to its handling."""

    def __init__(self) -> None:
        self.nanoseconds: list[int] = []
        self._last: dict[str, str] = {}

    def record(self, name: str, sent: str | None) -> None:
        """Counts a change once; `sent` is CLOCK_MONOTONIC, which all processes of a machine share."""
        now = time.monotonic_ns()
        if sent and self._last.get(name) != sent:
            self._last[name] = sent
            self.nanoseconds.append(now - int(sent))
