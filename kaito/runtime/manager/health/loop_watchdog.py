"""The main loop's pulse: how late it runs its timers, and where it is stuck when it does not beat.

A timer in the loop beats; a thread watches the beats and logs the loop's stack when one is overdue. The lease thread
reads the pulse too: a process whose main loop is blocked must not keep renewing.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, final

from kaito.runtime.logging import get_logger
from kaito.runtime.metrics import Metrics

BEAT_SECONDS = 0.5
"""Between beats."""

WORST_SECONDS = 30.0
"""The metric shows the worst lag of one to two times this long: a scrape would never meet the one late beat."""

BLOCKED_SECONDS = 1.0
"""A loop that has not beaten for this long (beyond the beat itself) is reported with its stack."""

FORGIVEN_SECONDS = 10.0
"""Longest that a deliberate blockage goes unreported."""

_log = get_logger(__name__)


def in_real_time(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop's clock is the machine's. A simulated one cannot be late, and threads cannot follow it."""
    return abs(loop.time() - time.monotonic()) < BLOCKED_SECONDS


@final
class Pulse:
    """Beats as long as the loop runs its timers. `async with`, inside the loop. Does nothing in simulated time.

    Args:
        metrics: where the lag is exported.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._watch = True
        self._beaten_at = time.monotonic()
        self._due = 0.0
        self._lag = 0.0
        self._worst = [0.0, 0.0]
        """Of this period, and of the one before."""
        self._period_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._watch = in_real_time(loop)
        self._due = loop.time()
        self._beat(loop)
        if self._watch:
            self._thread = threading.Thread(
                target=self._watch_loop, args=(threading.get_ident(),), name="pulse", daemon=True
            )
            self._thread.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stop.set()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._lag = max(0.0, now - self._due)
        if now >= self._period_ends:
            self._worst = [0.0, self._worst[0]]
            self._period_ends = now + WORST_SECONDS
        self._worst[0] = max(self._worst[0], self._lag)
        self._metrics.loop_lag.set(max(self._worst))
        self._beaten_at = time.monotonic()
        self._due = now + BEAT_SECONDS
        self._timer = loop.call_at(self._due, self._beat, loop)

    @property
    def lag(self) -> float:
        """Seconds the loop is late, now or at its last beat. Any thread may ask."""
        return max(self._lag, self.overdue)

    @property
    def overdue(self) -> float:
        """Seconds since the next beat was due; 0 while it is not. Any thread may ask."""
        if not self._watch:
            return 0.0
        return max(0.0, time.monotonic() - self._beaten_at - BEAT_SECONDS)

    @contextmanager
    def forgiven(self) -> Generator[None]:
        """The body blocks the loop on purpose: that is not reported, and does not hold up the lease."""
        self._beaten_at = time.monotonic() + FORGIVEN_SECONDS
        try:
            yield
        finally:
            self._beaten_at = time.monotonic()
            self._due = max(self._due, asyncio.get_running_loop().time())

    def _watch_loop(self, loop_thread: int) -> None:
        reported = 0.0
        while not self._stop.wait(BEAT_SECONDS):
            beaten_at, blocked = self._beaten_at, self.overdue
            if blocked < BLOCKED_SECONDS or reported == beaten_at:
                continue
            reported = beaten_at  # once per blockage
            frame = sys._current_frames().get(loop_thread)  # pyright: ignore[reportPrivateUsage] -- documented, despite its name
            over = self._beaten_at != beaten_at  # then the loop is elsewhere by now
            stack = "" if frame is None or over else "".join(traceback.format_stack(frame))
            _log.warning(
                "event loop is blocked: something runs without awaiting",
                blocked_seconds=round(blocked, 1),
                stack=stack,
            )
