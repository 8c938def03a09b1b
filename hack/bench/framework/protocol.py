"""A Python peer's side of the protocol (see `hack.bench.framework.peers`): its events and latencies.

Standard library only, because kopf's peer runs in a separate environment.
"""

import asyncio
import ctypes
import gc
import json
import signal
import time
from typing import Any


def say(event: str, **figures: Any) -> None:
    """One line to the benchmark."""
    print(json.dumps({"event": event, **figures}), flush=True)


def collect_on_signal() -> None:
    """On SIGUSR1 collect garbage, return freed memory to the system, and print `collected`. In a running loop only."""

    def collect() -> None:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # as Go's debug.FreeOSMemory does
        say("collected")

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, collect)


class Latencies:
    """Nanoseconds from the moment a change was sent, which the object contains, to the moment it is handled."""

    def __init__(self) -> None:
        self.nanoseconds: list[int] = []
        self._last: dict[str, str] = {}

    def saw(self, name: str, sent: str | None) -> None:
        """Count a change once; `sent` is CLOCK_MONOTONIC, which all processes of a machine share."""
        now = time.monotonic_ns()
        if sent and self._last.get(name) != sent:
            self._last[name] = sent
            self.nanoseconds.append(now - int(sent))
