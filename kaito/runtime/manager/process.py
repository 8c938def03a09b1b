"""A manager as a process: its event loop, its signals, its exit code. Called by `Manager.run`."""

import asyncio
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from kaito.runtime.controller.outcome import describe
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.manager.runnable import ShutdownTimedOut

if TYPE_CHECKING:
    from kaito.runtime.manager.manager import Manager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

EXIT_CLEAN = 0
EXIT_FAILED = 1

GC_THRESHOLDS = (10_000, 50, 100)
"""Collect young objects every 10,000 allocations instead of 700: a list of 1,000 pods is decoded in a third of the time
(docs/benchmarks.md), and a few MiB of cycles may wait a little longer."""

_log = get_logger(__name__)


def run_process(manager: "Manager") -> None:
    """Run the manager; see `Manager.run`."""
    configure(manager.settings.log_format, manager.settings.log_level)
    try:
        with asyncio.Runner() as runner:
            runner.run(_main(manager))
    except KaitoRuntimeError as error:
        _log.error("stopped by a failure", error=describe(error))
        sys.exit(EXIT_FAILED)
    except Exception:  # noqa: BLE001 - the outermost boundary: logged with its stack, told by the exit code
        _log.exception("stopped by an unexpected error")
        sys.exit(EXIT_FAILED)
    sys.exit(EXIT_CLEAN)


async def _main(manager: "Manager") -> None:
    signals = _Signals(asyncio.current_task())
    try:
        async with manager:
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


class _Signals:
    """The first signal cancels the main task, which stops the manager in order wherever it is; the second exits."""

    def __init__(self, task: "asyncio.Task[None] | None") -> None:
        self.received = False
        self._task = task
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.received or self._task is None:
            _log.warning("second signal, exiting at once", signal=number.name)
            exit_now(EXIT_FAILED)
        _log.info("signal received, stopping", signal=number.name)
        self.received = True
        self._task.cancel()


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for anything."""
    sys.stderr.flush()
    os._exit(code)
