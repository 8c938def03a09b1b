"""A manager as a process: event loop, signals and exit code. Called by `Manager.run`."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import NoReturn, TypeAlias

from kaito.runtime.clock import monotonic
from kaito.runtime.controller.outcome import describe
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog
from kaito.runtime.manager.runnable import ShutdownTimedOut
from kaito.runtime.manager.settings import Settings
from kaito.runtime.manager.threads import Threads

Serve: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Starts a manager, calls its argument once it has started, and returns when the manager has stopped."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

EXIT_SECONDS = 10.0
"""Time beyond the graceful period, for the last events, open requests and the release of the lease. After it the
process exits even if the loop, or a thread of another library, is blocked."""

SECOND_SIGNAL = b'{"level": "warning", "msg": "second signal, exiting at once"}\n'

EXIT_CLEAN = 0
EXIT_FAILED = 1

GC_THRESHOLDS = (10_000, 50, 100)
"""Collect young objects every 10,000 allocations instead of 700. A list of 1,000 pods is then decoded in a third of the
time (docs/internals/benchmarks.md), and a few MiB of reference cycles are freed a little later."""

_log = get_logger(__name__)


def run_process(serve: Serve, settings: Settings, *, threads: Threads, watchdog: LoopWatchdog) -> NoReturn:
    """Runs a manager in a new event loop until a signal arrives or it stops, then exits; see `Manager.run`."""
    configure(settings.log_format, settings.log_level)
    threads.count_process_threads()
    code = EXIT_FAILED
    try:
        with asyncio.Runner() as runner:
            runner.run(_main(serve, settings.graceful_shutdown_seconds, threads, watchdog))
        code = EXIT_CLEAN
    except KaitoRuntimeError as error:
        _log.error("stopped by a failure", error=describe(error))
    except Exception:  # noqa: BLE001 - the outermost boundary: logged with its stack, and reported by the exit code
        _log.exception("stopped by an unexpected error")
    sys.exit(code)


async def _main(serve: Serve, grace_seconds: float, threads: Threads, watchdog: LoopWatchdog) -> None:
    def tune_garbage_collector() -> None:
        with watchdog.paused():
            # What is loaded by now lives as long as the process. Freezing it keeps the collector from traversing it.
            gc.collect()
            gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    threads.attach()
    signals = _Signals(asyncio.current_task(), grace_seconds)
    try:
        await serve(tune_garbage_collector)
    except asyncio.CancelledError:
        if not signals.received:
            raise
    except ShutdownTimedOut as error:
        # A task ignored its cancellation. `Runner` would wait for it again, possibly without end: exit instead.
        _log.error("shutdown timed out", error=str(error))
        exit_now(EXIT_FAILED)
    finally:
        # A manager that failed during its start has not waited for its threads.
        busy = await threads.wait(0.0 if threads.timed_out else signals.remaining)
        if busy:
            failure = sys.exception()
            cause = describe(failure) if isinstance(failure, Exception) else ""
            _log.error("shutdown timed out", left=busy, error=cause)
            exit_now(EXIT_FAILED)
        signals.close()


class _Signals:
    """Handles SIGINT and SIGTERM: the first cancels the main task, which stops the manager; the second exits at once.

    The handlers are Python's, not the loop's: they run between two bytecodes of the main thread even if the loop is
    blocked.
    """

    def __init__(self, task: "asyncio.Task[None] | None", grace_seconds: float) -> None:
        self.received = False
        self._task = task
        self._grace_seconds = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._deadline = float("inf")
        self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        self._exit_timer = threading.Timer(grace_seconds + EXIT_SECONDS, exit_now, [EXIT_FAILED])
        self._exit_timer.daemon = True

    @property
    def remaining(self) -> float:
        """Remaining seconds of the graceful period."""
        return max(0.0, min(self._grace_seconds, self._deadline - monotonic()))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.received or self._task is None:
            os.write(2, SECOND_SIGNAL)  # not through the log: the interrupted code may hold its lock
            exit_now(EXIT_FAILED)
        self.received = True
        self._deadline = self._loop.time() + self._grace_seconds
        self._exit_timer.start()
        self._loop.call_soon_threadsafe(self._stop, self._task, signal.Signals(number).name)

    def close(self) -> None:
        """Cancels the forced exit and restores the previous handlers; called when everything has stopped."""
        self._exit_timer.cancel()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(task: "asyncio.Task[None]", name: str) -> None:
        _log.info("signal received, stopping", signal=name)
        task.cancel()


def exit_now(code: int) -> NoReturn:
    """Ends the process at once, without cleaning up. Safe in any thread."""
    os._exit(code)
