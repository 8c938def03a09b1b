"""A manager as a process: its event loop, its signals, its exit code. Called by `Manager.run`."""

import asyncio
import gc
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from kaito.runtime.clock import monotonic
from kaito.runtime.controller.outcome import describe
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.manager.health.loop_watchdog import Pulse
from kaito.runtime.manager.runnable import ShutdownTimedOut
from kaito.runtime.manager.threads import Threads

if TYPE_CHECKING:
    from kaito.runtime.manager.manager import Manager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

EXIT_SECONDS = 10.0
"""Beyond the graceful period: the last events, open requests and the lease have limits of their own. Then the process
ends even if something blocks it: the loop, or a thread of another library."""

SECOND_SIGNAL = b'{"level": "warning", "msg": "second signal, exiting at once"}\n'

EXIT_CLEAN = 0
EXIT_FAILED = 1

GC_THRESHOLDS = (10_000, 50, 100)
"""Collect young objects every 10,000 allocations instead of 700: a list of 1,000 pods is decoded in a third of the time
(docs/internals/benchmarks.md), and a few MiB of cycles may wait a little longer."""

_log = get_logger(__name__)


def run_process(manager: "Manager", threads: Threads, pulse: Pulse) -> None:
    """Run the manager; see `Manager.run`."""
    configure(manager.settings.log_format, manager.settings.log_level)
    threads.own_process()
    code = EXIT_FAILED
    try:
        with asyncio.Runner() as runner:
            runner.run(_main(manager, threads, pulse))
        code = EXIT_CLEAN
    except KaitoRuntimeError as error:
        _log.error("stopped by a failure", error=describe(error))
    except Exception:  # noqa: BLE001 - the outermost boundary: logged with its stack, told by the exit code
        _log.exception("stopped by an unexpected error")
    sys.exit(code)


async def _main(manager: "Manager", threads: Threads, pulse: Pulse) -> None:
    threads.attach()
    signals = _Signals(asyncio.current_task(), manager.settings.graceful_shutdown_seconds)
    try:
        async with manager:
            with pulse.forgiven():
                # What was loaded so far lives as long as the process: keep the garbage collector from walking over it.
                gc.collect()
                gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            await manager.wait_stop()
    except asyncio.CancelledError:
        if not signals.received:
            raise
    except ShutdownTimedOut as error:
        # Something does not obey its cancellation: waiting again, as closing the loop would, could last for ever.
        _log.error("stopped with work left over", error=str(error))
        exit_now(EXIT_FAILED)
    finally:
        # For a manager that failed before it could wait for them itself.
        left = await threads.wait(0.0 if threads.given_up else signals.remaining)
        if left:
            failure = sys.exception()
            cause = describe(failure) if isinstance(failure, Exception) else ""
            _log.error("stopped with work left over", left=left, error=cause)
            exit_now(EXIT_FAILED)
        signals.close()


class _Signals:
    """The first signal cancels the main task, which stops the manager in order wherever it is; the second exits.

    Python's own handlers: they run although the loop is blocked, between two steps of the main thread.
    """

    def __init__(self, task: "asyncio.Task[None] | None", grace: float) -> None:
        self.received = False
        self._task = task
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._ends = float("inf")
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        self._bound = threading.Timer(grace + EXIT_SECONDS, exit_now, [EXIT_FAILED])
        self._bound.daemon = True

    @property
    def remaining(self) -> float:
        """Seconds of the graceful period that are left."""
        return max(0.0, min(self._grace, self._ends - monotonic()))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.received or self._task is None:
            os.write(2, SECOND_SIGNAL)  # not by the log, whose lock the interrupted code may hold
            exit_now(EXIT_FAILED)
        self.received = True
        self._ends = self._loop.time() + self._grace
        self._bound.start()
        self._loop.call_soon_threadsafe(self._stop, self._task, signal.Signals(number).name)

    def close(self) -> None:
        """Everything has stopped: the process may end in its own time."""
        self._bound.cancel()
        for number, before in self._before.items():
            signal.signal(number, before)

    @staticmethod
    def _stop(task: "asyncio.Task[None]", name: str) -> None:
        _log.info("signal received, stopping", signal=name)
        task.cancel()


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for anything. Any thread may call it."""
    os._exit(code)
